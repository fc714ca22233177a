package seed

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
)

func image() remotestest.ImageSpec {
	return remotestest.ImageSpec{Seed: 1, Layers: []int64{2000, 3000}}
}

// TestSeed: an image is linked as a whole, what containerd has stays as it is, and
// what it collected is linked again.
func TestSeed(t *testing.T) {
	t.Parallel()
	b := newBench(t, image())
	own := b.img.Blobs[1]
	path := b.linkOf(own.Descriptor.Digest)
	b.must(os.MkdirAll(filepath.Dir(path), 0o700))
	b.must(os.WriteFile(path, own.Data, 0o444))

	b.seedIt()
	if n, want := b.linked(), len(b.img.Descriptors())-1; n != want {
		t.Errorf("%d blobs are linked, want %d", n, want)
	}
	if b.names() != len(b.img.Descriptors()) {
		t.Errorf("%d files in the folder, want %d", b.names(), len(b.img.Descriptors()))
	}
	collected := b.linkOf(b.img.Root.Digest)
	b.must(os.Remove(collected))
	b.must(os.Remove(path))
	b.seedIt()
	if n, want := b.linked(), len(b.img.Descriptors()); n != want {
		t.Errorf("%d blobs are linked, want %d", n, want)
	}
	if n := strings.Count(b.log.String(), "image linked"); n != 2 {
		t.Errorf("log:\n%s", b.log)
	}
}

// TestSeedsWholeImagesOnly: of an index what the node pulls, and of what is
// incomplete nothing.
func TestSeedsWholeImagesOnly(t *testing.T) {
	t.Parallel()
	spec := image()
	spec.Platforms = []string{"linux/amd64", "linux/arm64/v8", "windows/amd64"}
	b := newBench(t, spec)
	b.seedIt()
	if n := b.linked(); n != 5 { // index, manifest, config, layers
		t.Errorf("%d blobs of the index are linked, want 5", n)
	}
	for i := range image().Layers {
		b := newBench(t, image())
		b.must(os.Remove(b.stored(b.img.Blobs[1+i].Descriptor.Digest)))
		b.seedIt()
		if n := b.names(); n > 0 {
			t.Errorf("layer %d is not stored, and %d blobs are linked", i, n)
		}
		if b.must(b.registry.Store.Delete(t.Context(), b.img.Root.Digest)); b.isAsked() {
			t.Error("an image whose manifest is gone is linked")
		}
	}
}

// isAsked asks for the image, and reports whether anything of it is linked then.
func (b *bench) isAsked() bool {
	b.seedIt()
	return b.names() > 0
}

// TestSeedsNothingUnsure: what is not right, or not known to be, is not linked.
func TestSeedsNothingUnsure(t *testing.T) {
	t.Parallel()
	rewrite := func(b *bench, path string, data []byte) {
		b.must(os.Remove(path))
		b.must(os.WriteFile(path, data, 0o444))
	}
	for name, spoil := range map[string]func(b *bench, layer remotestest.Blob){
		"short": func(b *bench, layer remotestest.Blob) {
			rewrite(b, b.stored(layer.Descriptor.Digest), layer.Data[:100])
		},
		"unknown and wrong": func(b *bench, layer remotestest.Blob) {
			b.must(b.registry.Store.Delete(b.t.Context(), layer.Descriptor.Digest))
			rewrite2 := slices.Clone(layer.Data)
			rewrite2[50] ^= 1
			b.must(os.WriteFile(b.stored(layer.Descriptor.Digest), rewrite2, 0o444))
		},
		"link": func(b *bench, layer remotestest.Blob) {
			path := b.stored(layer.Descriptor.Digest)
			b.must(os.Rename(path, path+".away"))
			b.must(os.Symlink(path+".away", path))
		},
		"quarantined": func(b *bench, layer remotestest.Blob) {
			b.must(b.registry.Store.Damaged(b.t.Context(), layer.Descriptor.Digest, os.ErrInvalid))
		},
		"growing": func(b *bench, layer remotestest.Blob) {
			b.must(b.registry.Store.Delete(b.t.Context(), layer.Descriptor.Digest))
			dir := filepath.Join(b.root, "ingest", layer.Descriptor.Digest.Encoded())
			b.must(os.Mkdir(dir, 0o700))
			b.must(os.WriteFile(filepath.Join(dir, "data"), layer.Data, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, image())
			spoil(b, b.img.Blobs[1])
			b.seedIt()
			if n := b.names(); n > 0 {
				t.Errorf("%d files are linked", n)
			}
			if b.Seeder.told != "" {
				t.Errorf("one blob, and nothing more is linked: %s", b.told)
			}
		})
	}
}

