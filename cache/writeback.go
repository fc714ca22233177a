package cache

import "sync"

const (
	// writebackPiece is how many bytes an ingest grows by before the kernel is to
	// write them.
	writebackPiece = 8 << 20
	// writebackQueue bounds the pieces that wait for a disk that is slower than what
	// is received. What is beyond it the fsync of the publish writes.
	writebackQueue = 32
)

// writeback has the kernel begin to write what ingests grow by, so that little is
// left for the fsync of their publish, and no disk has to take a whole layer at once.
// That may wait for the disk for long: a goroutine of its own does it, for all
// ingests, so that nobody who receives or reads bytes waits with it. It is an advice:
// a piece that is left out, or fails, costs no more than time.
type writeback struct {
	mu      sync.Mutex // guards what follows
	queue   []pages
	running bool
	closed  bool

	ended sync.WaitGroup
}

// add has a piece written soon.
func (w *writeback) add(p pages) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.conn == nil || w.closed || len(w.queue) >= writebackQueue {
		return
	}
	w.queue = append(w.queue, p)
	if !w.running {
		w.running = true
		w.ended.Go(w.run)
	}
}

func (w *writeback) run() {
	for {
		p, ok := w.next()
		if !ok {
			return
		}
		p.write()
	}
}

func (w *writeback) next() (p pages, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 {
		w.running = false
		return p, false
	}
	p, w.queue = w.queue[0], w.queue[1:]
	return p, true
}

// close returns when nothing of it runs any more.
func (w *writeback) close() {
	w.mu.Lock()
	w.closed, w.queue = true, nil
	w.mu.Unlock()
	w.ended.Wait()
}
