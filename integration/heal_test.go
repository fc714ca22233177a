package integration

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
)

// flipBit turns one bit of a stored blob, as a disk that goes wrong does.
func flipBit(t *testing.T, l *parts.Larder, dgst digest.Digest, at int64) {
	t.Helper()
	path := filepath.Join(l.Root(), "blobs", dgst.Algorithm().String(), dgst.Encoded())
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	b[0] ^= 1
	_, werr := f.WriteAt(b[:], at)
	if err := errors.Join(err, werr, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// A bit of a stored layer is turned: larder verify finds it, keeps the damaged
// file, and brings the layer from the registry; containerd then pulls the image
// without any upstream.
func TestVerifyHeals(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder", "containerd", "ctr", "registry")
	registry, meter := b.registry()
	img := remotestest.Build(remotestest.ImageSpec{Seed: 130, Layers: []int64{5 << 20, 10_000}})
	if err := remotestest.Push(t.Context(), registry.URL, "library/app", "1", img); err != nil {
		t.Fatal(err)
	}
	l := b.larder(ecrHosts + noCompanions + dockerHub(meter.URL()))
	run(t, l, "pull", "docker.io/library/app:1")
	layer := largest(img)
	flipBit(t, l, layer.Digest, layer.Size/2)
	out := run(t, l, "verify", "docker.io/library/app:1")
	for _, want := range []string{layer.Digest.String(), "needed by docker.io/library/app:1", "fetched again from " + meter.URL(), "1 damaged"} {
		if !strings.Contains(out, want) {
			t.Errorf("verify does not say %q:\n%s", want, out)
		}
	}
	kept, err := filepath.Glob(filepath.Join(l.Root(), "quarantine", "sha256-"+layer.Digest.Encoded()+".*"))
	if err != nil || len(kept) != 1 {
		t.Errorf("kept: %v, %v, want the damaged file", kept, err)
	}
	if err := meter.Cut(); err != nil {
		t.Fatal(err)
	}
	certs := b.certs(l)
	c := b.containerd(certs, false)
	pullAll(t, c, certs, "healed")

	// With the registry gone, what is damaged is lost, and the verb says so.
	flipBit(t, l, layer.Digest, 0)
	out, err = l.Run(t.Context(), "verify", "--all")
	if err == nil || !strings.Contains(err.Error(), "1 blob is lost") || !strings.Contains(out, "LOST") {
		t.Errorf("verify of what is lost: %v\n%s", err, out)
	}
	if a := get(t, blobURL(l.URL, "library/app", layer.Digest)); a.status == 200 {
		t.Errorf("a lost blob is answered: %v", a)
	}
}

// The index is deleted between two runs: with the upstream off, larder lists the
// same images and containerd pulls them.
func TestIndexLossLosesNoImage(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder", "containerd", "ctr", "registry")
	registry, meter := b.registry()
	img := remotestest.Build(remotestest.ImageSpec{Seed: 131, Layers: []int64{100_000}, Platforms: []string{"linux/amd64", "linux/arm64"}})
	other := remotestest.Build(remotestest.ImageSpec{Seed: 132})
	if err := errors.Join(
		remotestest.Push(t.Context(), registry.URL, "library/app", "1", img),
		remotestest.Push(t.Context(), registry.URL, "team/other", "v2", other),
	); err != nil {
		t.Fatal(err)
	}
	l := b.larder(ecrHosts + noCompanions + dockerHub(meter.URL()))
	run(t, l, "pull", "docker.io/library/app:1", "--platform", "all")
	run(t, l, "pull", "docker.io/team/other:v2")
	run(t, l, "pull", "docker.io/team/other@"+other.Root.Digest.String())
	run(t, l, "pin", "docker.io/team/other:v2", "--reason", "needed")
	before := run(t, l, "ls", "-q")
	if err := l.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Process().Wait(t.Context()), os.Remove(filepath.Join(l.Root(), "index.db")), meter.Cut()); err != nil {
		t.Fatal(err)
	}
	if err := l.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := run(t, l, "ls", "-q"); after != before || strings.Count(after, "\n") != 3 {
		t.Errorf("images:\n%swere:\n%s", after, before)
	}
	if out := run(t, l, "show", "docker.io/team/other:v2"); !strings.Contains(out, "needed") {
		t.Errorf("the pin is lost:\n%s", out)
	}
	certs := b.certs(l)
	pullAll(t, b.containerd(certs, false), certs, "index lost")
}

// With verify_on_read a blob that was damaged while the daemon was down does not
// reach a client, not even its first byte.
func TestVerifyOnReadAfterBoot(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder")
	upstream := remotestest.New(t)
	img := remotestest.Build(remotestest.ImageSpec{Seed: 133, Layers: []int64{3 << 20}})
	upstream.PutImage("library/app", "1", img)
	l := b.larder(noCompanions + "[scrub]\nverify_on_read = \"boot\"\n" + dockerHub(upstream.URL()))
	run(t, l, "pull", "docker.io/library/app:1")
	layer := largest(img)
	flipBit(t, l, layer.Digest, layer.Size-1)
	// It was published in this boot: as after one, it must be older.
	path := filepath.Join(l.Root(), "blobs", "sha256", layer.Digest.Encoded())
	old := time.Now().Add(-24 * time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	if a := get(t, blobURL(l.URL, "library/app", layer.Digest)); !a.whole(layer.Digest) || a.cache() != "miss" {
		t.Errorf("damaged blob: %v, %s, want it fetched anew", a, a.cache())
	}
	eventually(t, "the blob that was fetched anew is a hit", func() bool {
		a := get(t, blobURL(l.URL, "library/app", layer.Digest))
		return a.whole(layer.Digest) && a.cache() == "hit"
	})
}
