package cache

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// passError ends a fill whose bytes the disk does not take and that cannot be
// passed through either. It is no fault of upstream's.
type passError struct{ err error }

func (e *passError) Error() string { return e.err.Error() }
func (e *passError) Unwrap() error { return e.err }

// open claims and opens the fill's ingest. If the disk does not let it, the
// ingest it returns has no file, and the fill passes through.
func (f *Fill) open(ctx context.Context) (*ingest, error) {
	ref := fillRef + f.digest.String()
	none := &ingest{store: f.store, ref: ref, digester: f.digest.Algorithm().Digester()}
	if f.unstored != nil {
		return none, nil //nolint:nilerr // it is to be passed through: see Bypass
	}
	switch err := f.claimRef(ctx, ref); {
	case f.store.isClosed():
		return nil, errClosed
	case err != nil: // readers of an older fill still need that file
		f.passThrough(ctx, none, err)
		return none, nil
	}
	f.mu.Lock()
	f.releaseRef = func() { f.store.releaseRef(ref) }
	f.mu.Unlock()
	in, err := f.openIngest(ctx, ref)
	if isFull(err) && f.store.makeRoom(ctx, max(f.hint, 1<<20)) == nil {
		in, err = f.openIngest(ctx, ref)
	}
	switch {
	case ctx.Err() != nil && err != nil:
		return nil, err
	case err != nil:
		f.passThrough(ctx, none, err)
		return none, nil
	}
	f.update(func() { f.file, f.received = in.file, in.offset })
	return in, nil
}

// refPatience is how long a fill waits for its ingest: a fill that just ended, or
// a sweep, lets go of it at once. Readers who still need its file may not.
const refPatience = 2 * time.Second

func (f *Fill) claimRef(ctx context.Context, ref string) error {
	ctx, cancel := context.WithTimeout(ctx, refPatience)
	defer cancel()
	return f.store.awaitRef(ctx, ref)
}

func (f *Fill) openIngest(ctx context.Context, ref string) (*ingest, error) {
	in, err := f.store.openIngest(ctx, ref, 0, f.digest.Algorithm())
	if err != nil {
		return nil, err
	}
	if err := in.claim(f.origin.owner()); err != nil {
		_ = in.file.Close() // nothing was written; err says more
		f.store.usage.shut(in.dir)
		return nil, err
	}
	return in, nil
}

// passThrough has the fill go on in memory, because of what the disk said. What
// it has written stays readable for its readers; its name goes. The fill leaves
// the table: who asks from now on gets one that tries the disk anew.
func (f *Fill) passThrough(ctx context.Context, in *ingest, cause error) {
	s := f.store
	s.noteDisk(ctx, cause, max(f.size, f.hint)-in.offset)
	s.notePassed()
	s.logger.InfoContext(ctx, "blob is passed through without storing", "digest", f.digest, "offset", in.offset, "err", cause)
	s.mu.Lock()
	f.leaveTable()
	s.mu.Unlock()
	if in.dir != "" {
		in.remove(ctx)
	}
	f.update(func() {
		f.unstored = fmt.Errorf("blob %s is not stored: %w", f.digest, cause)
		f.window = newWindow(in.offset, 0) // bounded once it is known for what: see claim
	})
	if in.offset == 0 {
		f.letGo()
	}
}

// letGo closes the file, which no reader needs.
func (f *Fill) letGo() {
	f.mu.Lock()
	closeFile := f.takeFile()
	f.mu.Unlock()
	closeFile()
}

