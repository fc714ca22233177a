package upstream

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/net/http/httpproxy"
)

// dialer connects to public addresses, and to the named hosts wherever they
// are.
type dialer struct {
	public *net.Dialer
	named  *net.Dialer
	hosts  map[string]bool // host:port that the configuration names
}

func newDialer(timeout time.Duration, hosts map[string]bool) *dialer {
	d := &dialer{
		named:  &net.Dialer{Timeout: timeout, KeepAlive: 30 * time.Second},
		public: &net.Dialer{Timeout: timeout, KeepAlive: 30 * time.Second, Control: refusePrivate},
		hosts:  hosts,
	}
	return d
}

func (d *dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if d.hosts[strings.ToLower(addr)] {
		return d.named.DialContext(ctx, network, addr)
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
type addressError struct{ address string }

func (e *addressError) Error() string {
	return fmt.Sprintf("%s is not a public address and the configuration does not name its host; "+
		"if it is meant, name the host in [[routes]] or in upstream.private", e.address)
}

// notPublic are special ranges that netip does not know by name: shared
// address space, IETF protocol assignments, benchmarking, reserved, NAT64 and
// 6to4, whose addresses hide an IPv4 one.
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("64:ff9b::/96"),
	netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("2002::/16"),
}

func isPublic(addr netip.Addr) bool {
	addr = addr.Unmap()
	if !addr.IsGlobalUnicast() || addr.IsPrivate() || addr.IsLinkLocalUnicast() || addr.IsLoopback() {
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
func proxyHosts() []string {
	cfg := httpproxy.FromEnvironment()
	var hosts []string
	for _, text := range []string{cfg.HTTPProxy, cfg.HTTPSProxy} {
		if text == "" {
			continue
		}
		if !strings.Contains(text, "://") {
			text = "http://" + text
		}
		if u, err := parseURL(text); err == nil {
			hosts = append(hosts, hostPort(u.Scheme, u.Host))
		}
	}
	return hosts
}
