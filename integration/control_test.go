package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-project/larder/remotes/remotestest"
)

// directCerts points containerd straight at one registry, without larder, so
// that a test can show what larder changes.
func (b *bench) directCerts(url string) string {
	b.t.Helper()
	dir := filepath.Join(b.dir, "direct.d")
	if err := os.MkdirAll(filepath.Join(dir, "_default"), 0o755); err != nil {
		b.t.Fatal(err)
	}
	text := fmt.Sprintf("server = %[1]q\n[host.%[1]q]\ncapabilities = [\"pull\", \"resolve\"]\n", url)
	if err := os.WriteFile(filepath.Join(dir, "_default", "hosts.toml"), []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return dir
}

// The parts must work without larder, or its tests prove nothing.
func TestControlPullWithoutLarder(t *testing.T) {
	t.Parallel()
	b := newBench(t, "containerd", "ctr", "registry")
	registry, meter := b.registry()
	img := remotestest.Build(remotestest.ImageSpec{Seed: 1, Layers: []int64{200_000, 10_000}, Platforms: []string{"linux/amd64", "linux/arm64"}})
	if err := remotestest.Push(t.Context(), registry.URL, "library/app", "1", img); err != nil {
		t.Fatal(err)
	}
	certs := b.directCerts(meter.URL())
	c := b.containerd(certs, false)
	for _, local := range []bool{false, true} {
		before := meter.Total()
		ctr(t, c, pullArgs("docker.io/library/app:1", certs, local)...)
		if got := meter.Total().Sub(before); got.Bytes < 200_000 {
			t.Errorf("local %t: %d bytes in %d requests passed the meter, want at least 200000", local, got.Bytes, got.Requests)
		}
		if err := c.Forget(t.Context(), "default"); err != nil {
			t.Error(err)
		}
	}
}

// What a wrong body that ended cleanly does to containerd alone. It refuses the
// layer, and it keeps the bad bytes: the next pull resumes on them and fails as
// well, until containerd's garbage collector has taken them, within a second or
// so. TestFaultsUnderContainerd is the same with larder in front.
func TestControlWrongBodyWithoutLarder(t *testing.T) {
	t.Parallel()
	b := newBench(t, "containerd", "ctr")
	upstream := remotestest.New(t)
	img := remotestest.Build(remotestest.ImageSpec{Seed: 2, Layers: []int64{300_000}})
	upstream.PutImage("library/app", "1", img)
	certs := b.directCerts(upstream.URL())
	c := b.containerd(certs, false)
	pull := pullArgs("docker.io/library/app:1", certs, false)
	remove := upstream.Fault(remotestest.Digest(largest(img).Digest), remotestest.WrongBytes(1000))
	if _, err := c.Ctr(t.Context(), pull...); err == nil || !strings.Contains(err.Error(), "unexpected commit digest") {
		t.Fatalf("pull of a wrong layer: got %v, want containerd to see the wrong digest", err)
	}
	remove()
	tries := 0
	eventually(t, "containerd forgets the wrong bytes", func() bool {
		tries++
		_, err := c.Ctr(t.Context(), pull...)
		return err == nil
	})
	t.Logf("the image could be pulled again at try %d", tries)
}

// pullArgs is ctr's pull of ref through the mirrors in certs.
func pullArgs(ref, certs string, local bool) []string {
	args := []string{"images", "pull", "--hosts-dir", certs}
	if local {
		args = append(args, "--local")
	}
	return append(args, ref)
}
