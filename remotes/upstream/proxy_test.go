package upstream

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
)

// connectProxy tunnels whatever it is asked for to one address.
func connectProxy(t *testing.T, to string) (url string, asked func() []string) {
	t.Helper()
	var mu sync.Mutex
	var targets []string
	var wg sync.WaitGroup
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		targets = append(targets, req.Method+" "+req.Host)
		mu.Unlock()
		// Before the server loses sight of the connection.
		wg.Add(1)
		defer wg.Done()
		there, err := net.Dial("tcp", to)
		if err != nil {
			t.Errorf("proxy: %v", err)
			return
		}
		here, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Errorf("proxy: %v", err)
			return
		}
		_, _ = io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n")
		wg.Go(func() { _, _ = io.Copy(there, here); there.Close() })
		wg.Go(func() { _, _ = io.Copy(here, there); here.Close() })
	}))
	t.Cleanup(func() {
		s.Close()
		wg.Wait()
	})
	return s.URL, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), targets...)
	}
}

// proxyEnvironment sets all that net/http knows of.
func proxyEnvironment(t *testing.T, https string) {
	t.Helper()
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "https_proxy", "NO_PROXY", "no_proxy", "REQUEST_METHOD"} {
		t.Setenv(name, "")
	}
	t.Setenv("HTTPS_PROXY", https)
}

// TestEnvironmentProxy reaches a registry through a proxy on loopback, which
// only the environment names; in any case, and by name.
func TestEnvironmentProxy(t *testing.T) { //nolint:paralleltest // sets the environment
	reg, _ := withImage(t, remotestest.WithTLS())
	proxy, asked := connectProxy(t, reg.Host())
	for _, url := range []string{proxy, strings.Replace(proxy, "127.0.0.1", "user:hunter2@LocalHost", 1), strings.TrimPrefix(proxy, "http://")} {
		proxyEnvironment(t, url)
		p := newPool(t, Options{})
		p.transport.TLSClientConfig.RootCAs = reg.CertPool()
		c := p.Client(endpoint(t, "https://example.com")) // the certificate's other name
		if _, err := c.Resolve(soon(t), "team/app", "v1"); err != nil {
			t.Errorf("%s: %v", url, err)
		}
		p.Close()
	}
	for _, target := range asked() {
		if target != "CONNECT example.com:443" {
			t.Errorf("the proxy was asked to %s", target)
		}
	}
	if n := len(asked()); n != 3 {
		t.Errorf("the proxy was asked %d times, want 3", n)
	}
	proxyEnvironment(t, "http://user:hunter2@127.0.0.1:1")
	_, err := newPool(t, Options{}).Client(endpoint(t, "https://example.com")).Resolve(soon(t), "team/app", "v1")
	if e := failure(t, err, errdefs.ErrUnavailable); strings.Contains(e.Error(), "hunter2") {
		t.Errorf("error repeats the proxy's password: %v", e)
	}
}

// TestLiteralAddressBehindProxy asks for special addresses by number: the
// proxy may be able to reach what larder must not.
func TestLiteralAddressBehindProxy(t *testing.T) { //nolint:paralleltest // sets the environment
	reg, _ := withImage(t, remotestest.WithTLS())
	proxy, asked := connectProxy(t, reg.Host())
	proxyEnvironment(t, proxy)
	for _, host := range []string{"169.254.169.254", "10.0.0.1:5000", "[fd00:ec2::254]", "[::ffff:10.0.0.1]", "127.0.0.1:1", "localhost:1"} {
		_, err := newPool(t, Options{}).Client(Endpoint{Scheme: "https", Host: host}).Resolve(soon(t), "team/app", "v1")
		if e := failure(t, err, errdefs.ErrUnavailable); !strings.Contains(e.Error(), "is not a public address") {
			t.Errorf("%s: %v, want that the address is not public", host, e)
		}
	}
	if n := len(asked()); n != 0 {
		t.Errorf("the proxy was asked for %v", asked())
	}
	p := named(t, "https://10.0.0.1:5000")
	p.transport.TLSClientConfig.RootCAs = reg.CertPool()
	p.transport.TLSClientConfig.ServerName = "example.com"
	if _, err := p.Client(endpoint(t, "https://10.0.0.1:5000")).Resolve(soon(t), "team/app", "v1"); err != nil {
		t.Errorf("named: %v", err)
	}
}
