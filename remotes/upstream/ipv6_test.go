package upstream

import (
	"net"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// TestIPv6 asks an upstream at [::1] in every way. Like IPv4's loopback it has
// to be named.
func TestIPv6(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t)
	to, err := url.Parse(reg.URL())
	if err != nil {
		t.Fatal(err)
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp6", "[::1]:0")
	if err != nil {
		t.Skipf("this machine has no IPv6 loopback: %v", err)
	}
	s := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(to))
	s.Listener.Close()
	s.Listener = ln
	s.Start()
	t.Cleanup(s.Close)
	host := ln.Addr().String()
	p := named(t, "http://"+host)
	for op, ask := range operations(t, img) {
		if err := ask(p.Client(endpoint(t, "http://"+host))); err != nil {
			t.Errorf("%s: %v", op, err)
		}
	}
	if a := entry(t, p); a.Host != host || a.Answers.OK != 6 {
		t.Errorf("ledger: %+v", a)
	}
	reg.ResetRequests()
	_, err = named(t, "http://[::1]:1").Client(Endpoint{Scheme: "https", Host: host}).Resolve(soon(t), "team/app", "v1")
	if e := failure(t, err, errdefs.ErrUnavailable); !strings.Contains(e.Error(), "is not a public address") || len(reg.Requests()) != 0 {
		t.Errorf("not named: %v, %d requests", e, len(reg.Requests()))
	}
}
