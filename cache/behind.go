package cache

import "hash"

// hashBuffers are a fill's: one is received, one is written, and one hashed.
const hashBuffers = 3

// behind hashes bytes in a goroutine of its own, in order, so that the next ones are
// received and written meanwhile. It also lends the buffers that they are in, since
// only it knows when one is free again. One goroutine uses it.
type behind struct {
	hash  hash.Hash
	from  *buffers
	work  chan hashWork // nil: it hashes at once, and lends one buffer
	free  chan *[]byte
	done  chan struct{}
	taken []*[]byte // from the store's
	left  int       // buffers that may be taken still
}

// hashWork is some bytes of a buffer, or a buffer that comes back behind all of them.
type hashWork struct {
	p    []byte
	back *[]byte
}

// newBehind begins. Until stop has returned nobody else may use the hash.
func newBehind(h hash.Hash, from *buffers, n int) *behind {
	b := &behind{hash: h, from: from, free: make(chan *[]byte, n), left: n}
	if n == 1 {
		return b
	}
	b.work, b.done = make(chan hashWork, 2*n), make(chan struct{})
	go func() {
		defer close(b.done)
		for w := range b.work {
			b.do(w)
		}
	}()
	return b
}

func (b *behind) do(w hashWork) {
	if w.back != nil {
		b.free <- w.back // has room for all there are
		return
	}
	_, _ = b.hash.Write(w.p) // never fails
}

func (b *behind) give(w hashWork) {
	if b.work == nil {
		b.do(w)
		return
	}
	b.work <- w
}

// lend returns a buffer, as soon as one is free. With none given back there are as
// many as newBehind was told.
func (b *behind) lend() *[]byte {
	select {
	case buf := <-b.free:
		return buf
	default:
	}
	if b.left > 0 {
		b.left--
		buf := b.from.take()
		b.taken = append(b.taken, buf)
		return buf
	}
	return <-b.free
}

// write hashes p, which nobody may change until its buffer is lent again.
func (b *behind) write(p []byte) { b.give(hashWork{p: p}) }

// giveBack takes a buffer back.
func (b *behind) giveBack(buf *[]byte) { b.give(hashWork{back: buf}) }

// stop returns when all is hashed. No buffer may be used any more.
func (b *behind) stop() {
	if b.work != nil {
		close(b.work)
		<-b.done
	}
	for _, buf := range b.taken {
		b.from.give(buf)
	}
}
