package cache

import (
	"bytes"
	"context"
	"io"
	"testing"
)

// greeting is a body whose first Read brings a few bytes, as net/http's does behind the
// header, and all others whatever they have room for. It notes where each ended.
type greeting struct {
	*bytes.Reader
	ends []int64
}

func (g *greeting) Read(p []byte) (int, error) {
	if len(g.ends) == 0 {
		p = p[:min(len(p), 1234)]
	}
	n, err := g.Reader.Read(p)
	if n > 0 {
		g.ends = append(g.ends, g.Size()-int64(g.Len()))
	}
	return n, err
}

// TestFillWritesWholePieces: bytes that came alone push none of those behind them off
// the borders of the pieces in which a file is written.
func TestFillWritesWholePieces(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	data, dgst := blobOf(1, 3*copyBuffer+17)
	body := &greeting{Reader: bytes.NewReader(data)}
	src := scripted(func(context.Context, int64) (Stream, error) {
		return Stream{Body: io.NopCloser(body), Size: int64(len(data))}, nil
	})
	if err := startFill(t, s, dgst, -1, src).Wait(patience(t)); err != nil {
		t.Fatal(err)
	}
	wantBlob(t, s, dgst, data)
	if len(body.ends) != 5 {
		t.Fatalf("bytes came up to %d, want 5 times", body.ends)
	}
	for i, end := range body.ends[1:4] {
		if end != int64(i+1)*copyBuffer {
			t.Errorf("piece %d ends at %d, want %d", i, end, (i+1)*copyBuffer)
		}
	}
}