// claim takes the memory for the window. A blob that is smaller than a window
// takes no more than it has.
func (f *Fill) claim() error {
	if f.claimed > 0 {
		return nil
	}
	size := int64(windowSize)
	if f.size >= 0 {
		size = min(size, max(1, f.size))
	}
	if !f.store.windows.TryAcquire(size) {
		return &passError{fmt.Errorf("%w; too many others are passed through at the time: %w", f.unstored, errdefs.ErrResourceExhausted)}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.claimed, f.window.limit = size, size
	return nil
}

// keep appends to the window. When that is full it waits for the slowest
// reader, with ctx's watchdog on hold.
func (f *Fill) keep(ctx context.Context, in *ingest, p []byte) error {
	if err := f.claim(); err != nil {
		return err
	}
	for len(p) > 0 {
		n := f.push(in, p)
		p = p[n:]
		if n == 0 {
			if err := f.awaitReaders(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// push appends what there is room for, and forgets what no reader needs.
func (f *Fill) push(in *ingest, p []byte) (n int) {
	closeFile := func() {}
	f.update(func() {
		if len(f.readers) > 0 {
			f.window.slide(f.floor(), int64(len(p)))
			if f.file != nil && f.floor() >= f.window.start {
				closeFile = f.takeFile()
			}
		}
		n = f.window.push(p)
		in.skip(p[:n])
		f.received = in.offset
	})
	closeFile()
	return n
}

// floor is where the slowest reader is. One that waits for bytes that have not
// come holds up nobody. f.mu is held.
func (f *Fill) floor() int64 {
	floor := f.received
	for r := range f.readers {
		if r.cut == nil && f.keeps(r.at) {
			floor = min(floor, r.at)
		}
	}
	return floor
}

// keeps reports whether the byte at off can be read, or is still to come. f.mu
// is held.
func (f *Fill) keeps(off int64) bool {
	if f.window == nil || off < f.window.start {
		return f.file != nil || off >= f.received && !f.done
	}
	return off >= f.window.base
}

// notice tells a fill that waits for its readers that one of them moved.
func (f *Fill) notice() {
	select {
	case f.moved <- struct{}{}:
	default:
	}
}

// awaitReaders returns when a reader took enough to make room. It fails when
// there is none to wait for. A reader that takes nothing while others wait for
// more is cut.
func (f *Fill) awaitReaders(ctx context.Context) error {
	defer Hold(ctx)()
	stall := f.store.policy.Stall
	timer := time.NewTimer(stall)
	defer timer.Stop()
	for late := false; ; {
		hasRoom, hasReaders := f.demand()
		switch {
		case hasRoom:
			return nil
		case !hasReaders && (f.joined || late):
			return &passError{fmt.Errorf("%w; nobody reads it: %w", f.unstored, errdefs.ErrUnavailable)}
		}
		select {
		case <-f.moved:
		case <-timer.C:
			late = true
			f.cutSleepers(stall)
			timer.Reset(stall)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// demand reports whether the window can take more, and whether anybody reads.
func (f *Fill) demand() (hasRoom, hasReaders bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.window
	full := w.end-w.base >= w.limit
	return !full || len(f.readers) > 0 && w.base+int64(len(w.chunks[0])) <= f.floor(), len(f.readers) > 0
}

// cutSleepers has the readers fail that hold up others and have taken nothing
// for so long.
func (f *Fill) cutSleepers(stall time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	waits := false
	for r := range f.readers {
		waits = waits || r.cut == nil && r.at >= f.readable()
	}
	if !waits {
		return
	}
	first := f.window.base + int64(len(f.window.chunks[0]))
	for r := range f.readers {
		if r.at < first && time.Since(r.took) >= stall {
			r.cut = fmt.Errorf("took nothing for %s while others wait for more of what is not stored: %w", stall, errdefs.ErrUnavailable)
			f.notice()
		}
	}
}

// Bypass is OpenFill of a blob that is published but cannot be read, for the
// caller alone. Nothing of it is stored; cause says why.
func (s *Store) Bypass(ctx, reading context.Context, origin Origin, dgst digest.Digest, hint int64, src Source, cause error) (*FillReader, error) {
	if _, err := s.blobPath(dgst); err != nil {
		return nil, err
	}
	f := s.newFill(origin, dgst, hint)
	s.notePassed()
	s.logger.InfoContext(ctx, "blob is passed through beside the stored one", "digest", dgst, "err", cause)
	f.unstored = fmt.Errorf("blob %s is not stored anew: %w", dgst, cause)
	f.window = newWindow(0, 0)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	r, err := f.NewReader(reading)
	if err != nil {
		return nil, err
	}
	s.alone[f] = true
	f.begin(ctx, src)
	return r, nil
}
