package mirror

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/larder-project/larder/remotes/upstream"
)

// TestLoopOverTwo has two larders that stand in each other's route. The one that
// was asked first sees itself, and says so at once.
func TestLoopOverTwo(t *testing.T) {
	t.Parallel()
	var first atomic.Pointer[httputil.ReverseProxy]
	var mu sync.Mutex
	var back []int // what the second one was told when it asked the first
	relay := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		first.Load().ServeHTTP(w, r)
	}))
	t.Cleanup(relay.Close)
	route := func(text string) func(*setup) {
		ep, err := upstream.ParseEndpoint(text)
		if err != nil {
			t.Fatal(err)
		}
		return func(s *setup) { s.first = append(s.first, ep) }
	}
	second := newBench(t, route(relay.URL+"/docker-hub"))
	img := remotestest.Build(remotestest.ImageSpec{Seed: 1})
	second.up.PutImage("library/app", "1", img)
	b := newBench(t, route("http://"+second.addr+"/docker-hub"))
	to, err := url.Parse("http://" + b.addr)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.ModifyResponse = func(resp *http.Response) error {
		mu.Lock()
		defer mu.Unlock()
		back = append(back, resp.StatusCode)
		return nil
	}
	first.Store(proxy)
	for _, path := range []string{"manifests/1", "blobs/" + img.Blobs[0].Descriptor.Digest.String()} {
		if a := b.ask(http.MethodGet, "/v2/library/app/"+path+"?ns=docker.io"); a.status != http.StatusOK {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(back) < 2 {
		t.Errorf("the second one asked the first %d times: the test proves nothing", len(back))
	}
	for _, status := range back {
		if status != http.StatusLoopDetected {
			t.Errorf("the second one was told %d, want %d", status, http.StatusLoopDetected)
		}
	}
}
