package integration

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// TestProxyGarbageStorm pulls and removes images in random order, with containerd
// collecting its garbage each time and larder evicting at a budget that holds a
// few: what containerd has is whole at the end, 200 images at night.
//
//nolint:paralleltest // it uses the whole machine
func TestProxyGarbageStorm(t *testing.T) {
	const workers = 4
	n := count(t, "LARDER_TEST_STORM", 16)
	p := newProxied(t, parts.ContainerdOptions{}, "space.max_size = \"1MiB\"\nspace.min_free = \"off\"\n"+noCompanions, "grace = \"1ms\"")
	for i := range n {
		img := remotestest.Build(remotestest.ImageSpec{Seed: uint64(400 + i), Layers: []int64{100_000, 50_000}})
		if err := remotestest.Push(t.Context(), p.registry.URL, "library/app", fmt.Sprint(i), img); err != nil {
			t.Fatal(err)
		}
	}
	var storm sync.WaitGroup
	for w := range workers {
		storm.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			mine := map[int]bool{}
			for range 2 * n / workers {
				i := rng.IntN(n/workers)*workers + w // nobody else's
				ref := fmt.Sprintf("docker.io/library/app:%d", i)
				args := pullArgs(ref, p.certs, i%2 == 0)
				if mine[i] {
					args = []string{"images", "rm", "--sync", ref}
				}
				if _, err := p.containerd.Ctr(t.Context(), args...); err != nil {
					t.Errorf("%v", err)
					return
				}
				mine[i] = !mine[i]
			}
		})
	}
	storm.Wait()
	images := strings.Fields(ctr(t, p.containerd, "images", "ls", "-q"))
	check := ctr(t, p.containerd, "images", "check", "-q")
	blobs := p.checkContent()
	evicted := strings.Count(p.l.Log(), "msg=evicted")
	t.Logf("%d of %d images, %d blobs are in containerd; larder evicted %d times", len(images), n, blobs, evicted)
	if evicted == 0 {
		t.Error("larder evicted nothing: the test proves nothing")
	}
	if got := strings.Fields(check); len(images) == 0 || len(got) != len(images) {
		t.Errorf("%d of %d images are whole", len(got), len(images))
	}
	if err := p.containerd.Forget(t.Context(), "default"); err != nil {
		t.Error(err)
	}
}
