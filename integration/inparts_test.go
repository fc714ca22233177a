package integration

import (
	"net/http"
	"testing"
	"time"

	"github.com/larder-project/larder/remotes/remotestest"
)

// A distribution registry behind a line that limits each connection sends a large
// layer in parts, and no byte of it twice; with parallel = 1 it is asked once.
func TestLargeLayerInParts(t *testing.T) {
	t.Parallel()
	img := remotestest.Build(remotestest.ImageSpec{Seed: 130, Layers: []int64{24 << 20}})
	layer := largest(img)
	for name, config := range map[string]string{"in parts": "", "at once": "upstream.parallel = 1\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "larder", "registry")
			registry, meter := b.registry()
			if err := remotestest.Push(t.Context(), registry.URL, "library/app", "1", img); err != nil {
				t.Fatal(err)
			}
			addr, _ := relay(t, meter.Host(), 20<<20, 25*time.Millisecond)
			l := b.larder(config + dockerHub("http://"+addr))
			if a := get(t, manifestURL(l.URL, "library/app", "1")); !a.whole(img.Root.Digest) {
				t.Fatal(a)
			}
			began := time.Now()
			if a := get(t, blobURL(l.URL, "library/app", layer.Digest)); !a.whole(layer.Digest) {
				t.Errorf("got %v, want the whole layer", a)
			}
			sent := meter.Count(http.MethodGet, layer.Digest.String())
			t.Logf("%d requests, %s", sent.Requests, time.Since(began).Round(10*time.Millisecond))
			if sent.Bytes != layer.Size || (sent.Requests > 1) != (name == "in parts") {
				t.Errorf("%d bytes by %d requests, want %d", sent.Bytes, sent.Requests, layer.Size)
			}
		})
	}
}
