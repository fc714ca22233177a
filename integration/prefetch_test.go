package integration

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// throng is an upstream that is so far away that its layers come only when enough of
// them are asked for.
type throng struct {
	layers  map[digest.Digest]bool
	enough  int // of them that are to be asked for at once
	base    string
	proxy   *httputil.ReverseProxy
	reached chan struct{} // closed when they are
	reach   func()        // closes it, once

	mu    sync.Mutex // guards what follows
	now   int        // layers that are asked for and not answered
	most  int
	asked map[string]int // by path
}

// newThrong puts one before a registry.
func newThrong(t *testing.T, registry string, img remotestest.Image, enough int) (*throng, string) {
	t.Helper()
	target, err := url.Parse(registry)
	if err != nil {
		t.Fatal(err)
	}
	reached := make(chan struct{})
	c := &throng{
		layers: map[digest.Digest]bool{}, enough: enough, base: registry, reached: reached, reach: sync.OnceFunc(func() { close(reached) }), asked: map[string]int{},
		proxy: &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }},
	}
	s := httptest.NewServer(c)
	t.Cleanup(s.Close)
	for _, b := range img.Blobs {
		if !json.Valid(b.Data) { // else a config
			c.layers[b.Descriptor.Digest] = true
		}
	}
	return c, s.URL
}

// ServeHTTP answers a layer in one piece, so that it is not counted any more when the
// asker knows that it has it.
func (c *throng) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, dgst, _ := strings.Cut(r.URL.Path, "/blobs/"); !c.layers[digest.Digest(dgst)] {
		c.proxy.ServeHTTP(w, r)
		return
	}
	c.arrive(r.URL.Path)
	select {
	case <-c.reached:
	case <-r.Context().Done():
	}
	data, err := c.fetch(r)
	c.mu.Lock()
	c.now--
	c.mu.Unlock()
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	_, _ = w.Write(data)
}

func (c *throng) arrive(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked[path]++
	c.now++
	c.most = max(c.most, c.now)
	if c.now >= c.enough {
		c.reach()
	}
}

func (c *throng) fetch(r *http.Request) ([]byte, error) {
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, c.base+r.URL.Path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// A containerd that fetches few layers at a time has larder ask for as many as it
// may, each once and of its platform only; without prefetching upstream sees what
// containerd asks for.
func TestPrefetchFillsTheLine(t *testing.T) {
	t.Parallel()
	const parallel = 12
	const ref = "docker.io/library/app:1"
	kubelet := func(t *testing.T, c *parts.Containerd, _ string) { criPull(t, imageService(t, c), ref) }
	for name, c := range map[string]struct {
		config string
		pull   func(t *testing.T, c *parts.Containerd, certs string)
		// containerd does not keep to the order of the manifest: what it wants may be
		// none of those that are brought.
		want, most int
	}{
		"one at a time": {"", kubelet, parallel, parallel + 1},
		"off":           {"prefetch.enabled = false\n", kubelet, 1, 1},
		// ctr reads the other platform's manifest and config, too.
		"ctr": {"", func(t *testing.T, c *parts.Containerd, certs string) { ctr(t, c, pullArgs(ref, certs, false)...) }, parallel, parallel + 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "larder", "containerd", "ctr", "registry")
			registry, _ := b.registry()
			img := remotestest.Build(remotestest.ImageSpec{
				Seed: 20, Layers: slices.Repeat([]int64{2000}, 12), Platforms: []string{"linux/amd64", "linux/arm64"},
			})
			if err := remotestest.Push(t.Context(), registry.URL, "library/app", "1", img); err != nil {
				t.Fatal(err)
			}
			upstream, address := newThrong(t, registry.URL, img, c.want)
			l := b.larder(c.config + noCompanions + dockerHub(address))
			certs := b.certs(l)
			c.pull(t, b.containerdWith(parts.ContainerdOptions{CertsDir: certs, LocalPull: true, Downloads: 1}), certs)
			upstream.mu.Lock()
			defer upstream.mu.Unlock()
			if upstream.most < c.want || upstream.most > c.most {
				t.Errorf("upstream was asked for %d layers at a time, want %d to %d", upstream.most, c.want, c.most)
			}
			if len(upstream.asked) != 12 {
				t.Errorf("upstream was asked for %d layers, want the 12 of one platform", len(upstream.asked))
			}
			for path, n := range upstream.asked {
				if n != 1 {
					t.Errorf("%s: asked for %d times, want once", path, n)
				}
			}
		})
	}
}
