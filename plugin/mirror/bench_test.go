package mirror

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/larder-project/larder/remotes/upstream"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// hot is a Server whose store has an image under a fresh tag, and no upstream.
type hot struct {
	*Server
	manifest, blob ocispec.Descriptor
}

func newHot(t testing.TB, logger *slog.Logger) hot {
	t.Helper()
	// An hour on, so that the manifest's file is old enough to be kept in memory.
	later := func() time.Time { return time.Now().Add(time.Hour) }
	store, err := cache.Open(t.TempDir(), cache.WithLogger(slog.New(slog.DiscardHandler)), cache.WithClock(later))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	pool, err := upstream.NewPool(upstream.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	rules, err := remotes.NewRules(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	registry := remotes.NewRegistry(remotes.Config{
		Store: store, Pool: pool, Names: remotes.Names{Rules: rules}, Freshness: remotes.DefaultFreshness(), Logger: slog.New(slog.DiscardHandler),
	})
	img := remotestest.Build(remotestest.ImageSpec{Seed: 1, Layers: []int64{100_000}})
	for _, b := range append(img.Blobs, img.Manifests...) {
		if err := store.Put(t.Context(), b.Descriptor.Digest, b.Data, cache.Facts{MediaType: b.Descriptor.MediaType}); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	if err := store.PutTag(cache.Tag{Name: "docker.io/library/app:1", Target: img.Root, Created: now, Moved: now, Validated: now}); err != nil {
		t.Fatal(err)
	}
	s := New(registry, Options{Map: registry.Names.Map, Wait: time.Minute, ID: pool.ID(), Logger: logger})
	return hot{s, img.Root, img.Blobs[len(img.Blobs)-1].Descriptor}
}

// sink is a http.ResponseWriter that keeps nothing.
type sink struct {
	header http.Header
	status int
	bytes  int
}

func (s *sink) Header() http.Header { return s.header }
func (s *sink) WriteHeader(n int)   { s.status = n }
func (s *sink) Write(p []byte) (int, error) {
	s.bytes += len(p)
	return len(p), nil
}

// answer makes a function that answers one request, as often as it is called.
func (h hot) answer(t testing.TB, method, path string, want int64) func() {
	r := httptest.NewRequestWithContext(context.WithoutCancel(t.Context()), method, path, nil)
	r.Header.Set("User-Agent", "containerd/v2.4.2")
	w := &sink{header: http.Header{}}
	return func() {
		clear(w.header)
		w.status, w.bytes = 0, 0
		h.ServeHTTP(w, r)
		if w.status != http.StatusOK || int64(w.bytes) != want {
			t.Fatalf("%s %s: status %d, %d bytes", method, path, w.status, w.bytes)
		}
	}
}

// atDoor makes a function that answers one plain request, as often as it is called.
func (h hot) atDoor(t testing.TB, method, path string, want int64) func() {
	t.Helper()
	h.answer(t, http.MethodGet, path, h.manifest.Size)() // what is asked for is known then
	text := []byte(method + " " + path + " HTTP/1.1\r\nHost: larder\r\nUser-Agent: containerd/v2.4.2\r\n\r\n")
	var answer []byte
	return func() {
		p, n, ok := parsePlain(text)
		if ok {
			answer, ok = h.answerPlain(t.Context(), answer[:0], p)
		}
		if body := len(answer) - bytes.Index(answer, []byte("\r\n\r\n")) - 4; !ok || n != len(text) || int64(body) != want {
			t.Fatalf("%s %s: %t with %d bytes", method, path, ok, body)
		}
	}
}

// hotPaths are what clients ask for most.
func (h hot) hotPaths(t testing.TB) map[string]func() {
	t.Helper()
	return map[string]func(){
		"HeadTagAtDoor":   h.atDoor(t, http.MethodHead, manifestPath("1"), 0),
		"GetDigestAtDoor": h.atDoor(t, http.MethodGet, manifestPath(h.manifest.Digest.String()), h.manifest.Size),
		"HeadTag":         h.answer(t, http.MethodHead, manifestPath("1"), 0),
		"GetTag":          h.answer(t, http.MethodGet, manifestPath("1"), h.manifest.Size),
		"GetDigest":       h.answer(t, http.MethodGet, manifestPath(h.manifest.Digest.String()), h.manifest.Size),
		"GetBlob":         h.answer(t, http.MethodGet, blobPath(h.blob.Digest), h.blob.Size),
	}
}

func BenchmarkServeHTTP(b *testing.B) {
	h := newHot(b, slog.New(slog.NewTextHandler(io.Discard, nil)))
	for name, answer := range h.hotPaths(b) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				answer()
			}
		})
	}
}

func BenchmarkParsePlain(b *testing.B) {
	text := []byte("HEAD " + manifestPath("1") + " HTTP/1.1\r\nHost: 127.0.0.1:5000\r\nUser-Agent: containerd/v2.4.2\r\nAccept: */*\r\n\r\n")
	b.ReportAllocs()
	for b.Loop() {
		if _, _, ok := parsePlain(text); !ok {
			b.Fatal("it is not plain")
		}
	}
}

func BenchmarkParseRequest(b *testing.B) {
	u := &url.URL{Path: "/v2/library/app/manifests/latest", RawQuery: "ns=docker.io"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseRequest(u); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLocate is for a URL that is remembered, and for one that is not.
func BenchmarkLocate(b *testing.B) {
	s := New(stored{}, Options{Map: remotes.Names{}.Map})
	u := &url.URL{Path: "/v2/library/app/manifests/latest", RawQuery: "ns=docker.io"}
	for name, prepare := range map[string]func(){"Known": func() {}, "New": func() { s.targets.all.Purge() }} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				prepare()
				if _, err := s.locate(u); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestAllocations keeps the hot paths from allocating more than they do now. What
// is beyond it is not wrong, but has to be worth it. It runs by itself (make
// allocs): the race detector allocates, too.
//
//nolint:paralleltest // it counts all of the process
func TestAllocations(t *testing.T) {
	if os.Getenv("LARDER_TEST_ALLOCS") == "" {
		t.Skip("set LARDER_TEST_ALLOCS, as make allocs does")
	}
	h := newHot(t, slog.New(slog.NewTextHandler(io.Discard, nil)))
	for name, most := range map[string]float64{"HeadTagAtDoor": 8, "GetDigestAtDoor": 6, "HeadTag": 14, "GetTag": 14, "GetDigest": 12, "GetBlob": 45} {
		answer := h.hotPaths(t)[name]
		if n := testing.AllocsPerRun(200, answer); n > most {
			t.Errorf("%s: %.0f allocations, want at most %.0f", name, n, most)
		}
	}
}
