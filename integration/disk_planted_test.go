package integration

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// Whatever lies where a published blob was, no client gets it, none hangs, and
// the blob comes from upstream again.
func TestPlantedInStore(t *testing.T) {
	t.Parallel()
	img := remotestest.Build(remotestest.ImageSpec{Seed: 950, Layers: []int64{200_000}})
	layer := slices.MaxFunc(img.Blobs, func(a, b remotestest.Blob) int { return len(a.Data) - len(b.Data) })
	blob, desc := layer.Data, layer.Descriptor
	size := len(blob)
	for name, plant := range map[string]func(path string) error{
		"truncated": func(p string) error { return replaceFile(p, blob[:size/2]) },
		"empty":     func(p string) error { return replaceFile(p, nil) },
		"extended":  func(p string) error { return replaceFile(p, append(blob[:size:size], 'x')) },
		"link":      func(p string) error { return os.Symlink("/etc/hostname", p) },
		"fifo":      func(p string) error { return syscall.Mkfifo(p, 0o644) },
		"hard link": func(p string) error {
			other := filepath.Join(filepath.Dir(p), "..", "..", "other")
			if err := os.WriteFile(other, blob[:1000], 0o600); err != nil {
				return err
			}
			return os.Link(other, p)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "larder")
			upstream := remotestest.New(t)
			upstream.PutImage("library/app", "1", img)
			l := b.larder(impatient + dockerHub(upstream.URL()))
			url := blobURL(l.URL, "library/app", desc.Digest)
			path := filepath.Join(l.Root(), "blobs", "sha256", desc.Digest.Encoded())
			run(t, l, "pull", "docker.io/library/app:1") // its size is known when this ends; a hit may come before
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := plant(path); err != nil {
				t.Fatal(err)
			}
			a := get(t, url)
			if !a.whole(desc.Digest) || a.cache() == "hit" || a.took > answerLimit {
				t.Errorf("got %v, %s, after %v; want the blob from upstream", a, a.cache(), a.took)
			}
			eventually(t, "it is stored again", func() bool { return get(t, url).cache() == "hit" })
			verifyStore(t, l)
		})
	}
}

func replaceFile(path string, data []byte) error { return os.WriteFile(path, data, 0o444) }

// 10,000 files that are not larder's, and as many ingests that a crash left, do
// not keep it from starting, and the ingests are gone then.
func TestStraysInStore(t *testing.T) {
	t.Parallel()
	const strays = 10_000
	b := newBench(t, "larder")
	upstream := remotestest.New(t)
	desc := upstream.PutBlob("library/app", noise(960, 1000))
	l, err := parts.NewLarder(b.bin, b.dir, impatient+dockerHub(upstream.URL()))
	if err != nil {
		t.Fatal(err)
	}
	b.cleanup(l.Close)
	ingest := filepath.Join(l.Root(), "ingest")
	blobs := filepath.Join(l.Root(), "blobs", "sha256")
	for _, dir := range []string{ingest, blobs} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for n := range strays {
		// The name of an ingest, without what makes it one.
		dir := filepath.Join(ingest, fmt.Sprintf("%064x", n))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{filepath.Join(dir, "data"), filepath.Join(ingest, fmt.Sprint("stray-", n)), filepath.Join(blobs, fmt.Sprint("stray-", n))} {
			if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	begun := time.Now()
	if err := l.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	took := time.Since(begun)
	t.Logf("start with %d strays of each of 3 kinds: %v", strays, took.Round(time.Millisecond))
	if left, err := filepath.Glob(filepath.Join(ingest, "0*")); err != nil || len(left) > 0 {
		t.Errorf("%d ingests without notes are left, %v", len(left), err)
	}
	if a, err := fetch(t.Context(), http.MethodGet, blobURL(l.URL, "library/app", desc.Digest)); err != nil || !a.whole(desc.Digest) {
		t.Errorf("a pull: %v, %v", a, err)
	}
	// What is not larder's is left alone.
	if _, err := os.Stat(filepath.Join(ingest, "stray-1")); err != nil {
		t.Error(err)
	}
}
