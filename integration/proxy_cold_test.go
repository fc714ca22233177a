package integration

import (
	"net/http"
	"testing"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// TestProxyColdPull: containerd, of any release, waits for what larder brings, and
// fetches less than half of it; it has all in the end. Where larder prefetches nothing it
// fetches all.
func TestProxyColdPull(t *testing.T) {
	t.Parallel()
	const size = 32 << 20 // more than fits into what is on the way
	img := remotestest.Build(remotestest.ImageSpec{Seed: 350, Layers: []int64{size, size}})
	for name, use := range map[string]struct {
		o     parts.ContainerdOptions
		extra string
	}{
		"transfer":              {},
		"local":                 {o: parts.ContainerdOptions{LocalPull: true}},
		"transfer, no prefetch": {extra: "prefetch.enabled = false\n"},
		"1.7":                   {o: parts.ContainerdOptions{Release: oldRelease}},
		"1.6, content store":    {o: parts.ContainerdOptions{Release: oldestRelease}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProxying(t, use.o, use.extra+noCompanions, "")
			o := use.o
			if o.CertsDir = p.certs; o.Release == oldestRelease {
				o.Content = p.socket()
			} else {
				o.Proxy = p.socket()
			}
			p.containerd = p.containerdWith(o)
			p.push("library/app", "1", img)
			before := p.upstream.Count(http.MethodGet, "/blobs/").Bytes
			ctr(t, p.containerd, pullArgs("docker.io/library/app:1", p.certs, o.LocalPull)...)
			var all int64
			for _, b := range img.Blobs {
				all += b.Descriptor.Size
			}
			if got := p.upstream.Count(http.MethodGet, "/blobs/").Bytes - before; got != all {
				t.Errorf("upstream has sent %d bytes of %d", got, all)
			}
			if got := p.node.Count(http.MethodGet, "/blobs/").Bytes; (got > all/2) != (use.extra != "") {
				t.Errorf("containerd has fetched %d bytes of %d, want less than half, or all if nothing is prefetched", got, all)
			}
			if n := p.checkContent(); n != len(img.Blobs)+len(img.Manifests) {
				t.Errorf("containerd has %d blobs", n)
			}
			if n := blocksBelow(t, p.l.Root()); n > all*5/4 {
				t.Errorf("larder's folder has %d bytes, for %d of blobs", n, all)
			}
		})
	}
}
