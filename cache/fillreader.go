package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

// FillReader reads the growing file of a fill from any offset; a read ahead
// of the fill waits. It implements io.ReadSeekCloser. One goroutine may use
// it at a time.
type FillReader struct {
	fill *Fill
	off  int64

	// For a fill that keeps a window, whose mu guards them: from where the reader
	// reads, since when, and why it may not go on, if so.
	at   int64
	took time.Time
	cut  error

	generation int  // of the bytes that look allowed last
	read       bool // bytes of it were handed out

	left  chan struct{} // closed when the reader's context ends
	cause error         // why it ended; set before
	leave func() bool   // stops waiting for that
	once  sync.Once
}

// NewReader returns a reader at offset 0, also before there are bytes. When ctx
// ends, a waiting Read returns. Close it: the fill's bytes stay as long as one
// reader does. If the fill is over it returns the fill's error, or
// errdefs.ErrAlreadyExists: open the blob. If the disk does not take the blob,
// and its first bytes are no longer kept, it returns errdefs.ErrUnavailable: a
// new fill has them.
func (f *Fill) NewReader(ctx context.Context) (*FillReader, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.err != nil && (!f.verified || !f.keeps(0)):
		return nil, f.err
	case f.done && f.err == nil && f.file == nil:
		return nil, fmt.Errorf("blob %s: %w", f.digest, errdefs.ErrAlreadyExists)
	case f.window != nil && !f.keeps(0):
		return nil, fmt.Errorf("read %s: %w", f.digest, behindError(0, f.window.base))
	}
	r := &FillReader{fill: f, generation: f.generation, left: make(chan struct{}), took: time.Now()}
	f.readers[r], f.joined = true, true
	f.notice()
	r.leave = context.AfterFunc(ctx, func() {
		r.cause = context.Cause(ctx)
		close(r.left)
	})
	return r, nil
}

// Fill returns what is read.
func (r *FillReader) Fill() *Fill { return r.fill }

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
		v, err := r.look(p)
		if err != nil {
			return 0, err
		}
		if v.copied > 0 {
			return v.copied, nil
		}
		if r.off < v.end {
			n, err := r.readAt(v.file, p[:min(int64(len(p)), v.end-r.off)])
			if err != nil {
				r.fill.turnAway()
			}
			if n > 0 || err != nil {
				return n, err
			}
			continue // the bytes were thrown away meanwhile
		}
		select {
		case <-v.changed:
		case <-r.left:
			return 0, fmt.Errorf("read %s at %d: %w", r.fill.digest, r.off, r.cause)
		}
	}
}

// view is what a reader may read now: some bytes that were copied from the
// fill's window, or else those of file up to end.
type view struct {
	copied  int
	file    File
	end     int64
	changed <-chan struct{} // closed when there is more
}

// look returns what the reader may read now, and copies it to p if it is in
// memory, or says why the reader may not go on.
func (r *FillReader) look(p []byte) (v view, _ error) {
	f := r.fill
	f.mu.Lock()
	defer f.mu.Unlock()
	end := f.readable()
	switch {
	case r.read && r.generation != f.generation:
		return v, fmt.Errorf("read %s at %d: earlier bytes were wrong: %w", f.digest, r.off, errdefs.ErrDataLoss)
	case f.verified && r.off >= end:
		return v, io.EOF
	case f.err != nil && !f.verified:
		return v, fmt.Errorf("read %s at %d: %w", f.digest, r.off, f.err)
	case r.cut != nil:
		return v, fmt.Errorf("read %s at %d: %w", f.digest, r.off, r.cut)
	}
	r.generation = f.generation
	v = view{file: f.file, end: end, changed: f.changed}
	w := f.window
	if w == nil {
		return v, nil
	}
	if r.at != r.off { // it was moved by Seek
		r.at, r.took = r.off, time.Now()
		f.notice()
	}
	switch {
	case r.off < f.received && !f.keeps(r.off):
		r.cut = behindError(r.off, w.base)
		return v, fmt.Errorf("read %s at %d: %w", f.digest, r.off, r.cut)
	case r.off < w.start:
		v.end = min(end, w.start)
	case r.off < end:
		v.copied = w.readAt(p[:min(int64(len(p)), end-r.off)], r.off)
		r.advance(v.copied)
	}
	return v, nil
}

// advance moves the reader on. The fill's mu is held.
func (r *FillReader) advance(n int) {
	r.off += int64(n)
	r.read = r.read || n > 0
	if r.fill.window != nil && n > 0 {
		r.at, r.took = r.off, time.Now()
		r.fill.notice()
	}
}

// readAt reads from the file, and looks again before it hands the bytes out:
// they may have been thrown away, or the file have shrunk, in between. It
// returns 0 and no error if so.
func (r *FillReader) readAt(file File, p []byte) (int, error) {
	f := r.fill
	n, err := file.ReadAt(p, r.off)
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.generation != f.generation || f.err != nil && !f.verified || r.cut != nil {
		return 0, nil
	}
	at := r.off
	r.advance(n)
	if n > 0 {
		return n, nil // an error comes again
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // somebody else shortened the file
	}
	if err != nil {
		err = fmt.Errorf("read %s at %d: %w", f.digest, at, err)
	}
	return 0, err
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
		delete(r.fill.readers, r)
		r.fill.notice()
		r.fill.mu.Unlock()
		r.fill.closeIfUnused()
	})
	return nil
}
