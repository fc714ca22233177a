package cache

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// script is a Source that answers its n-th Open with the n-th step, and all
// later ones with the last.
type script struct {
	mu      sync.Mutex
	steps   []step
	offsets []int64 // of each Open
	open    int     // bodies that are open now
	most    int     // at a time
}

// step answers one Open.
type step func(ctx context.Context, offset int64) (Stream, error)

func scripted(steps ...step) *script { return &script{steps: steps} }

func (s *script) Open(ctx context.Context, offset int64) (Stream, error) {
	s.mu.Lock()
	n := min(len(s.offsets), len(s.steps)-1)
	s.offsets = append(s.offsets, offset)
	s.mu.Unlock()
	stream, err := s.steps[n](ctx, offset)
	if err != nil {
		return stream, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open++
	s.most = max(s.most, s.open)
	stream.Body = &scriptBody{ReadCloser: stream.Body, script: s}
	return stream, nil
}

type scriptBody struct {
	io.ReadCloser
	script *script
}

func (b *scriptBody) Close() error {
	b.script.mu.Lock()
	b.script.open--
	b.script.mu.Unlock()
	return b.ReadCloser.Close()
}

// wantOffsets fails the test unless Open was called with these offsets and
// every body was closed.
func (s *script) wantOffsets(t *testing.T, want ...int64) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.offsets, want) {
		t.Errorf("source was opened at %v, want %v", s.offsets, want)
	}
	if s.open != 0 || s.most > 1 {
		t.Errorf("%d bodies left open, %d open at a time, want 0 and at most 1", s.open, s.most)
	}
}

// sends is a body of data that is announced with its size.
func sends(data []byte) step { return sendsSized(data, int64(len(data))) }

// sendsSized announces another size than data has.
func sendsSized(data []byte, size int64) step {
	return func(_ context.Context, offset int64) (Stream, error) {
		if offset > int64(len(data)) {
			return Stream{}, fmt.Errorf("offset %d of %d: %w", offset, len(data), errdefs.ErrOutOfRange)
		}
		return Stream{Body: io.NopCloser(bytes.NewReader(data[offset:])), Size: size, Upstream: "upstream.test"}, nil
	}
}

// breaks sends data up to an offset and then fails with err (io.EOF: ends
// cleanly).
func breaks(data []byte, at int, err error) step {
	return breaksSized(data, at, err, int64(len(data)))
}

func breaksSized(data []byte, at int, err error, size int64) step {
	return func(_ context.Context, offset int64) (Stream, error) {
		part := data[min(int(offset), at):at]
		body := io.MultiReader(bytes.NewReader(part), failingReader{err})
		return Stream{Body: io.NopCloser(body), Size: size, Upstream: "upstream.test"}, nil
	}
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

// refuses does not answer at all.
func refuses(err error) step {
	return func(context.Context, int64) (Stream, error) { return Stream{}, err }
}

// tap is a source whose bytes the test lets through.
type tap struct {
	*script
	w *io.PipeWriter
}

func newTap(size int64) *tap {
	r, w := io.Pipe()
	return &tap{w: w, script: scripted(func(ctx context.Context, _ int64) (Stream, error) {
		stop := context.AfterFunc(ctx, func() { _ = r.CloseWithError(context.Cause(ctx)) })
		return Stream{Body: tapBody{r, stop}, Size: size, Upstream: "upstream.test"}, nil
	})}
}

type tapBody struct {
	*io.PipeReader
	stop func() bool
}

func (b tapBody) Close() error {
	b.stop()
	return b.PipeReader.Close()
}

// flow lets bytes through; they are read, though not yet on disk, when it
// returns.
func (p *tap) flow(t *testing.T, data []byte) {
	t.Helper()
	if _, err := p.w.Write(data); err != nil {
		t.Error(err)
	}
}

// startFill starts a fill that must not be running yet.
func startFill(t testing.TB, s *Store, dgst digest.Digest, hint int64, src Source) *Fill {
	t.Helper()
	f, started, err := s.Fill(t.Context(), dgst, hint, src)
	if err != nil {
		t.Fatal(err)
	}
	if !started {
		t.Fatalf("fill of %s runs already", dgst)
	}
	return f
}

// waitReceived returns when the fill has n bytes, or is over.
func waitReceived(t testing.TB, f *Fill, n int64) {
	t.Helper()
	ctx := patience(t)
	for {
		p, changed := f.Progress()
		if p.Received >= n || p.Done {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("fill has %d bytes, want %d", p.Received, n)
		}
	}
}
