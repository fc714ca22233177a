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

// ecrHost matches the registry hosts of Amazon ECR in all partitions, FIPS
// and dual-stack included. It is the expression that AWS's own credential
// tools use; a port must be stripped first.
var ecrHost = regexp.MustCompile(`^(\d{12})\.dkr[\.\-]ecr(\-fips)?\.([a-zA-Z0-9][a-zA-Z0-9-_]*)\.(amazonaws\.(?:com(?:\.cn)?|eu)|on\.(?:aws|amazonwebservices\.com\.cn)|sc2s\.sgov\.gov|c2s\.ic\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)$`)

// IsECRHost reports whether a registry host is a private ECR registry.
func IsECRHost(host string) bool {
	name, _, _ := strings.Cut(host, ":")
	return ecrHost.MatchString(name)
}

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
	return err == nil && port == "443" && (ecrHost.MatchString(name) || isECRLayers(name))
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