// TestSeedsNothingForeign: a file that somebody else may write to is not linked.
func TestSeedsNothingForeign(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(path string) error{
		"writable": func(path string) error { return os.Chmod(path, 0o644) },
		"setuid":   func(path string) error { return os.Chmod(path, 0o444|os.ModeSetuid) },
		"somebody else's": func(path string) error {
			if os.Getuid() != 0 {
				return os.Chmod(path, 0o400) // another user's file needs root to make
			}
			return os.Chown(path, 12345, 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, image())
			b.must(change(b.stored(b.img.Blobs[1].Descriptor.Digest)))
			b.seedIt()
			if n := b.names(); n > 0 {
				t.Errorf("%d files are linked", n)
			}
		})
	}
}

// TestSeededOutlivesStore: what one side removes the other keeps.
func TestSeededOutlivesStore(t *testing.T) {
	t.Parallel()
	b := newBench(t, image())
	b.seedIt()
	for i, d := range b.img.Descriptors() {
		gone, stays := b.linkOf(d.Digest), b.stored(d.Digest)
		if i%2 == 0 {
			b.must(b.registry.Store.Delete(t.Context(), d.Digest))
			stays = gone
		} else {
			b.must(os.Remove(gone))
		}
		data, err := os.ReadFile(stays)
		if got := digest.FromBytes(data); err != nil || got != d.Digest {
			t.Errorf("%s: %v, %v", stays, got, err)
		}
	}
}

// TestSeedAgainstRemoval: a blob that the store removes while it is linked concerns
// that image alone, and nobody is told that something is wrong with the folder.
func TestSeedAgainstRemoval(t *testing.T) {
	t.Parallel()
	b := newBench(t, image())
	b.images = &removedImages{Registry: b.registry, remove: b.img.Blobs[1].Descriptor.Digest}
	b.seedIt()
	if has, err := b.registry.Store.Has(b.img.Blobs[1].Descriptor.Digest); has || err != nil {
		t.Fatalf("the layer is still there, or not asked for twice: %v", err)
	}
	if b.told != "" || strings.Contains(b.log.String(), "level=WARN") {
		t.Errorf("told %q:\n%s", b.told, b.log)
	}
	if isSame(b.linkOf(b.img.Root.Digest), b.stored(b.img.Root.Digest)) {
		t.Error("the manifest is linked, and a layer is not")
	}
}

// fakes are a Seeder over a real store and a folder that is none.
func fakes(t *testing.T) (*Seeder, *fakeFolder, *bench) {
	t.Helper()
	b := newBench(t, image())
	f := &fakeFolder{have: map[digest.Digest]bool{}}
	images := fakeImages{store: b.registry.Store}
	for _, d := range b.img.Descriptors() {
		images.set = append(images.set, d.Digest)
	}
	return newSeeder(images, f, slog.New(slog.DiscardHandler)), f, b
}

// TestSeedSyncs: the links are on disk before the answer, by one sync an image.
func TestSeedSyncs(t *testing.T) {
	t.Parallel()
	s, f, b := fakes(t)
	s.Seed(t.Context(), repository(), b.img.Root.Digest)
	n := len(b.img.Descriptors())
	want := append(append(slices.Repeat([]string{"has"}, n), slices.Repeat([]string{"link"}, n)...), "sync")
	if !slices.Equal(f.calls, want) {
		t.Errorf("got %v, want %v", f.calls, want)
	}
	f.calls = nil
	s.Seed(t.Context(), repository(), b.img.Root.Digest)
	if want := slices.Repeat([]string{"has"}, n); !slices.Equal(f.calls, want) {
		t.Errorf("with all there: got %v, want %v", f.calls, want)
	}
}

