package cache

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// copyBuffer is how many bytes are copied at a time: by a fill from upstream to
	// the disk, and from the disk into a hash. It is large enough that a syscall a
	// piece is cheap (with 64 KiB a fill takes 7 % more of a processor), and small
	// enough that 100 fills take 38 MiB, with hashBuffers each.
	copyBuffer = 128 << 10
	// warmBuffers is how many that are free keep their memory.
	warmBuffers = 8
)

// buffers are those of what is being copied. Each is used again: many fills at once
// would otherwise leave as much garbage as they take. They are not the heap's, which
// grows to twice what is in use and keeps that for minutes: when fills have ended, the
// memory of all but a few goes back at once. It is safe for concurrent use.
type buffers struct {
	mu     sync.Mutex           // guards what follows
	all    map[*[]byte]struct{} // that are mapped
	free   []*[]byte            // of these; the last warmBuffers are with memory
	closed bool
}

func (b *buffers) take() *[]byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if last := len(b.free) - 1; last >= 0 {
		buf := b.free[last]
		b.free = b.free[:last]
		return buf
	}
	p, err := unix.Mmap(-1, 0, copyBuffer, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil { // too many mappings, for instance
		p = make([]byte, copyBuffer)
		return &p
	}
	if b.all == nil {
		b.all = map[*[]byte]struct{}{}
	}
	b.all[&p] = struct{}{}
	return &p
}

// give takes one back. Nobody may hold a part of it any more: what is in it may be gone
// at once.
func (b *buffers) give(buf *[]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.all[buf]; !ok {
		return // the heap's
	}
	if b.closed {
		_ = b.unmap(buf)
		return
	}
	b.free = append(b.free, buf)
	if cold := len(b.free) - 1 - warmBuffers; cold >= 0 {
		_ = unix.Madvise(*b.free[cold], unix.MADV_DONTNEED) // else it has its memory still
	}
}

// unmap ends a buffer. b.mu is held.
func (b *buffers) unmap(buf *[]byte) error {
	delete(b.all, buf)
	return unix.Munmap(*buf)
}

// close ends the buffers that are free, and each that is not when it is given back.
func (b *buffers) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	var errs []error
	for _, buf := range b.free {
		errs = append(errs, b.unmap(buf))
	}
	b.free = nil
	return errors.Join(errs...)
}
