package upstream

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
)

// TestRedirectDropsAuthorization sends blobs of a registry with tokens to
// another origin, which differs in its port only.
func TestRedirectDropsAuthorization(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t, remotestest.WithToken())
	other, _ := withImage(t)
	reg.Fault(remotestest.Blobs(), remotestest.RedirectHost(other.URL()))
	c := named(t, reg.URL(), other.URL()).Client(endpoint(t, reg.URL()))
	data, _, err := readBlob(t, c, "team/app", layer(img), 0)
	if err != nil || !bytes.Equal(data, layer(img).Data) {
		t.Fatalf("blob: %d bytes, %v", len(data), err)
	}
	sent := false
	for _, q := range reg.Requests() {
		sent = sent || q.Header.Get("Authorization") != ""
	}
	if !sent {
		t.Error("the registry got no token: the test proves nothing")
	}
	if n := len(other.Requests()); n != 1 {
		t.Fatalf("%d requests at the other origin, want 1", n)
	}
	for _, name := range []string{"Authorization", "Cookie", "Referer", "Proxy-Authorization"} {
		if v := other.Requests()[0].Header.Get(name); v != "" {
			t.Errorf("the other origin got %s: %s", name, v)
		}
	}
}

// TestRedirectDropsAuthorizationForGood comes back to where it started by way
// of another origin.
func TestRedirectDropsAuthorizationForGood(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t, remotestest.WithToken())
	other, canary := remotestest.New(t), remotestest.New(t)
	reg.Fault(remotestest.Blobs(), remotestest.RedirectTo(other.URL()+"/hop?signature=hop"))
	other.Fault(remotestest.Any(), remotestest.RedirectTo(strings.Replace(canary.URL(), "http://", "http://user:pw@", 1)+"/end"))
	canary.Fault(remotestest.Any(), remotestest.Status(http.StatusOK, nil, "end"))
	c := named(t, reg.URL(), other.URL(), canary.URL()).Client(endpoint(t, reg.URL()))
	if _, _, err := readBlob(t, c, "team/app", layer(img), 0); err != nil {
		t.Fatal(err)
	}
	for _, q := range append(other.Requests(), canary.Requests()...) {
		for _, name := range []string{"Authorization", "Referer"} {
			if v := q.Header.Get(name); v != "" {
				t.Errorf("%s%s got %s: %s", q.Host, q.Path, name, v)
			}
		}
	}
}

// TestRedirectKeepsAuthorizationAtOrigin moves a blob within its registry.
func TestRedirectKeepsAuthorizationAtOrigin(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t, remotestest.WithToken())
	dgst := layer(img).Descriptor.Digest
	there := fmt.Sprintf("/v2/team/app/blobs/%s?moved=1", dgst)
	reg.Fault(func(r *http.Request) bool { return remotestest.Blobs()(r) && !r.URL.Query().Has("moved") },
		remotestest.RedirectTo(there))
	data, _, err := readBlob(t, clientOf(t, reg), "team/app", layer(img), 0)
	if err != nil || !bytes.Equal(data, layer(img).Data) {
		t.Fatalf("blob: %d bytes, %v, want that the redirect is authorized", len(data), err)
	}
	all := reg.Requests()
	if last := all[len(all)-1]; !last.Query.Has("moved") || last.Header.Get("Authorization") == "" || last.Header.Get("Referer") != "" {
		t.Errorf("last request: %v", last)
	}
}

