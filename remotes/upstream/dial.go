package upstream

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/net/http/httpproxy"
)

// dialer connects to public addresses, to ECR at private ones too, and to the
// named hosts wherever they are.
type dialer struct {
	public *net.Dialer
	ecr    *net.Dialer
	named  *net.Dialer
	hosts  map[string]bool // host:port that the configuration names
}

func newDialer(timeout time.Duration, hosts map[string]bool) *dialer {
	return &dialer{
		named:  &net.Dialer{Timeout: timeout, KeepAlive: 30 * time.Second},
		public: &net.Dialer{Timeout: timeout, KeepAlive: 30 * time.Second, Control: refusePrivate},
		ecr:    &net.Dialer{Timeout: timeout, KeepAlive: 30 * time.Second, Control: refuseSpecial},
		hosts:  hosts,
	}
}

func (d *dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if d.hosts[strings.ToLower(addr)] {
		return d.named.DialContext(ctx, network, addr)
	}
	if mayBePrivate(addr) {
		return d.ecr.DialContext(ctx, network, addr)
	}
	return d.public.DialContext(ctx, network, addr)
}

// refusePrivate runs on the address that is about to be connected, so that no
// name can resolve around it.
func refusePrivate(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("address %q: %w: %w", address, err, errdefs.ErrPermissionDenied)
	}
	if isPublic(ap.Addr()) {
		return nil
	}
	return &addressError{address: address}
}

// addressError is a refusal of our own, which no retry changes.
type addressError struct {
	address string
	plain   bool // the address is out of the question for its scheme
}

func (e *addressError) Error() string {
	why := "is not a public address"
	if e.plain {
		why = "is not https"
	}
	return fmt.Sprintf("%s %s and the configuration does not name its host; "+
		"if it is meant, name the host in [[routes]] or in upstream.private", e.address, why)
}

// publicIPv6 is what is given to anyone today.
var publicIPv6 = netip.MustParsePrefix("2000::/3")

// nat64 hides an IPv4 address in its last four bytes (RFC 6052). Nodes without
// IPv4 reach most registries through it.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// notPublic are special ranges that netip does not know by name.
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),        // this network
	netip.MustParsePrefix("100.64.0.0/10"),    // shared by carriers; metadata of some clouds
	netip.MustParsePrefix("168.63.129.16/32"), // Azure's host, with secrets of the machine
	netip.MustParsePrefix("192.0.0.0/24"),     // IETF protocols
	netip.MustParsePrefix("192.0.2.0/24"),     // documentation
	netip.MustParsePrefix("192.88.99.0/24"),   // 6to4 relays
	netip.MustParsePrefix("198.18.0.0/15"),    // benchmarks
	netip.MustParsePrefix("198.51.100.0/24"),  // documentation
	netip.MustParsePrefix("203.0.113.0/24"),   // documentation
	netip.MustParsePrefix("240.0.0.0/4"),      // reserved
	netip.MustParsePrefix("2001::/23"),        // IETF protocols; Teredo, which hides an IPv4 address
	netip.MustParsePrefix("2001:db8::/32"),    // documentation
	netip.MustParsePrefix("2002::/16"),        // 6to4, which hides an IPv4 address
	netip.MustParsePrefix("3fff::/20"),        // documentation
}

func isPublic(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("") // no prefix contains a zoned address
	if nat64.Contains(addr) {
		b := addr.As16()
		addr = netip.AddrFrom4([4]byte(b[12:]))
	}
	if !addr.IsGlobalUnicast() || addr.IsPrivate() || addr.Is6() && !publicIPv6.Contains(addr) {
		return false
	}
	for _, p := range notPublic {
		if p.Contains(addr) {
			return false
		}
	}
	return true
}

// proxyHosts are the proxies that the environment names. Whoever runs larder
// named them, so they may be private.
func proxyHosts(cfg *httpproxy.Config) []string {
	var hosts []string
	for _, text := range []string{cfg.HTTPProxy, cfg.HTTPSProxy} {
		if text == "" {
			continue
		}
		if !strings.Contains(text, "://") {
			text = "http://" + text
		}
		// What is no URL is no proxy for net/http either.
		if u, err := url.Parse(text); err == nil {
			hosts = append(hosts, hostPort(u.Scheme, u.Host))
		}
	}
	return hosts
}
