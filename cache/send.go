package cache

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// sendPiece is how many bytes the kernel is given at a time: enough that a system
	// call is cheap, and few enough that another goroutine's turn comes soon.
	sendPiece = 1 << 20
	// sendersPerCore bounds how many pieces are mapped at a time: a thread that sends
	// is no longer counted by Go's scheduler after a while, and hundreds can be at it.
	// With one a core most is copied, which costs 8 streams a tenth.
	sendersPerCore = 2
	// copiedPiece is how many bytes are sent by way of a buffer while those are at it.
	copiedPiece = 32 << 10
)

// SendAt has the kernel copy up to n bytes, from off on, out of its page cache into
// a socket that does not block, and returns how many it took. That saves the copy
// into a buffer of ours, and unlike sendfile(2) it leaves the bytes in the cache of
// the processor that hands them to the receiver. While many others do the same, it
// goes by way of a buffer, and waits for none of them: the disk may hang.
//
// Errors are the socket's, EAGAIN if it is full, or errors.ErrUnsupported: the blob
// cannot be sent so, or not any more. ReadAt gives its bytes then, or says why it
// does not. One goroutine at a time may send.
func (b *Blob) SendAt(fd int, off, n int64) (int, error) {
	if off < 0 || n < 1 || off > b.size-n {
		return 0, fmt.Errorf("send %s: %d bytes at %d of %d: %w", b.digest, n, off, b.size, errors.ErrUnsupported)
	}
	m, err := b.mapped()
	if err != nil {
		return 0, err
	}
	select {
	case b.store.senders <- struct{}{}:
		defer func() { <-b.store.senders }()
	default:
		return b.sendCopy(fd, off, min(n, copiedPiece))
	}
	sent, err := m.send(fd, off, min(n, sendPiece))
	if errors.Is(err, syscall.EFAULT) {
		m.broken = true
		return 0, fmt.Errorf("send %s at %d: a page cannot be read: %w", b.digest, off, errors.ErrUnsupported)
	}
	return sent, err
}

// sendCopy sends by way of a buffer.
func (b *Blob) sendCopy(fd int, off, n int64) (int, error) {
	buf := b.store.buffers.take()
	defer b.store.buffers.give(buf)
	got, err := b.ReadAt((*buf)[:n], off)
	if got == 0 {
		return 0, fmt.Errorf("send %s at %d: %w: %w", b.digest, off, errors.ErrUnsupported, err)
	}
	return write(fd, (*buf)[:got])
}

// mapped maps the whole blob at the first call.
func (b *Blob) mapped() (*mapping, error) {
	if b.mapping == nil {
		b.mapping = b.newMapping()
	}
	if b.mapping.broken {
		return nil, fmt.Errorf("send %s: it cannot be mapped: %w", b.digest, errors.ErrUnsupported)
	}
	return b.mapping, nil
}

// mapping is a file in the process's memory that only the kernel may read. A page
// that the disk does not give makes a system call fail with EFAULT; a program that
// touches it is killed by SIGBUS. Its bytes therefore never leave this type.
type mapping struct {
	data   []byte
	broken bool // it is not to be used
}

// newMapping maps a blob of the machine's own file system. No page of it is resident
// until it is sent.
func (b *Blob) newMapping() *mapping {
	m := &mapping{broken: true}
	conn, err := b.SyscallConn()
	if err != nil || b.size != int64(int(b.size)) {
		return m
	}
	_ = conn.Control(func(fd uintptr) {
		if m.data, err = unix.Mmap(int(fd), 0, int(b.size), unix.PROT_READ, unix.MAP_SHARED); err != nil {
			return
		}
		m.broken = false
		// What is not in memory is read ahead as by read(2). It is an advice.
		_ = unix.Madvise(m.data, unix.MADV_SEQUENTIAL)
	})
	return m
}

// mapUnit is what a page table maps, on most machines. The kernel maps pages around
// the one that is wanted, and never beyond this.
const mapUnit = 2 << 20

// send writes a piece. Its pages are not the process's any longer when it returns,
// so that those who send at the same time, and not those who wait for a client,
// count into resident memory.
func (m *mapping) send(fd int, off, n int64) (int, error) {
	sent, err := write(fd, m.data[off:off+n])
	first, end := off&^(mapUnit-1), (off+n+mapUnit-1)&^(mapUnit-1)
	_ = unix.Madvise(m.data[first:min(end, int64(len(m.data)))], unix.MADV_DONTNEED) // of a file's pages nothing is lost
	return sent, err
}

// write makes no garbage where a socket is full, which is most of the time.
func write(fd int, p []byte) (int, error) {
	for {
		switch n, err := unix.Write(fd, p); {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			return 0, syscall.EAGAIN
		default:
			return max(0, n), os.NewSyscallError("write", err)
		}
	}
}

func (m *mapping) close() {
	if m == nil || m.data == nil {
		return
	}
	m.broken = true
	_ = unix.Munmap(m.data) // it fails for a wrong argument only
	m.data = nil
}