// TestCheckRedirectOrigins is the table of what an origin is.
func TestCheckRedirectOrigins(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		from, to string
		kept     bool
	}{
		{"https://a.example/x", "https://a.example/y", true},
		{"https://a.example/x", "https://A.EXAMPLE:443/y", true},
		{"http://a.example:80/x", "http://a.example/y", true},
		{"https://a.example/x", "http://a.example/y", false},
		{"https://a.example/x", "https://a.example:8443/y", false},
		{"https://a.example/x", "https://b.a.example/y", false},
		{"https://a.example/x", "https://a.example.evil.example/y", false},
		{"http://a.example:443/x", "https://a.example/y", false},
	} {
		from, to := request(t, tc.from), request(t, tc.to)
		for _, name := range []string{"Authorization", "Proxy-Authorization", "Cookie", "Referer"} {
			to.Header.Set(name, "secret")
		}
		if err := checkRedirect(to, []*http.Request{from}); err != nil {
			t.Errorf("%s to %s: %v", tc.from, tc.to, err)
		}
		for _, name := range []string{"Authorization", "Proxy-Authorization", "Cookie"} {
			if got := to.Header.Get(name) != ""; got != tc.kept {
				t.Errorf("%s to %s: %s kept is %t, want %t", tc.from, tc.to, name, got, tc.kept)
			}
		}
		if to.Header.Get("Referer") != "" {
			t.Errorf("%s to %s: Referer is kept", tc.from, tc.to)
		}
	}
}

func request(t *testing.T, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// TestRedirectLimit follows five redirects and not six, and so no loop.
func TestRedirectLimit(t *testing.T) {
	t.Parallel()
	for hops, ok := range map[int]bool{maxRedirects: true, maxRedirects + 1: false, 1000: false} {
		reg, img := withImage(t)
		reg.Fault(remotestest.Blobs(), remotestest.Times(hops, remotestest.RedirectHost(reg.URL())))
		_, _, err := readBlob(t, clientOf(t, reg), "team/app", layer(img), 0)
		if (err == nil) != ok {
			t.Errorf("%d redirects: %v, want success %t", hops, err, ok)
		}
		if !ok {
			failed(t, err, errdefs.ErrUnavailable)
		}
		if n := reg.Count("", "/blobs/"); n != min(hops, maxRedirects)+1 {
			t.Errorf("%d redirects: %d requests, want %d", hops, n, min(hops, maxRedirects)+1)
		}
	}
}

// TestRedirectToPrivateAddress sends every kind of request to where the
// configuration does not point.
func TestRedirectToPrivateAddress(t *testing.T) {
	t.Parallel()
	secret, img := withImage(t, remotestest.WithTLS())
	_, port, err := net.SplitHostPort(secret.Host())
	if err != nil {
		t.Fatal(err)
	}
	plain, _ := withImage(t)
	for base, want := range map[string]string{
		"https://127.0.0.1:" + port:          "is not a public address",
		"https://localhost:" + port:          "is not a public address",
		"https://[::ffff:127.0.0.1]:" + port: "is not a public address",
		plain.URL():                          "is not https",
		"file:///etc":                        "is not https",
	} {
		for op, ask := range operations(t, img) {
			reg, _ := withImage(t)
			reg.Fault(remotestest.Any(), remotestest.RedirectHost(base))
			e := failure(t, ask(clientOf(t, reg)), errdefs.ErrUnavailable)
			if !strings.Contains(e.Error(), want) {
				t.Errorf("%s, to %s: error is %v, want %q", op, base, e, want)
			}
		}
	}
	if n := len(secret.Requests()) + len(plain.Requests()); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
}

// TestRedirectDowngrade goes from https to http.
func TestRedirectDowngrade(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t, remotestest.WithTLS())
	plain, _ := withImage(t)
	reg.Fault(remotestest.Blobs(), remotestest.RedirectHost(plain.URL()))
	p := named(t, reg.URL(), "https://"+plain.Host())
	p.transport.TLSClientConfig.RootCAs = reg.CertPool()
	c := p.Client(endpoint(t, reg.URL()))
	if _, err := c.Resolve(soon(t), "team/app", "v1"); err != nil {
		t.Fatalf("without redirect: %v", err)
	}
	_, _, err := readBlob(t, c, "team/app", layer(img), 0)
	if e := failure(t, err, errdefs.ErrUnavailable); !strings.Contains(e.Error(), "is not https") || len(plain.Requests()) != 0 {
		t.Errorf("error is %v with %d requests, want a refusal and none", e, len(plain.Requests()))
	}
}
