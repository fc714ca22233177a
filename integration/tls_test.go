package integration

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// tlsRegistry starts a registry behind TLS that has team/app:1. It returns its
// host:port, its authority, and that of its clients, nil if it asks for none.
func (b *bench) tlsRegistry(withClients, ipv6 bool) (host string, ca, clients *parts.CA) {
	b.t.Helper()
	dir := filepath.Join(b.dir, "tls")
	b.seed(dir, map[string]remotestest.Image{
		"team/app:1": remotestest.Build(remotestest.ImageSpec{Seed: 620, Layers: []int64{100_000}}),
	})
	ca = b.ca("servers")
	if withClients {
		clients = b.ca("clients")
	}
	r, err := parts.StartTLSRegistry(b.t.Context(), b.bin, dir, parts.TLSOptions{CA: ca, Clients: clients, IPv6: ipv6})
	if err != nil {
		b.t.Fatal(err)
	}
	b.cleanup(r.Close)
	return strings.TrimPrefix(r.URL, "https://"), ca, clients
}

func (b *bench) ca(name string) *parts.CA {
	b.t.Helper()
	ca, err := parts.NewCA(b.dir, name)
	if err != nil {
		b.t.Fatal(err)
	}
	return ca
}

// hostKeys is config of one upstream host; keys and values in turn.
func hostKeys(host string, keys ...string) string {
	text := fmt.Sprintf("[[upstream.hosts]]\nhost = %q\n", host)
	for i := 0; i+1 < len(keys); i += 2 {
		text += fmt.Sprintf("%s = %q\n", keys[i], keys[i+1])
	}
	return text
}

// A registry with a certificate of one's own: larder believes it if it has the
// authority, and only then; over IPv4 and IPv6.
func TestUpstreamWithOwnCA(t *testing.T) {
	t.Parallel()
	for name, ipv6 := range map[string]bool{"ipv4": false, "ipv6": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "larder", "containerd", "ctr", "registry")
			host, ca, _ := b.tlsRegistry(false, ipv6)
			l := b.larder(routeFor("tls.test", "https://"+host) + hostKeys(host, "ca_file", ca.File))
			certs := b.certs(l)
			c := b.containerd(certs, false)
			ctr(t, c, pullArgs("tls.test/team/app:1", certs, false)...)
		})
	}
}

// A certificate that nobody vouches for, or somebody else, is refused, and the
// error says so.
func TestUpstreamWithUnknownCA(t *testing.T) {
	t.Parallel()
	for _, other := range []bool{false, true} {
		t.Run(fmt.Sprintf("another authority %t", other), func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "larder", "registry")
			host, _, _ := b.tlsRegistry(false, false)
			config := routeFor("tls.test", "https://"+host)
			if other {
				config += hostKeys(host, "ca_file", b.ca("other").File)
			}
			l := b.larder(config)
			out, err := l.Run(t.Context(), "pull", "tls.test/team/app:1")
			if err == nil || !strings.Contains(err.Error(), "certificate") {
				t.Errorf("got %s, %v, want an error on the certificate", out, err)
			}
		})
	}
}

// A registry that asks its clients for a certificate.
func TestClientCertificate(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder", "containerd", "ctr", "registry")
	host, ca, clients := b.tlsRegistry(true, false)
	pair, err := clients.Issue("larder")
	if err != nil {
		t.Fatal(err)
	}
	l := b.larder(routeFor("tls.test", "https://"+host) +
		hostKeys(host, "ca_file", ca.File, "client_cert_file", pair.CertFile, "client_key_file", pair.KeyFile))
	certs := b.certs(l)
	c := b.containerd(certs, false)
	ctr(t, c, pullArgs("tls.test/team/app:1", certs, false)...)
}

// Without its certificate the same pull fails, so TestClientCertificate proves
// something.
func TestControlNoClientCertificate(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder", "registry")
	host, ca, _ := b.tlsRegistry(true, false)
	l := b.larder(routeFor("tls.test", "https://"+host) + hostKeys(host, "ca_file", ca.File))
	if out, err := l.Run(t.Context(), "pull", "tls.test/team/app:1"); err == nil {
		t.Errorf("pulled without a client certificate: %s", out)
	}
}
