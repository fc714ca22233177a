package upstream

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	ecrRegistry = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
	ecrBucket   = "prod-eu-central-1-starport-layer-bucket.s3.eu-central-1.amazonaws.com"
)

func TestMayBePrivate(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]bool{
		ecrRegistry + ":443":                                                                true,
		strings.ToUpper(ecrRegistry) + ":443":                                               true,
		"123456789012.dkr-ecr.us-west-2.on.aws:443":                                         true,
		"123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com:443":                         true,
		ecrBucket + ":443":                                                                  true,
		"prod-us-gov-west-1-starport-layer-bucket.s3.us-gov-west-1.amazonaws.com:443":       true,
		"prod-cn-north-1-starport-layer-bucket.s3.cn-north-1.amazonaws.com.cn:443":          true,
		"prod-eu-west-1-starport-layer-bucket.s3.dualstack.eu-west-1.amazonaws.com:443":     true,
		ecrRegistry + ":80":                                                                 false,
		ecrBucket + ":8443":                                                                 false,
		ecrRegistry:                                                                         false,
		ecrRegistry + ".example.com:443":                                                    false,
		"evil." + ecrRegistry + ":443":                                                      false,
		"12345678901.dkr.ecr.eu-central-1.amazonaws.com:443":                                false,
		"public.ecr.aws:443":                                                                false,
		"evil-" + ecrBucket + ":443":                                                        false,
		"prod-eu-central-1-starport-layer-bucket.s3.eu-west-1.amazonaws.com:443":            false,
		"prod-eu-central-1-starport-layer-bucket.evil.s3.eu-central-1.amazonaws.com:443":    false,
		"prod-eu-central-1-starport-layer-bucketx.s3.eu-central-1.amazonaws.com:443":        false,
		"prod-eu-central-1-starport-layer-bucket.s3-website.eu-central-1.amazonaws.com:443": false,
		"bucket.s3.eu-central-1.amazonaws.com:443":                                          false,
		"prod-eu-central-1-starport-layer-bucket.s3.eu-central-1.amazonaws.comxcn:443":      false,
	} {
		if got := mayBePrivate(addr); got != want {
			t.Errorf("%s: got %t, want %t", addr, got, want)
		}
	}
}

// resolver asks a name server on loopback that gives one address for any name.
func resolver(t *testing.T, addr netip.Addr) *net.Resolver {
	t.Helper()
	var lc net.ListenConfig
	conn, err := lc.ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { conn.Close(); <-done })
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if reply, err := answer(buf[:n], addr); err != nil {
				t.Error(err)
			} else if _, err := conn.WriteTo(reply, from); err != nil {
				t.Error(err)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func answer(query []byte, addr netip.Addr) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil, err
	}
	q := m.Questions[0]
	m.Response, m.Additionals = true, nil
	h := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}
	switch {
	case q.Type == dnsmessage.TypeA && addr.Is4():
		m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AResource{A: addr.As4()}}}
	case q.Type == dnsmessage.TypeAAAA && addr.Is6():
		m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}}}
	}
	return m.Pack()
}

// errAllowed stands for the connection that the guard would have allowed: the
// tests connect to nobody.
var errAllowed = errors.New("allowed")

// TestECRAtPrivateAddress resolves ECR's names, and others, to addresses of all
// kinds.
func TestECRAtPrivateAddress(t *testing.T) {
	t.Parallel()
	for text, ecr := range map[string]bool{
		"10.0.0.7": true, "172.16.5.4": true, "192.168.1.1": true, "fd12:3456::1": true, "fc00::1": true,
		"127.0.0.1": false, "::1": false, "169.254.169.254": false, "169.254.170.2": false, "fe80::1": false, "fd00:ec2::254": false,
		"100.100.100.200": false, "168.63.129.16": false, "0.0.0.0": false, "::ffff:127.0.0.1": false, "64:ff9b::a00:1": false, "224.0.0.1": false,
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			d := newDialer(5*time.Second, nil)
			names := resolver(t, netip.MustParseAddr(text))
			for _, nd := range []*net.Dialer{d.public, d.ecr, d.named} {
				guard := nd.Control
				nd.Resolver = names
				nd.Control = func(network, address string, c syscall.RawConn) error {
					if guard != nil {
						if err := guard(network, address, c); err != nil {
							return err
						}
					}
					return errAllowed
				}
			}
			for addr, want := range map[string]bool{ecrRegistry + ":443": ecr, ecrBucket + ":443": ecr, ecrRegistry + ":5000": false, "registry.example:443": false} {
				_, err := d.dial(soon(t), "tcp", addr)
				if got := errors.Is(err, errAllowed); got != want || !got && !strings.Contains(err.Error(), "is not a public address") {
					t.Errorf("%s: %v, allowed %t, want %t", addr, err, got, want)
				}
			}
		})
	}
}
