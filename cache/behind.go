package cache

import "hash"

// behind hashes bytes in a goroutine of its own, in order, so that the next ones are
// received and written meanwhile. It also lends the buffers that they are in, since
// only it knows when one is free again. One goroutine uses it.
type behind struct {
	hash hash.Hash
	work chan hashWork // nil: it hashes at once, and lends one buffer
	free chan []byte
	done chan struct{}
	size int // of a buffer
	left int // buffers that are not made yet
}

// hashWork is some bytes of a buffer, or a buffer that comes back behind all of them.
type hashWork struct{ p, back []byte }

// newBehind begins. Until stop has returned nobody else may use the hash.
func newBehind(h hash.Hash, buffers, size int) *behind {
	b := &behind{hash: h, free: make(chan []byte, buffers), size: size, left: buffers}
	if buffers == 1 {
		return b
	}
	b.work, b.done = make(chan hashWork, 2*buffers), make(chan struct{})
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
func (b *behind) lend() []byte {
	select {
	case buf := <-b.free:
		return buf
	default:
	}
	if b.left > 0 {
		b.left--
		return make([]byte, b.size)
	}
	return <-b.free
}

// write hashes p, which nobody may change until its buffer is lent again.
func (b *behind) write(p []byte) { b.give(hashWork{p: p}) }

// giveBack takes a buffer back.
func (b *behind) giveBack(buf []byte) { b.give(hashWork{back: buf}) }

// stop returns when all is hashed.
func (b *behind) stop() {
	if b.work != nil {
		close(b.work)
		<-b.done
	}
}
