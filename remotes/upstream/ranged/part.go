package ranged

import (
	"context"
	"errors"
	"io"
	"time"
)

// part is a range of the blob that somebody was asked to fetch. Body.mu guards
// it, but for what is said below.
type part struct {
	first, last int64 // what is not delivered of it
	slot        *slot // that fetches it; nil once it is here

	// A leap is delivered as it is read, by the goroutine that reads.
	leap    bool
	body    io.ReadCloser // nil: it is to be opened. Of the reader alone, as empty
	empty   int           // openings in a row that brought nothing
	opening chan opened   // nil: nobody opens it ahead

	// All others are received into memory. Where they begin, and their length,
	// is set once.
	begin, length int64
	blocks        []*block
	reserved      int64 // of memory, and not given back
	received      int64 // bytes that came
	at            time.Time
	mark          int64 // what all parts had received when this one got its last byte
	cancel        context.CancelFunc
	err           error // that ended it before its last byte, or why it was given up
	dropped       bool  // nobody wants it any more
	finished      bool  // its goroutine touches no block of it from now on
}

type opened struct {
	body io.ReadCloser
	err  error
}

func (p *part) left() int64 { return p.last + 1 - p.first }

// slot is a connection of a Body.
type slot struct {
	release func() // nil: it is the one that a Body has for all its life
	overlap bool   // it takes over from another
	used    bool   // it has opened something. Of its goroutine alone
}

// openError says that a part could not be opened, as opposed to being cut.
type openError struct{ error }

func (e openError) Unwrap() error { return e.error }

// work fetches a part, and then what else there is for its slot.
func (b *Body) work(ctx context.Context, p *part) {
	defer b.running.Done()
	for p != nil {
		err := b.fetch(ctx, p)
		p.cancel()
		p, ctx = b.fetched(p, err)
	}
}

// fetch receives a part into memory.
func (b *Body) fetch(ctx context.Context, p *part) error {
	began := time.Now()
	last := p.begin + p.length - 1
	body, err := b.source.Ahead(ctx, p.begin, last)
	if err != nil {
		return openError{err}
	}
	defer body.Close()
	b.governor.Opened(time.Since(began), !p.slot.used)
	p.slot.used = true
	for left := p.length; left > 0; {
		into := b.room(p)
		if into == nil {
			return nil // it was given up
		}
		// What upstream sends behind the part's end is not read.
		n, err := body.Read(into.data[into.filled:min(blockSize, int64(into.filled)+left)])
		left -= int64(n)
		b.receive(p, into, n)
		if err != nil && left > 0 {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// room returns the block for a part's next bytes, nil if it was given up.
func (b *Body) room(p *part) *block {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.err != nil {
		return nil
	}
	if n := len(p.blocks); n > 0 && p.blocks[n-1].filled < blockSize {
		return p.blocks[n-1]
	}
	into := b.memory.take()
	p.blocks = append(p.blocks, into)
	return into
}

func (b *Body) receive(p *part, into *block, n int) {
	if n <= 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	into.filled += n
	p.received += int64(n)
	b.received += int64(n)
	p.at, p.mark = time.Now(), b.received
	if len(b.parts) > 0 && p == b.parts[0] {
		b.wakeUp()
	}
}

// deliver moves what is here of a part to the reader.
func (b *Body) deliver(p *part, into []byte) (n int) {
	for len(p.blocks) > 0 && n < len(into) {
		from := p.blocks[0]
		k := copy(into[n:], from.data[from.read:from.filled])
		from.read += k
		n += k
		if from.read < from.filled {
			break
		}
		if from.filled < blockSize && !p.finished {
			break // more comes into it
		}
		p.blocks = p.blocks[1:]
		b.giveBack(p, from)
	}
	p.first += int64(n)
	b.pos += int64(n)
	return n
}

// giveBack ends the use of a block.
func (b *Body) giveBack(p *part, used *block) {
	b.memory.give(used)
	p.reserved -= blockSize
	b.memory.release(blockSize)
}

// free ends the use of all that a part has of memory. Its goroutine must have
// finished: it may be writing into a block.
func (b *Body) free(p *part) {
	for _, used := range p.blocks {
		b.giveBack(p, used)
	}
	p.blocks = nil
	b.memory.release(p.reserved)
	p.reserved = 0
}

// giveUp ends the fetching of a part.
func (b *Body) giveUp(p *part, why error) {
	if p.err == nil {
		p.err = why
	}
	p.cancel()
}
