package unpack

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func zstdOf(t testing.TB, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(data, nil)
}

// brokenLayers are blobs of a layer that are not whole.
func brokenLayers(t testing.TB) map[string][]byte {
	t.Helper()
	layer := orderlyLayer(t, 3, 60)
	wrong := gzipped(t, layer)
	wrong[len(wrong)-5] ^= 1
	packed := zstdOf(t, layer)
	return map[string][]byte{
		"gzip that breaks off":       gzipped(t, layer)[:len(wrong)/2],
		"gzip with a wrong checksum": wrong,
		"zstd that breaks off":       packed[:len(packed)/2],
		"gzip, and then not":         append(gzipped(t, layer), "and more"...),
		"tar that breaks off":        layer[:len(layer)/2],
		"tar with a broken header":   bytes.Replace(layer, []byte("ustar"), []byte("ustax"), 40)[:len(layer)-2000],
		"nothing that is a layer":    bytes.Repeat([]byte("layer "), 1000),
	}
}

// TestBroken: a layer that breaks off, or is changed, is an error.
func TestBroken(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for name, blob := range brokenLayers(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, sides := range []int{0, 2} {
				mounts, _ := mountsBelow(t, t.TempDir(), false)
				u := unpacking{layer: memory{bytes.NewReader(blob)}, sides: sides}
				if err := u.apply(t.Context(), mounts, false); err == nil {
					t.Errorf("%d sides: no error", sides)
				}
			}
		})
	}
}

// slow is a layer that waits in the middle until its reader gives up.
type slow struct {
	memory
	at      int64
	reached chan struct{}
	gone    <-chan struct{}
}

func (s *slow) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > s.at {
		close(s.reached)
		<-s.gone
		return 0, errors.New("nobody waits any more")
	}
	return s.memory.ReadAt(p, off)
}

// TestCancel: who gives up has the error of his own, and nothing goes on behind him.
func TestCancel(t *testing.T) {
	t.Parallel()
	needRoot(t)
	layer := orderlyLayer(t, 30, 60)
	mounts, _ := mountsBelow(t, t.TempDir(), false)
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	s := &slow{memory: memory{bytes.NewReader(layer)}, at: int64(len(layer) / 2), reached: make(chan struct{}), gone: ctx.Done()}
	go func() {
		<-s.reached
		cancel(enough)
	}()
	u := unpacking{layer: s, sides: 2}
	if err := u.apply(ctx, mounts, false); !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
}

// TestChunksComeBack: a layer that is much larger than what may be ahead goes through
// the same few chunks.
func TestChunksComeBack(t *testing.T) {
	t.Parallel()
	needRoot(t)
	layer := orderlyLayer(t, 2, 10)
	large := make([]byte, 3*chunks*chunkSize)
	layer = append(layerOfOne(t, "large", large), layer...)
	mounts, _ := mountsBelow(t, t.TempDir(), false)
	s := newStream(t.Context(), io.NopCloser(bytes.NewReader(layer)))
	upper, lower := overlay(mounts)
	if len(lower) != 1 {
		t.Fatalf("lower %q", lower)
	}
	err := deal(t.Context(), s, upper, 2, false)
	if err := errors.Join(err, s.rest(t.Context()), s.Close()); err != nil {
		t.Fatal(err)
	}
	if n := len(s.free); n != chunks {
		t.Errorf("%d of %d chunks came back", n, chunks)
	}
	if s.size != int64(len(layer)) {
		t.Errorf("%d of %d bytes", s.size, len(layer))
	}
}
