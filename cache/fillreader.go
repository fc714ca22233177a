package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/containerd/errdefs"
)

// FillReader reads the growing file of a fill from any offset; a read ahead
// of the fill waits. It implements io.ReadSeekCloser. One goroutine may use
// it at a time.
type FillReader struct {
	fill *Fill
	file *os.File
	off  int64

	generation int  // of the bytes that look allowed last
	read       bool // bytes of it were handed out

	left  chan struct{} // closed when the reader's context ends
	cause error         // why it ended; set before
	leave func() bool   // stops waiting for that
	once  sync.Once
}

// NewReader returns a reader at offset 0. When ctx ends, a waiting Read
// returns. Close it: the fill's file stays open as long as one reader is. If
// the fill is over it returns the fill's error, or errdefs.ErrAlreadyExists:
// open the blob.
func (f *Fill) NewReader(ctx context.Context) (*FillReader, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil && (f.file == nil || !f.verified) {
		return nil, f.err
	}
	if f.file == nil && f.done {
		return nil, fmt.Errorf("blob %s: %w", f.digest, errdefs.ErrAlreadyExists)
	}
	if f.file == nil {
		return nil, fmt.Errorf("fill of %s has no bytes yet: %w", f.digest, errdefs.ErrUnavailable)
	}
	f.readers++
	r := &FillReader{fill: f, file: f.file, generation: f.generation, left: make(chan struct{})}
	r.leave = context.AfterFunc(ctx, func() {
		r.cause = context.Cause(ctx)
		close(r.left)
	})
	return r, nil
}

// Size returns the blob's size in bytes, or -1 while it is unknown.
func (r *FillReader) Size() int64 {
	r.fill.mu.Lock()
	defer r.fill.mu.Unlock()
	return r.fill.size
}

// Read returns bytes that are there, waits for some if there are none, and
// returns io.EOF only after the whole blob was verified. If the fill fails it
// returns the fill's error, also for bytes that are on disk: they may be the
// wrong ones.
func (r *FillReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		end, changed, err := r.look()
		if err != nil {
			return 0, err
		}
		if r.off < end {
			n, err := r.readAt(p[:min(int64(len(p)), end-r.off)])
			if n > 0 || err != nil {
				return n, err
			}
			continue // the bytes were thrown away meanwhile
		}
		select {
		case <-changed:
		case <-r.left:
			return 0, fmt.Errorf("read %s at %d: %w", r.fill.digest, r.off, r.cause)
		}
	}
}

// look returns up to where the reader may read now, or why it may not.
func (r *FillReader) look() (end int64, changed <-chan struct{}, _ error) {
	f := r.fill
	f.mu.Lock()
	defer f.mu.Unlock()
	end = f.readable()
	switch {
	case r.read && r.generation != f.generation:
		return 0, nil, fmt.Errorf("read %s at %d: earlier bytes were wrong: %w", f.digest, r.off, errdefs.ErrDataLoss)
	case f.verified && r.off >= end:
		return 0, nil, io.EOF
	case f.err != nil && !f.verified:
		return 0, nil, fmt.Errorf("read %s at %d: %w", f.digest, r.off, f.err)
	}
	r.generation = f.generation
	return end, f.changed, nil
}

// readAt reads from the file, and looks again before it hands the bytes out:
// they may have been thrown away, or the file have shrunk, in between. It
// returns 0 and no error if so.
func (r *FillReader) readAt(p []byte) (int, error) {
	f := r.fill
	n, err := r.file.ReadAt(p, r.off)
	f.mu.Lock()
	stale := r.generation != f.generation || f.err != nil && !f.verified
	f.mu.Unlock()
	if stale {
		return 0, nil
	}
	r.off += int64(n)
	r.read = r.read || n > 0
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // somebody else shortened the file
	}
	if err != nil {
		err = fmt.Errorf("read %s at %d: %w", f.digest, r.off, err)
	}
	return n, err
}

// Seek moves the offset. io.SeekEnd needs a known size.
func (r *FillReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += r.off
	case io.SeekEnd:
		size := r.Size()
		if size < 0 {
			return 0, fmt.Errorf("seek %s from its end: size unknown: %w", r.fill.digest, errdefs.ErrUnavailable)
		}
		offset += size
	default:
		return 0, fmt.Errorf("seek %s: whence %d: %w", r.fill.digest, whence, errdefs.ErrInvalidArgument)
	}
	if offset < 0 {
		return 0, fmt.Errorf("seek %s to %d: %w", r.fill.digest, offset, errdefs.ErrInvalidArgument)
	}
	r.off = offset
	return offset, nil
}

// Close lets go of the fill. The fill goes on.
func (r *FillReader) Close() error {
	r.once.Do(func() {
		r.leave()
		r.fill.mu.Lock()
		r.fill.readers--
		r.fill.mu.Unlock()
		r.fill.closeIfUnused()
	})
	return nil
}
