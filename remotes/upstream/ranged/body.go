package ranged

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

const (
	// silence is how long the part that is needed next may bring nothing, while
	// others bring more than a little, before it is asked for anew.
	silence = 10 * time.Second
	little  = 1 << 20
	// maxFaults is how many parts of a blob may be cut before the rest comes by
	// one connection.
	maxFaults = 3
	// maxEmpty is how many answers without a byte are borne in a row.
	maxEmpty = 2
	// planStep is how many bytes of a leap are read without a thought.
	planStep = 256 << 10
)

var (
	errSilent  = errors.New("part is silent while others are not")
	errDropped = errors.New("part is not wanted any more")
)

// Options of a Body. All are needed.
type Options struct {
	Source   Source
	Governor *Governor
	Memory   *Memory
	// Connections is how many a Body has at most.
	Connections int
	// Size of the whole blob.
	Size int64
}

// Body is a blob's bytes in their order. One goroutine reads and closes it.
type Body struct {
	source      Source
	governor    *Governor
	memory      *Memory
	connections int
	size        int64
	ctx         context.Context //nolint:containedctx // a body ends with its request
	cancel      context.CancelFunc
	running     sync.WaitGroup
	wake        chan struct{} // something changed for who reads

	// Of the goroutine that reads.
	err   error
	from  int64
	began time.Time
	leapt pace // of leaps

	// mu guards what follows, and the parts. It is held while the governor and
	// the memory are asked, and never while something is read.
	mu       sync.Mutex
	closed   bool
	pos      int64   // what is delivered
	next     int64   // what nobody was asked to fetch
	planned  int64   // what was delivered when that was last thought about
	parts    []*part // from pos to next
	base     *slot   // the connection that the body has anyhow
	baseFree bool    // base has nothing to do
	slots    []*slot // all others
	extras   int     // of them, those that are no overlap
	parked   []*slot // those that wait for memory
	single   bool    // no more parts are fetched ahead
	faults   int
	received int64 // by all parts that are received into memory
}

// NewBody goes on behind a first part that is open: that has the bytes from
// first to last. It takes over the part, and ends with ctx.
func NewBody(ctx context.Context, o Options, open io.ReadCloser, first, last int64) *Body {
	ctx, cancel := context.WithCancel(ctx)
	b := &Body{
		source: o.Source, governor: o.Governor, memory: o.Memory, connections: o.Connections, size: o.Size,
		ctx: ctx, cancel: cancel, wake: make(chan struct{}, 1),
		from: first, began: time.Now(), pos: first, next: last + 1, planned: -planStep, base: &slot{used: true},
	}
	b.parts = []*part{{first: first, last: last, slot: b.base, leap: true, body: open}}
	return b
}

// Read implements io.Reader.
func (b *Body) Read(p []byte) (n int, err error) {
	for b.err == nil && n == 0 && len(p) > 0 {
		head := b.head()
		switch {
		case head == nil:
			b.err = io.EOF
		case head.leap:
			n, b.err = b.readLeap(head, p)
		default:
			n, b.err = b.readPart(head, p)
		}
	}
	if n > 0 {
		return n, nil // an error is the next call's
	}
	return 0, b.err
}

// head returns the part with the next byte, nil at the blob's end.
func (b *Body) head() *part {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.parts) > 0 && b.parts[0].left() <= 0 {
		done := b.parts[0]
		b.parts = b.parts[1:]
		b.leave(done)
	}
	if len(b.parts) > 0 && b.parts[0].leap && b.pos < b.planned+planStep {
		return b.parts[0] // it costs too much to do for each read
	}
	b.planned = b.pos
	b.plan(time.Now())
	if len(b.parts) == 0 {
		return nil
	}
	return b.parts[0]
}

