package upstream

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// dns is a name server on loopback. What it answers may change with each
// question.
type dns struct {
	conn net.PacketConn
	mu   sync.Mutex
	a    [][]netip.Addr // IPv4 addresses by question; the last one stays
	aaaa []netip.Addr
}

// newDNS answers questions for any name; without addresses there is none.
func newDNS(t *testing.T, aaaa []netip.Addr, a ...[]netip.Addr) *net.Resolver {
	t.Helper()
	var lc net.ListenConfig
	conn, err := lc.ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &dns{conn: conn, a: a, aaaa: aaaa}
	var served sync.WaitGroup
	served.Go(d.serve)
	t.Cleanup(func() { conn.Close(); served.Wait() })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var nd net.Dialer
		return nd.DialContext(ctx, "udp4", conn.LocalAddr().String())
	}}
}

func (d *dns) serve() {
	buf := make([]byte, 1500)
	for {
		n, from, err := d.conn.ReadFrom(buf)
		if err != nil {
			return // closed
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil || len(m.Questions) == 0 {
			continue
		}
		m.Response, m.Additionals = true, nil
		d.answer(&m)
		if out, err := m.Pack(); err == nil {
			_, _ = d.conn.WriteTo(out, from) // who does not get it asks again
		}
	}
}

func (d *dns) answer(m *dnsmessage.Message) {
	d.mu.Lock()
	defer d.mu.Unlock()
	q := m.Questions[0]
	header := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, Type: q.Type}
	if len(d.a) == 0 && len(d.aaaa) == 0 {
		m.RCode = dnsmessage.RCodeNameError
		return
	}
	switch q.Type {
	case dnsmessage.TypeA:
		if len(d.a) == 0 {
			return
		}
		for _, addr := range d.a[0] {
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: addr.As4()}})
		}
		if len(d.a) > 1 {
			d.a = d.a[1:]
		}
	case dnsmessage.TypeAAAA:
		for _, addr := range d.aaaa {
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}})
		}
	}
}

// resolving has a pool ask a name server.
func resolving(p *Pool, r *net.Resolver, timeout time.Duration, hosts ...string) {
	names := map[string]bool{}
	for _, h := range hosts {
		names[h] = true
	}
	d := newDialer(timeout, names)
	d.named.Resolver, d.public.Resolver, d.ecr.Resolver = r, r, r
	p.transport.DialContext = d.dial
}

func addrs(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

// TestUnknownHost has no such name.
func TestUnknownHost(t *testing.T) {
	t.Parallel()
	p := named(t, "http://registry.test")
	resolving(p, newDNS(t, nil), time.Second, "registry.test:80")
	err := resolve(soon(t), p.Client(endpoint(t, "http://registry.test")))
	if e := failure(t, err, errdefs.ErrUnavailable); !strings.Contains(e.Error(), "lookup registry.test") || !strings.Contains(e.Error(), "no such host") {
		t.Errorf("error is %v, want that the name is not known", e)
	}
}

// mute listens on an address and lets nobody in: its queue is full, so that the
// kernel does not answer.
func mute(t *testing.T, ip netip.Addr, port uint16) {
	t.Helper()
	family, at := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, 2}})
	if ip.Is6() {
		family, at = unix.AF_INET6, &unix.SockaddrInet6{Port: int(port), Addr: ip.As16()}
	} else {
		at.(*unix.SockaddrInet4).Addr = ip.As4()
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Skipf("this machine has no such socket: %v", err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, at); err != nil {
		t.Skipf("%s cannot be bound: %v", ip, err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for range 8 { // until one is not let in any more
		c, err := (&net.Dialer{Timeout: 100 * time.Millisecond}).DialContext(t.Context(), "tcp", netip.AddrPortFrom(ip, port).String())
		if err != nil {
			return
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("everyone is let in")
}

// TestOneOfTwoAddressesIsDead reaches an upstream whose other address does not
// answer, or refuses, in the time of a dial.
func TestOneOfTwoAddressesIsDead(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		dead  string
		muted bool
		most  time.Duration
	}{
		"refuses":         {"127.0.0.2", false, time.Second},
		"silent":          {"127.0.0.3", true, 3 * time.Second}, // half of the dial's time
		"IPv6 is silent":  {"::1", true, time.Second},           // RFC 8305: 300 ms, then the other family
		"IPv6 is refused": {"::1", false, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg, _ := withImage(t)
			ap := netip.MustParseAddrPort(reg.Host())
			dead := netip.MustParseAddr(tc.dead)
			if tc.muted {
				mute(t, dead, ap.Port())
			}
			var r *net.Resolver
			if dead.Is6() {
				r = newDNS(t, []netip.Addr{dead}, []netip.Addr{ap.Addr()})
			} else {
				r = newDNS(t, nil, []netip.Addr{dead, ap.Addr()})
			}
			_, port, _ := strings.Cut(reg.Host(), ":")
			host := "registry.test:" + port
			p := named(t, "http://"+host)
			resolving(p, r, 4*time.Second, host)
			begun := time.Now()
			if err := resolve(soon(t), p.Client(endpoint(t, "http://"+host))); err != nil {
				t.Fatal(err)
			}
			took := time.Since(begun)
			t.Logf("%s: %s until the answer", name, took.Round(time.Millisecond))
			if took > tc.most {
				t.Errorf("took %s, want at most %s", took, tc.most)
			}
		})
	}
}

// TestNameMovesToPrivateAddress asks for a name's address, which is public, and
// connects to the name, which is not any more.
func TestNameMovesToPrivateAddress(t *testing.T) {
	t.Parallel()
	for _, private := range []string{"127.0.0.1", "10.0.0.1", "169.254.169.254"} {
		port, accepted := listener(t)
		r := newDNS(t, nil, addrs("8.8.8.8"), addrs(private))
		seen, err := r.LookupNetIP(soon(t), "ip4", "rebound.test")
		if err != nil || !slices.ContainsFunc(seen, isPublic) {
			t.Fatalf("the check saw %v, %v, want a public address", seen, err)
		}
		p := named(t)
		resolving(p, r, time.Second)
		e := failure(t, resolve(soon(t), p.Client(Endpoint{Scheme: "https", Host: "rebound.test:" + port})), errdefs.ErrUnavailable)
		if !strings.Contains(e.Error(), "is not a public address") || accepted() != 0 {
			t.Errorf("%s: error is %v, want a refusal and no connection", private, e)
		}
	}
}

// TestExpiredCertificate has an upstream whose certificate is over.
func TestExpiredCertificate(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	s.Config.ErrorLog = quiet()
	s.StartTLS()
	t.Cleanup(s.Close)
	p := named(t, s.URL)
	p.transport.TLSClientConfig.RootCAs = x509.NewCertPool()
	p.transport.TLSClientConfig.RootCAs.AddCert(cert)
	e := failure(t, resolve(soon(t), p.Client(endpoint(t, s.URL))), errdefs.ErrUnavailable)
	if !strings.Contains(e.Error(), "certificate has expired") {
		t.Errorf("error is %v, want that the certificate has expired", e)
	}
}