// TestSeedHangs: a disk that hangs holds up those who are there already, for
// Patience, and nobody after them until it answers.
func TestSeedHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFolder{gate: make(chan struct{}), have: map[digest.Digest]bool{}}
		s := newSeeder(fakeImages{set: []digest.Digest{"sha256:1"}}, f, slog.New(slog.DiscardHandler))
		wait := func(i int) time.Duration {
			began := time.Now()
			s.Seed(t.Context(), repository(), digest.Digest(fmt.Sprint("sha256:", i)))
			return time.Since(began)
		}
		var first sync.WaitGroup
		for i := range 100 {
			first.Go(func() {
				if took := wait(i); took != Patience {
					t.Errorf("one of those who came first waited %s, want %s", took, Patience)
				}
			})
		}
		first.Wait()
		for i := range 100 {
			if took := wait(i); took > 0 {
				t.Errorf("one who came later waited %s", took)
			}
		}
		if len(f.asked()) > maxSeeds {
			t.Errorf("%d calls hang, want at most %d", len(f.asked()), maxSeeds)
		}
		f.mu.Lock()
		f.have["sha256:1"] = true
		f.mu.Unlock()
		close(f.gate)
		synctest.Wait()
		calls := len(f.asked())
		if wait(1); len(f.asked()) == calls {
			t.Error("the disk answers again, and is not asked")
		}
	})
}

// TestSeedOnce: who asks for one image at a time waits for one linking.
func TestSeedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFolder{gate: make(chan struct{}), have: map[digest.Digest]bool{"sha256:1": true}}
		s := newSeeder(fakeImages{set: []digest.Digest{"sha256:1"}}, f, slog.New(slog.DiscardHandler))
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() { s.Seed(t.Context(), repository(), "sha256:1") })
		}
		synctest.Wait()
		close(f.gate)
		all.Wait()
		if len(f.asked()) != 1 {
			t.Errorf("the folder was asked %d times", len(f.asked()))
		}
	})
}

// TestSeedWaitsForFolder: a folder that is not there is not made, told once, and
// used when it has come.
func TestSeedWaitsForFolder(t *testing.T) {
	t.Parallel()
	b := newBench(t, image())
	for round := range 2 {
		b.must(os.RemoveAll(b.content))
		for range 3 {
			b.seedIt()
			b.lookAgain()
		}
		if _, err := os.Lstat(b.content); !os.IsNotExist(err) {
			t.Errorf("round %d: the folder: %v", round, err)
		}
		if n := strings.Count(b.log.String(), "images are not linked"); n != round+1 {
			t.Errorf("round %d: the log tells it %d times:\n%s", round, n, b.log)
		}
		b.must(os.Mkdir(b.content, 0o700))
		b.seedIt()
		if n, want := b.linked(), len(b.img.Descriptors()); n != want {
			t.Errorf("round %d: %d blobs are linked, want %d", round, n, want)
		}
	}
}

// BenchmarkSeed is what a pull costs whose image containerd has, and one whose
// image it has not.
func BenchmarkSeed(b *testing.B) {
	for _, layers := range []int{1, 8, 40} {
		spec := remotestest.ImageSpec{Seed: 2}
		for range layers {
			spec.Layers = append(spec.Layers, 2000)
		}
		e := newBench(b, spec)
		e.Seeder.logger = slog.New(slog.DiscardHandler)
		e.seedIt()
		b.Run(fmt.Sprintf("there/layers=%d", layers), func(b *testing.B) {
			for b.Loop() {
				e.seedIt()
			}
		})
		b.Run(fmt.Sprintf("new/layers=%d", layers), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				e.must(os.RemoveAll(filepath.Join(e.content, "blobs", "sha256")))
				e.must(os.Mkdir(filepath.Join(e.content, "blobs", "sha256"), 0o755))
				b.StartTimer()
				e.seedIt()
			}
		})
	}
}
