package unpack

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/s2"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/larder-project/larder/plugin/unpack/unpacktest"
)

// blobs are layers as a store has them.
type blobs map[digest.Digest][]byte

func (b blobs) ReaderAt(_ context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	data, ok := b[desc.Digest]
	if !ok {
		return nil, errdefs.ErrNotFound
	}
	return memory{bytes.NewReader(data)}, nil
}

func (b blobs) add(data []byte) digest.Digest {
	b[digest.FromBytes(data)] = data
	return digest.FromBytes(data)
}

// noisyLayer is a layer of some MB that does not become small.
func noisyLayer(t testing.TB, seed byte) []byte {
	t.Helper()
	noise := make([]byte, 3<<20)
	state := uint64(seed) + 1
	for i := range noise {
		state = state*6364136223846793005 + 1442695040888963407
		noise[i] = byte(state >> 56)
	}
	return append(layerOfOne(t, "noise", noise), orderlyLayer(t, 2, 10)...)
}

func openCopies(t testing.TB, dir string, max int64, b blobs) *Copies {
	t.Helper()
	c, err := OpenCopies(dir, CopiesOptions{Layers: b, Max: max, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func namesIn(t testing.TB, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// unpackBy unpacks a layer, and returns what it was unpacked to.
func unpackBy(t testing.TB, b blobs, c *Copies, layer digest.Digest) (ocispec.Descriptor, map[string]string, error) {
	t.Helper()
	mounts, upper := mountsBelow(t, t.TempDir(), false)
	u := unpacking{layer: memory{bytes.NewReader(b[layer])}, digest: layer, copies: c, sides: 2}
	err := u.apply(t.Context(), mounts, false)
	return u.applied, unpacktest.Files(t, upper), err
}

// TestCopyIsUsed: a layer that was unpacked is unpacked from its copy the next time,
// also by a process that begins anew, with the same files; the layer is not read.
func TestCopyIsUsed(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir, b := t.TempDir(), blobs{}
	plain := noisyLayer(t, 1)
	layer := b.add(gzipped(t, plain))
	c := openCopies(t, dir, 1<<30, b)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	mounts, upper := mountsBelow(t, t.TempDir(), false)
	want, err := Unpacker{Copies: c}.Apply(ctx, layer, memory{bytes.NewReader(b[layer])}, mounts, false)
	if err != nil {
		t.Fatal(err)
	}
	files := unpacktest.Files(t, upper)
	if want.Digest != digest.FromBytes(plain) || len(c.wanted) != 1 {
		t.Fatalf("applied %v; %d copies are wanted", want, len(c.wanted))
	}
	f, err := c.make(ctx, <-c.wanted)
	if err != nil {
		t.Fatal(err)
	}
	if f.plain != want.Digest || f.size != want.Size {
		t.Errorf("copy %+v of %+v", f, want)
	}
	b[layer] = nil
	for _, c := range []*Copies{c, openCopies(t, dir, 1<<30, b)} {
		got, gotFiles, err := unpackBy(t, b, c, layer)
		if err != nil || got.Digest != want.Digest || got.Size != want.Size {
			t.Errorf("from the copy: %v, %v; want %v", got, err, want)
		}
		if diff := unpacktest.Diff(gotFiles, files); diff != "" {
			t.Error(diff)
		}
	}
}

// TestSpoiledCopy: whatever is wrong with a copy, the layer is unpacked all the same,
// and the copy is gone.
func TestSpoiledCopy(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for name, spoil := range map[string]func(data []byte) []byte{
		"short":          func(data []byte) []byte { return data[:len(data)/2] },
		"empty":          func([]byte) []byte { return nil },
		"changed":        func(data []byte) []byte { data[len(data)*2/3] ^= 1; return data },
		"begins wrongly": func(data []byte) []byte { data[3] ^= 1; return data },
		"without its last block": func(data []byte) []byte {
			r := bytes.NewReader(data)
			at := 0
			for { // S2's chunks: a kind, and a length of three bytes
				head := make([]byte, 4)
				if _, err := io.ReadFull(r, head); err != nil {
					return data[:at]
				}
				n := int(head[1]) | int(head[2])<<8 | int(head[3])<<16
				if r.Len() == n {
					return data[:len(data)-n-4]
				}
				at = len(data) - r.Len() + n
				_, _ = r.Seek(int64(n), io.SeekCurrent)
			}
		},
		"with more in its last block": func(data []byte) []byte {
			plain, err := io.ReadAll(s2.NewReader(bytes.NewReader(data)))
			if err != nil {
				return nil
			}
			var buf bytes.Buffer
			w := s2.NewWriter(&buf)
			_, _ = w.Write(append(plain, "more"...))
			_ = w.Close()
			return buf.Bytes()
		},
		"with more behind": func(data []byte) []byte { return append(data, data...) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, b := t.TempDir(), blobs{}
			plain := noisyLayer(t, 2)
			layer := b.add(gzipped(t, plain))
			c := openCopies(t, dir, 1<<30, b)
			f, err := c.make(t.Context(), layer)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, f.name())
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, spoil(data), 0o600); err != nil {
				t.Fatal(err)
			}
			got, _, err := unpackBy(t, b, c, layer)
			if err != nil || got.Digest != digest.FromBytes(plain) || got.Size != int64(len(plain)) {
				t.Errorf("got %v, %v", got, err)
			}
			if names := namesIn(t, dir); len(names) > 0 || c.total != 0 {
				t.Errorf("there are yet %d bytes: %v", c.total, names)
			}
		})
	}
}

// TestCopyOfAnother: a copy that is well in itself and another layer's is an error,
// once.
func TestCopyOfAnother(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir, b := t.TempDir(), blobs{}
	one, other := b.add(gzipped(t, noisyLayer(t, 3))), b.add(gzipped(t, noisyLayer(t, 4)))
	c := openCopies(t, dir, 1<<30, b)
	f, err := c.make(t.Context(), one)
	if err != nil {
		t.Fatal(err)
	}
	g, err := c.make(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, f.name()), filepath.Join(dir, g.name())); err != nil {
		t.Fatal(err)
	}
	if _, _, err := unpackBy(t, b, c, other); !errdefs.IsDataLoss(err) {
		t.Errorf("got %v, want data loss", err)
	}
	if _, _, err := unpackBy(t, b, c, other); err != nil {
		t.Errorf("asked again: %v", err)
	}
	if _, _, err := unpackBy(t, b, c, one); err != nil {
		t.Errorf("whose copy is gone: %v", err)
	}
}

