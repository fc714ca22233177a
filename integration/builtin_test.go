package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// TestBuiltin pulls with a containerd that has larder's store built in: a
// container of the image runs, and what containerd forgets larder keeps.
func TestBuiltin(t *testing.T) {
	t.Parallel()
	b := newBench(t, "containerd-larder", "larder", "ctr", "registry")
	registry, meter := b.registry()
	binary, err := os.ReadFile(b.bin.Path("larder"))
	if err != nil {
		t.Fatal(err)
	}
	img := remotestest.Build(remotestest.ImageSpec{
		Seed: 800, Layers: []int64{1 << 20},
		Files: []remotestest.File{{Path: "larder", Mode: 0o755, Data: binary}}, Cmd: []string{"/larder", "version"},
	})
	if err := remotestest.Push(t.Context(), registry.URL, "library/app", "1", img); err != nil {
		t.Fatal(err)
	}
	c := b.containerdWith(parts.ContainerdOptions{Builtin: true})
	ref := strings.TrimPrefix(meter.URL(), "http://") + "/library/app:1"
	pull := func() parts.Traffic {
		t.Helper()
		before := meter.Total()
		ctr(t, c, "images", "pull", "--plain-http", ref)
		return meter.Total().Sub(before)
	}
	if cold := pull(); cold.Bytes < 1<<20 {
		t.Errorf("cold pull: %+v, want the image", cold)
	}
	eventually(t, "containerd's log tells that larder has unpacked 2 layers", func() bool { return strings.Count(c.Log(), "layer is unpacked") == 2 })
	if out, err := c.RunContainer(t.Context(), ref); err != nil || !strings.Contains(out, "larder") {
		t.Errorf("a container printed %q, %v, want larder's version", out, err)
	}
	if err := c.Forget(t.Context(), "default"); err != nil {
		t.Fatal(err)
	}
	for _, blob := range img.Blobs {
		path := filepath.Join(b.dir, "containerd", "root", "io.containerd.content.v1.larder", "blobs", "sha256", blob.Descriptor.Digest.Encoded())
		if _, err := os.Stat(path); err != nil {
			t.Errorf("containerd forgot it, and larder has: %v", err)
		}
	}
	if warm := pull(); warm.Bytes > 0 {
		t.Errorf("warm pull: %+v, want no byte", warm)
	}
}
