package cache

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
)

// gated is a Source that announces a size and sends when it is told to.
type gated struct {
	data []byte
	size int64
	gate chan struct{}
}

func (g gated) Open(ctx context.Context, offset int64) (Stream, error) {
	pr, pw := io.Pipe()
	go func() {
		select {
		case <-g.gate:
		case <-ctx.Done():
		}
		_, err := pw.Write(g.data[offset:])
		_ = pw.CloseWithError(err)
	}()
	return Stream{Body: pr, Size: g.size, Upstream: "upstream.test"}, nil
}

// maxBytes is a budget of so many bytes beside what the index takes.
func (s *Store) maxBytes(t *testing.T, bytes int64) {
	t.Helper()
	u, err := s.Usage()
	if err != nil {
		t.Fatal(err)
	}
	s.budget = Budget{MaxSize: Amount{Bytes: u.Other + bytes}}.withDefaults()
}

// TestReserve: what a fill announced is taken before it came; what does not fit
// fails before a byte is written, and says why; and all is given back.
func TestReserve(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	s.maxBytes(t, 10<<20)
	data, dgst := blobOf(1, 6<<20)
	gate := make(chan struct{})
	f, _, err := s.Fill(t.Context(), dgst, -1, gated{data, int64(len(data)), gate})
	if err != nil {
		t.Fatal(err)
	}
	for p, changed := f.Progress(); p.Size < 0; p, changed = f.Progress() {
		<-changed
	}
	other, odgst := blobOf(2, 6<<20)
	closed := make(chan struct{})
	close(closed)
	wantFull := func(g gated, text string) {
		t.Helper()
		f, _, err := s.Fill(t.Context(), odgst, -1, g)
		if err != nil {
			t.Fatal(err)
		}
		err = f.Wait(patience(t))
		if !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), "space.max_size") || !strings.Contains(err.Error(), text) {
			t.Errorf("a fill beyond the budget: %v, want it to say %q and what to do", err, text)
		}
	}
	wantFull(gated{other, int64(len(other)), closed}, "6.0 MiB")
	wantFull(gated{other, 1 << 30, closed}, "larger than all")
	if u, err := s.Usage(); err != nil || u.Unfinished+u.Promised < 6<<20 || u.Taken > u.Allowance || u.Problem == "" {
		t.Errorf("usage is %+v, %v", u, err)
	}
	if err := writeBytes(t, s, 6<<20); !errdefs.IsResourceExhausted(err) {
		t.Errorf("a writer beyond the budget: %v", err)
	}
	close(gate)
	if err := f.Wait(patience(t)); err != nil {
		t.Fatal(err)
	}
	if u := wantUsage(t, s, "filled"); u.Promised != 0 {
		t.Errorf("%d bytes are promised to nobody", u.Promised)
	}
}

func writeBytes(t *testing.T, s *Store, n int) error {
	t.Helper()
	w, err := s.Writer(t.Context(), content.WithRef("w"))
	if err != nil {
		return err
	}
	defer w.Close()
	_, err = w.Write(make([]byte, n))
	return err
}

// TestReserveUnknownSize grows in steps, and gives back what it did not use.
func TestReserveUnknownSize(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	s.maxBytes(t, 100<<20)
	data, dgst := blobOf(1, 3<<20)
	gate := make(chan struct{})
	close(gate)
	f, _, err := s.Fill(t.Context(), dgst, -1, gated{data, -1, gate})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Wait(patience(t)); err != nil {
		t.Fatal(err)
	}
	if u := wantUsage(t, s, "filled"); u.Promised != 0 {
		t.Errorf("%d bytes are promised to nobody", u.Promised)
	}
	s.maxBytes(t, 1<<20)
	_, dgst = blobOf(2, 3<<20)
	f, _, err = s.Fill(t.Context(), dgst, -1, gated{data, -1, gate})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Wait(patience(t)); !errdefs.IsResourceExhausted(err) {
		t.Errorf("a fill of unknown size beyond the budget: %v", err)
	}
}
