package remotes

import (
	"os"
	"testing"
	"time"

	"github.com/larder-project/larder/cache"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// newHot is a Registry whose store has a manifest under a fresh tag, and no
// upstream.
func newHot(t testing.TB) (r *Registry, tag, byDigest Reference) {
	t.Helper()
	// An hour on, so that the manifest's file is old enough to be kept in memory.
	later := func() time.Time { return time.Now().Add(time.Hour) }
	store, err := cache.Open(t.TempDir(), cache.WithClock(later))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	rules, err := NewRules(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	r = NewRegistry(Config{Store: store, Names: Names{Rules: rules}, Freshness: DefaultFreshness()})
	data := []byte(`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","config":{"mediaType":"x","digest":"` + digest.FromString("").String() + `","size":0},"layers":[]}`)
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if err := store.Put(t.Context(), desc.Digest, data, cache.Facts{MediaType: desc.MediaType}); err != nil {
		t.Fatal(err)
	}
	tag, byDigest = Reference{Repository: appRepo(), Tag: "1"}, Reference{Repository: appRepo(), Digest: desc.Digest}
	now := time.Now()
	if err := store.PutTag(cache.Tag{Name: tag.String(), Target: desc, Created: now, Moved: now, Validated: now}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Manifest(t.Context(), byDigest); err != nil {
		t.Fatal(err)
	}
	return r, tag, byDigest
}

func hotPaths(t testing.TB) map[string]func() {
	t.Helper()
	r, tag, byDigest := newHot(t)
	ready := func(ref Reference, data bool) func() {
		return func() {
			if _, ok := r.Ready(t.Context(), ref, data); !ok {
				t.Fatal("not ready")
			}
		}
	}
	maps := func(ns, path string) func() {
		return func() {
			if _, err := r.Names.Map(ns, path); err != nil {
				t.Fatal(err)
			}
		}
	}
	return map[string]func(){
		"ReadyTag":        ready(tag, false),
		"ReadyTagData":    ready(tag, true),
		"ReadyDigestData": ready(byDigest, true),
		"MapNs":           maps("docker.io", "library/nginx"),
		"MapRule":         maps("", "docker-hub/library/nginx"),
		"WithTag": func() {
			if _, err := appRepo().WithObject("1.29-alpine"); err != nil {
				t.Fatal(err)
			}
		},
	}
}

func BenchmarkHot(b *testing.B) {
	for name, call := range hotPaths(b) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				call()
			}
		})
	}
}

// TestAllocations keeps the hot functions from allocating more than they do now:
// see make allocs.
//
//nolint:paralleltest // it counts all of the process
func TestAllocations(t *testing.T) {
	if os.Getenv("LARDER_TEST_ALLOCS") == "" {
		t.Skip("set LARDER_TEST_ALLOCS, as make allocs does")
	}
	most := map[string]float64{"ReadyTag": 5, "ReadyTagData": 5, "ReadyDigestData": 3, "MapNs": 8, "MapRule": 12, "WithTag": 6}
	for name, call := range hotPaths(t) {
		if n := testing.AllocsPerRun(200, call); n > most[name] {
			t.Errorf("%s: %.0f allocations, want at most %.0f", name, n, most[name])
		}
	}
}