// readLeap reads from the connection itself.
func (b *Body) readLeap(head *part, p []byte) (int, error) {
	if head.body == nil {
		if err := b.open(head); err != nil {
			return 0, err
		}
		head.empty++
	}
	began := time.Now()
	n, err := head.body.Read(p[:min(int64(len(p)), head.left())])
	b.leapt.note(n, time.Since(began))
	b.mu.Lock()
	defer b.mu.Unlock()
	head.first += int64(n)
	b.pos += int64(n)
	if n > 0 {
		head.empty = 0
	}
	switch {
	case err == nil || head.left() == 0:
		return n, nil
	case errors.Is(err, io.EOF) && head.empty < maxEmpty:
		// It was shorter than asked for: the rest is asked for, too.
	case errors.Is(err, io.EOF):
		return n, io.ErrUnexpectedEOF
	case len(b.parts) > 1 && head.empty < maxEmpty && !b.single && b.ctx.Err() == nil:
		// A new attempt would lose what waits behind this part.
		b.note(err)
	default:
		return n, err
	}
	_ = head.body.Close() // nothing more comes of it
	head.body = nil
	return n, nil
}

// open opens a leap, or takes over what was opened ahead.
func (b *Body) open(head *part) error {
	if head.opening != nil {
		got := <-head.opening // ends with the context
		head.opening = nil
		if got.err == nil {
			head.body = got.body
			return nil
		}
		b.mu.Lock()
		b.note(openError{got.err})
		b.ignored(head, got.err)
		b.mu.Unlock()
	}
	body, err := b.source.Open(b.ctx, head.first, head.last)
	if err != nil {
		return err
	}
	head.body = body
	return nil
}

// readPart reads what was received, and waits for it.
func (b *Body) readPart(head *part, p []byte) (int, error) {
	for {
		n, patience := b.look(head, p)
		if n > 0 || head.leap {
			return n, nil
		}
		if err := b.wait(patience); err != nil {
			return 0, err
		}
		b.mu.Lock()
		b.plan(time.Now())
		b.mu.Unlock()
	}
}

// look takes what is here of a part. If that is nothing, it says for how long to
// wait for more, or makes a leap of the part if nothing more comes.
func (b *Body) look(head *part, p []byte) (n int, patience time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n = b.deliver(head, p); n > 0 {
		return n, 0
	}
	patience = time.Until(head.at.Add(silence))
	if patience <= 0 {
		patience = silence
		if b.received-head.mark > little && head.err == nil {
			b.giveUp(head, errSilent)
			b.note(errSilent)
		}
	}
	if head.err != nil {
		b.becomeLeap(head)
	}
	return 0, patience
}

// wait waits for a change, and for no longer than patience.
func (b *Body) wait(patience time.Duration) error {
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-b.wake:
	case <-t.C:
	case <-b.ctx.Done():
		return context.Cause(b.ctx)
	}
	return nil
}

func (b *Body) wakeUp() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// becomeLeap has what is missing of a part that failed asked for once more, by
// who reads: what is wrong then is the reader's error.
func (b *Body) becomeLeap(head *part) {
	head.leap = true
	b.ignored(head, head.err)
	if head.finished {
		b.free(head)
	} // else its goroutine does, which may be writing still
}

// ignored has all the rest come with a part if upstream sends no other.
func (b *Body) ignored(head *part, err error) {
	if !errors.Is(err, ErrIgnored) {
		return
	}
	for _, p := range b.parts[1:] {
		b.drop(p)
	}
	b.parts = b.parts[:1]
	head.last, b.next = b.size-1, b.size
}

// Close ends all requests, and returns when nothing of the body runs any more.
func (b *Body) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	b.cancel()
	b.mu.Unlock()
	b.running.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, p := range b.parts {
		errs = append(errs, b.closeLeap(p))
		b.free(p)
	}
	b.parts = nil
	for _, s := range b.slots {
		s.release()
	}
	b.slots = nil
	if b.err == nil {
		b.err = errors.New("body is closed")
	}
	return errors.Join(errs...)
}

// closeLeap closes what is open of a part. Nobody opens it any more.
func (b *Body) closeLeap(p *part) error {
	if p.opening != nil {
		if got := <-p.opening; got.body != nil {
			p.body = got.body
		}
		p.opening = nil
	}
	if p.body == nil {
		return nil
	}
	return p.body.Close()
}
