package upstream

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
)

// ecrLayers matches the buckets that ECR redirects to for blobs, in the two
// spellings of S3 (ECR user guide, "Interface VPC endpoints": minimum Amazon
// S3 bucket permissions). The region stands in it twice.
var ecrLayers = regexp.MustCompile(`^prod-([a-z]{2}(?:-[a-z]+)+-\d{1,2})-starport-layer-bucket\.s3(?:\.dualstack)?\.([a-z]{2}(?:-[a-z]+)+-\d{1,2})\.amazonaws\.com(?:\.cn)?$`)

func isECRLayers(name string) bool {
	m := ecrLayers.FindStringSubmatch(name)
	return m != nil && m[1] == m[2]
}

// mayBePrivate reports whether host:port may be at a private address without
// being named: ECR and its buckets, which are there for whoever reaches them
// by interface endpoints of a VPC. Nobody but AWS can have these names, and
// TLS says who answers.
func mayBePrivate(addr string) bool {
	name, port, err := net.SplitHostPort(addr)
	name = strings.ToLower(name)
	registry, isECR := ParseECRHost(name)
	return err == nil && port == "443" && (isECR && !registry.Public || isECRLayers(name))
}

// ec2 is where EC2 has its metadata and other services of the machine, amid
// the private addresses of IPv6.
var ec2 = netip.MustParsePrefix("fd00:ec2::/32")

// refuseSpecial is refusePrivate for what may be private: RFC 1918 and
// fc00::/7, and never the machine itself, its link, or its metadata.
func refuseSpecial(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("address %q: %w: %w", address, err, errdefs.ErrPermissionDenied)
	}
	addr := ap.Addr().Unmap().WithZone("")
	if isPublic(addr) || addr.IsPrivate() && !ec2.Contains(addr) {
		return nil
	}
	return &addressError{address: address}
}