// TestCopiesBudget: those used last stay, within the budget and what the disk has.
func TestCopiesBudget(t *testing.T) {
	t.Parallel()
	dir, b := t.TempDir(), blobs{}
	spare := int64(1 << 40)
	var layers []digest.Digest
	for i := range byte(4) {
		layers = append(layers, b.add(gzipped(t, noisyLayer(t, 10+i))))
	}
	c, err := OpenCopies(dir, CopiesOptions{
		Layers: b, Max: 11 << 20, Logger: slog.New(slog.DiscardHandler),
		Spare: func() (int64, error) { return spare, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, layer := range layers {
		if _, err := c.make(t.Context(), layer); err != nil {
			t.Fatal(err)
		}
		if i == 2 { // the first is used once more
			c.mu.Lock()
			f := c.files[layers[0]]
			f.used = time.Now().Add(time.Hour)
			c.files[layers[0]] = f
			c.mu.Unlock()
		}
	}
	has := func() []digest.Digest { return slices.Sorted(maps.Keys(c.files)) }
	want := slices.Sorted(slices.Values([]digest.Digest{layers[0], layers[2], layers[3]}))
	if got := has(); !slices.Equal(got, want) || c.total > 11<<20 || len(namesIn(t, dir)) != 3 {
		t.Errorf("%d bytes: %v, want %v", c.total, got, want)
	}
	spare = -1
	c.relent()
	if got := has(); len(got) != 2 || len(namesIn(t, dir)) != 2 {
		t.Errorf("disk is full: %v", got)
	}
	if _, err := c.make(t.Context(), layers[1]); !errors.Is(err, errNotWorth) {
		t.Errorf("a copy on a full disk: %v", err)
	}
	if c := openCopies(t, dir, 4<<20, b); len(c.files) != 1 || len(namesIn(t, dir)) != 1 {
		t.Errorf("a smaller budget has %d", len(c.files))
	}
}

// TestCopiesNotWorth are layers of which there is none, and what a killed maker left.
func TestCopiesNotWorth(t *testing.T) {
	t.Parallel()
	dir, b := t.TempDir(), blobs{}
	small, large := b.add(gzipped(t, []byte("small"))), b.add(gzipped(t, noisyLayer(t, 20)))
	broken := b.add(b[large][:2<<20])
	if err := os.WriteFile(filepath.Join(dir, unfinished+"1"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("somebody's"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := openCopies(t, dir, 5<<20, b)
	for layer, worth := range map[digest.Digest]bool{small: false, large: true, broken: false, digest.FromString("none"): false} {
		_, err := c.make(t.Context(), layer)
		if (err == nil) != worth {
			t.Errorf("%s: %v", layer, err)
		}
	}
	if names := namesIn(t, dir); len(names) != 2 || !slices.Contains(names, "notes.txt") {
		t.Errorf("there are %v", names)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.shrink(0)
	if _, err := c.make(ctx, large); !errors.Is(err, context.Canceled) || len(namesIn(t, dir)) != 1 {
		t.Errorf("cancelled: %v; %v", err, namesIn(t, dir))
	}
}

// TestCopiesRun: copies are made behind who wants them.
func TestCopiesRun(t *testing.T) {
	t.Parallel()
	dir, b := t.TempDir(), blobs{}
	c := openCopies(t, dir, 1<<30, b)
	layer := b.add(zstdOf(t, noisyLayer(t, 30)))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Run(ctx)
	}()
	c.want(digest.FromString("none"))
	c.want(layer)
	for tick := time.Tick(5 * time.Millisecond); !c.has(layer); {
		select {
		case <-tick:
		case <-ctx.Done():
			t.Fatal("no copy")
		}
	}
	cancel()
	<-done
}

// TestCopiesRunBesides: that copies are made at the lowest priority is not taken for the
// process's.
func TestCopiesRunBesides(t *testing.T) {
	t.Parallel()
	of := func() int {
		got, err := unix.Getpriority(unix.PRIO_PROCESS, os.Getpid()) // of its first thread
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	before := of()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var running sync.WaitGroup
	for range 50 { // whoever is begun by the first thread may have it
		c := openCopies(t, t.TempDir(), 1<<30, blobs{})
		running.Go(func() { c.Run(ctx) })
	}
	cancel()
	running.Wait()
	if got := of(); got != before {
		t.Errorf("the process has priority %d, and had %d", got, before)
	}
}
