package upstream

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
)

func TestIsPublic(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"1.1.1.1": true, "8.8.8.8": true, "100.63.255.255": true, "100.128.0.1": true, "172.15.0.1": true, "172.32.0.1": true,
		"198.17.0.1": true, "198.20.0.1": true, "223.255.255.255": true, "168.63.129.17": true,
		"2606:4700::1111": true, "2001:4860:4860::8888": true, "::ffff:8.8.8.8": true, "2600:1f18::1": true,

		"127.0.0.1": false, "127.255.255.254": false, "::1": false, "0.0.0.0": false, "0.1.2.3": false, "::": false,
		"10.0.0.1": false, "172.16.0.1": false, "172.31.255.255": false, "192.168.1.1": false, "fd00::1": false, "fc00::1": false,
		"169.254.1.1": false, "169.254.169.254": false, "fe80::1": false, "fe80::1%eth0": false, "fd00:ec2::254": false,
		"100.64.0.1": false, "100.100.100.200": false, "100.127.255.255": false, "168.63.129.16": false, "192.0.0.192": false,
		"::ffff:127.0.0.1": false, "::ffff:10.0.0.1": false, "::ffff:169.254.169.254": false, "::127.0.0.1": false,
		"64:ff9b::7f00:1": false, "64:ff9b::808:808": true, "64:ff9b::a9fe:a9fe": false, "64:ff9b:1::a00:1": false, "2002:7f00:1::": false, "2001:0:7f00:1::": false,
		"224.0.0.1": false, "239.1.1.1": false, "ff02::1": false, "255.255.255.255": false, "240.0.0.1": false,
		"192.0.2.1": false, "198.51.100.1": false, "203.0.113.1": false, "198.18.0.1": false, "198.19.255.255": false,
		"2001:db8::1": false, "3fff::1": false, "fec0::1": false, "100::1": false, "2606:4700::1%eth0": true, "2002:7f00:1::%eth0": false,
	} {
		if got := isPublic(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: got %t, want %t", text, got, want)
		}
	}
	if isPublic(netip.Addr{}) {
		t.Error("no address is public")
	}
}

// listener accepts connections on loopback and counts them.
func listener(t *testing.T) (port string, accepted func() int) {
	t.Helper()
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	_, port, err = net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port, func() int {
		n := 0
		for ; ; n++ {
			// What was connected is in the queue already.
			if err := ln.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			conn, err := ln.Accept()
			if err != nil {
				return n
			}
			conn.Close()
		}
	}
}

// TestGuardRefusesPrivate dials loopback by address and by name, named by the
// configuration and not.
func TestGuardRefusesPrivate(t *testing.T) {
	t.Parallel()
	for name, host := range map[string]string{
		"address": "127.0.0.1", "name": "localhost", "mapped": "[::ffff:127.0.0.1]", "unspecified": "0.0.0.0", "upper case": "LOCALHOST",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			port, accepted := listener(t)
			d := newDialer(time.Second, nil)
			conn, err := d.dial(soon(t), "tcp", host+":"+port)
			if err == nil {
				conn.Close()
				t.Fatal("dialled")
			}
			if !strings.Contains(err.Error(), "is not a public address") {
				t.Errorf("error is %v, want that the address is not public", err)
			}
			if n := accepted(); n != 0 {
				t.Errorf("%d connections were made", n)
			}
			d = newDialer(time.Second, map[string]bool{strings.ToLower(host) + ":" + port: true})
			conn, err = d.dial(soon(t), "tcp", host+":"+port)
			if err != nil {
				t.Fatalf("named: %v", err)
			}
			conn.Close()
		})
	}
}

// TestClientRefusesPrivate is the same through a Client, where the breaker
// must not take its own refusal for a failure of upstream.
func TestClientRefusesPrivate(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t, remotestest.WithTLS())
	_, port, err := net.SplitHostPort(reg.Host())
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.0.1:" + port, "localhost:" + port, "[::ffff:127.0.0.1]:" + port} {
		p := newPool(t, Options{Named: endpoints(t, "https://127.0.0.1:1", "https://localhost:1")}) // another port
		c := p.Client(Endpoint{Scheme: "https", Host: host})
		for range 2 * failuresToOpen {
			_, _, err := c.Manifest(soon(t), "team/app", img.Root.Digest)
			e := failure(t, err, errdefs.ErrUnavailable)
			if e.Status != 0 || !strings.Contains(e.Error(), "is not a public address") {
				t.Errorf("%s: error is %v, want that the address is not public", host, e)
			}
		}
	}
	if n := len(reg.Requests()); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
}

// TestPlainOnlyWhereNamed speaks http to a host that is named for https only.
func TestPlainOnlyWhereNamed(t *testing.T) {
	t.Parallel()
	reg, _ := withImage(t)
	ep := endpoint(t, reg.URL())
	for name, urls := range map[string][]string{
		"not named": nil, "named for https": {"https://" + reg.Host()}, "another port": {"http://127.0.0.1:1"},
	} {
		_, err := named(t, urls...).Client(ep).Resolve(soon(t), "team/app", "v1")
		if e := failure(t, err, errdefs.ErrUnavailable); !strings.Contains(e.Error(), "is not https") {
			t.Errorf("%s: error is %v, want that it is not https", name, e)
		}
	}
	if n := len(reg.Requests()); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
	if _, err := named(t, reg.URL()).Client(ep).Resolve(soon(t), "team/app", "v1"); err != nil {
		t.Errorf("named: %v", err)
	}
}
