package unpack

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
)

// turn says when an entry may begin, and that it ends. It stands with the first and
// the last segment of an entry.
type turn struct {
	after int64 // as many entries of the spine must be done
	ends  bool
	cost  int64
}

// hand is what one applier has to do: the part of a layer's tar stream that is dealt
// to it. It reads it.
type hand struct {
	table *table
	queue chan segment
	now   segment
	dealt int64        // entries; the dealer's own
	done  int64        // entries that are written; table.mu guards it
	load  atomic.Int64 // what is not done yet, in bytes, more or less
}

// Read gives an applier its next bytes. That it asks for more than an entry has means
// that the entry is written: archive/tar does not read ahead.
func (h *hand) Read(p []byte) (int, error) {
	for h.now.chunk == nil || h.now.from == h.now.to {
		h.finish()
		s, ok := <-h.queue
		if !ok {
			return 0, h.table.end()
		}
		h.now = s
		if err := h.table.await(h.table.spine, s.turn.after); err != nil {
			return 0, err
		}
	}
	n := copy(p, h.now.data())
	h.now.from += n
	return n, nil
}

// finish lets go of the segment that is read.
func (h *hand) finish() {
	if h.now.chunk == nil {
		return
	}
	h.now.chunk.release()
	if h.now.turn.ends {
		h.load.Add(-h.now.turn.cost)
		h.table.finished(h)
	}
	h.now = segment{}
}

// table is where the hands see how far the others are.
type table struct {
	spine  *hand
	cancel context.CancelCauseFunc

	mu    sync.Mutex
	moved *sync.Cond
	err   error // of the first that failed
}

// newTable returns a table with one hand, the spine. cancel is called when one fails.
func newTable(cancel context.CancelCauseFunc) *table {
	t := &table{cancel: cancel}
	t.moved = sync.NewCond(&t.mu)
	t.spine = t.newHand()
	return t
}

func (t *table) newHand() *hand { return &hand{table: t, queue: make(chan segment, 4*chunks)} }

// finished notes that a hand has written one entry more.
func (t *table) finished(h *hand) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h.done++
	t.moved.Broadcast()
}

// await returns when a hand has written n entries, or another hand has failed.
func (t *table) await(h *hand, n int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for h.done < n && t.err == nil {
		t.moved.Wait()
	}
	return t.err
}

// fail ends what all do.
func (t *table) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		t.err = err
		t.cancel(err)
	}
	t.moved.Broadcast()
}

// failed is what the first one failed with.
func (t *table) failed() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// end is what a hand reads behind its last entry.
func (t *table) end() error {
	if err := t.failed(); err != nil {
		return err
	}
	return io.EOF
}
