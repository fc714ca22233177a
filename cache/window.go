package cache

import (
	"fmt"

	"github.com/containerd/errdefs"
)

const (
	// windowSize bounds what one fill keeps in memory. It is more than HoldBack,
	// or readers would wait for the digest and the fill for readers.
	windowSize = 4 << 20
	// windowTotal is the default bound of all windows together.
	windowTotal = 64 << 20
	windowChunk = 256 << 10
)

// window is the part of a blob that a fill keeps in memory because the disk
// does not take it: [base, end). What is in front of base is forgotten, and
// what is in front of start may still be on disk. Its fill's mu guards it.
type window struct {
	start, base, end int64
	limit            int64    // of end-base
	chunks           [][]byte // all full but the last
	spare            []byte   // the last one that was let go
}

func newWindow(start, limit int64) *window {
	return &window{start: start, base: start, end: start, limit: limit}
}

// push appends as much of p as there is room for.
func (w *window) push(p []byte) int {
	p = p[:min(int64(len(p)), w.limit-(w.end-w.base))]
	for rest := p; len(rest) > 0; {
		if n := len(w.chunks); n == 0 || len(w.chunks[n-1]) == cap(w.chunks[n-1]) {
			w.chunks = append(w.chunks, w.chunk())
		}
		last := &w.chunks[len(w.chunks)-1]
		n := min(len(rest), cap(*last)-len(*last))
		*last = append(*last, rest[:n]...)
		rest = rest[n:]
	}
	w.end += int64(len(p))
	return len(p)
}

func (w *window) chunk() []byte {
	if c := w.spare; c != nil {
		w.spare = nil
		return c[:0]
	}
	return make([]byte, 0, min(windowChunk, w.limit))
}

// slide forgets whole chunks in front of floor, no more than full bytes need.
func (w *window) slide(floor, need int64) {
	for len(w.chunks) > 0 && w.limit-(w.end-w.base) < need {
		n := int64(len(w.chunks[0]))
		if w.base+n > floor {
			return
		}
		w.spare = w.chunks[0]
		w.chunks[0] = nil
		w.chunks = w.chunks[1:]
		w.base += n
	}
}

// readAt copies bytes from off on, which is in [base, end).
func (w *window) readAt(p []byte, off int64) int {
	total := 0
	at := w.base
	for _, c := range w.chunks {
		next := at + int64(len(c))
		if off < next && total < len(p) {
			n := copy(p[total:], c[off-at:])
			total += n
			off += int64(n)
		}
		at = next
	}
	return total
}

// reset forgets everything and begins at the blob's start.
func (w *window) reset() {
	w.start, w.base, w.end, w.chunks = 0, 0, 0, nil
}

// behindError is for a reader of bytes that are no longer kept.
func behindError(off, base int64) error {
	return fmt.Errorf("the blob is passed through without storing, its bytes from %d on are kept no longer, only those from %d: ask again: %w",
		off, base, errdefs.ErrUnavailable)
}
