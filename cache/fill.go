package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// HoldBack is how many bytes at the end of a running fill its readers do not
// get until the digest matched. Blobs up to this size are therefore verified
// before their first byte is handed out.
const HoldBack = 1 << 20

// Fill is one running fetch of one blob, shared by all who want it. Make
// readers with NewReader.
type Fill struct {
	store  *Store
	digest digest.Digest
	origin Origin
	hint   int64 // the size as a manifest gave it, -1 if none did
	cancel context.CancelCauseFunc

	mu         sync.Mutex
	changed    chan struct{} // closed, and replaced, at every change of what follows
	file       File          // the ingest's data; nil until it is open
	size       int64         // of the whole blob as announced; -1 while unknown
	received   int64         // bytes in file and window
	generation int           // counts how often the bytes were thrown away
	answered   bool          // an upstream began to send, or nothing was missing
	verified   bool          // size and digest matched: every byte may be read
	done       bool          // published, or failed with err
	err        error
	readers    map[*FillReader]bool // open ones; the last one out closes file
	releaseRef func()               // frees the ingest; nil if it is not held
	shared     bool                 // somebody joined it besides who began it
	abandoned  bool                 // see Abandon

	// What follows is set once the disk does not take the bytes: see passThrough.
	unstored error         // why; the blob will not be published
	window   *window       // what is kept in memory instead
	claimed  int64         // of Store.windows
	joined   bool          // there was a reader
	moved    chan struct{} // has a token when a reader took something, came or left
}

// Fill joins the running fill of a blob, or starts one from src. hint is the
// blob's size as a manifest gave it, -1 if none did. It returns
// errdefs.ErrAlreadyExists if the blob is published: open that.
//
// The fill keeps the values of ctx but not its end.
func (s *Store) Fill(ctx context.Context, dgst digest.Digest, hint int64, src Source) (_ *Fill, started bool, _ error) {
	return s.FillFor(ctx, Origin{}, dgst, hint, src)
}

// FillFor is Fill for a repository. It joins a running fill of whatever
// origin: whether its bytes may be handed out, Fill.Origin lets the caller
// decide.
func (s *Store) FillFor(ctx context.Context, origin Origin, dgst digest.Digest, hint int64, src Source) (_ *Fill, started bool, _ error) {
	return s.joinFill(ctx, origin, dgst, hint, src, func(*Fill) error { return nil })
}

// OpenFill is FillFor with a reader: see NewReader. No byte comes before the
// reader is there, so that it gets all of them also if the disk takes none. When
// reading ends, a waiting Read returns.
func (s *Store) OpenFill(ctx, reading context.Context, origin Origin, dgst digest.Digest, hint int64, src Source) (r *FillReader, started bool, err error) {
	_, started, err = s.joinFill(ctx, origin, dgst, hint, src, func(f *Fill) (err error) {
		r, err = f.NewReader(reading)
		return err
	})
	return r, started, err
}

// joinFill calls join with the fill before another byte of it comes.
func (s *Store) joinFill(ctx context.Context, origin Origin, dgst digest.Digest, hint int64, src Source, join func(*Fill) error) (_ *Fill, started bool, _ error) {
	if _, err := s.blobPath(dgst); err != nil {
		return nil, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false, errClosed
	}
	if f, ok := s.fills[dgst]; ok {
		f.noteShared()
		return f, false, join(f)
	}
	// Under the lock, so that a fill that has just published and left the
	// table is seen here. A stat is the only I/O under this lock. A disk that
	// cannot tell is no reason to fail: the fill will see.
	if has, err := s.Has(dgst); has && err == nil {
		return nil, false, fmt.Errorf("blob %s: %w", dgst, errdefs.ErrAlreadyExists)
	}
	f := s.newFill(origin, dgst, hint)
	if err := join(f); err != nil {
		return nil, false, err
	}
	s.fills[dgst] = f
	f.begin(ctx, src)
	return f, true, nil
}

// AwaitFill waits for the running fill of a blob as one who reads it does, so that
// nobody abandons it meanwhile, and returns as Fill.WaitMoving does. It begins none, and
// returns errdefs.ErrNotFound if none runs.
func (s *Store) AwaitFill(ctx context.Context, dgst digest.Digest, moved func()) error {
	s.mu.Lock()
	f, ok := s.fills[dgst]
	if !ok {
		s.mu.Unlock()
		return fmt.Errorf("wait for %s: no fill of it runs: %w", dgst, errdefs.ErrNotFound)
	}
	f.noteShared()
	r, err := f.NewReader(ctx)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return errors.Join(f.WaitMoving(ctx, moved), r.Close())
}

// FillProgress is that of the running fill of a blob, which nobody joins by it.
func (s *Store) FillProgress(dgst digest.Digest) (p Progress, ok bool) {
	s.mu.Lock()
	f, ok := s.fills[dgst]
	s.mu.Unlock()
	if ok {
		p, _ = f.Progress()
	}
	return p, ok
}

// noteShared notes that a fill is no longer its beginner's alone.
func (f *Fill) noteShared() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shared = true
}

func (s *Store) newFill(origin Origin, dgst digest.Digest, hint int64) *Fill {
	return &Fill{
		store: s, digest: dgst, origin: origin, hint: hint, size: -1,
		changed: make(chan struct{}), readers: map[*FillReader]bool{}, moved: make(chan struct{}, 1),
	}
}

// begin runs the fill. s.mu is held.
func (f *Fill) begin(ctx context.Context, src Source) {
	// The one place where work is cut loose from the client that caused it:
	// the next client wants these bytes too. Close and the policy end it.
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	f.cancel = cancel
	f.store.fillers.Add(1)
	go func() {
		defer f.store.fillers.Done()
		defer cancel(nil)
		f.run(ctx, src)
	}()
}

// Digest returns the digest of the blob that is being filled.
func (f *Fill) Digest() digest.Digest { return f.digest }

// Origin returns for whom the fill was started.
func (f *Fill) Origin() Origin { return f.origin }

// Progress is how far a fill is.
type Progress struct {
	// Size of the whole blob in bytes, -1 while unknown. Received is how
	// many of them have come.
	Size, Received int64
	// Answered says that an upstream has begun to send, or that nothing was missing.
	Answered bool
	// Unstored says why the disk does not take the blob, nil if it does. The
	// fill serves its readers all the same.
	Unstored error
	// Done is set at the end; Err says why it failed, nil if published.
	Done bool
	Err  error
}

// Progress returns how far the fill is, and a channel that is closed when
// that changes.
func (f *Fill) Progress() (Progress, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := Progress{Size: f.size, Received: f.received, Answered: f.answered, Unstored: f.unstored, Done: f.done, Err: f.err}
	if p.Size < 0 {
		p.Size = f.hint
	}
	return p, f.changed
}

// Wait returns when the blob is published, with an error as soon as it is
// certain that it will not be, or with the context's.
func (f *Fill) Wait(ctx context.Context) error { return f.WaitMoving(ctx, func() {}) }

// WaitMoving is Wait that calls moved each time that something has come, or changed, once
// an upstream has begun to send.
func (f *Fill) WaitMoving(ctx context.Context, moved func()) error {
	for {
		p, changed := f.Progress()
		if p.Answered {
			moved()
		}
		if p.Unstored != nil {
			return p.Unstored
		}
		if p.Done {
			return p.Err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", f.digest, context.Cause(ctx))
		}
	}
}

// WaitReadable returns when bytes from offset on can be read, or the fill
// failed, with its error. When ctx ends first it returns nil if an upstream
// has begun to send, since bytes are on their way then, and the context's
// error otherwise.
func (f *Fill) WaitReadable(ctx context.Context, offset int64) error {
	for {
		f.mu.Lock()
		changed, err := f.changed, f.err
		verified, answered := f.verified, f.answered
		ready := f.readable() > offset
		f.mu.Unlock()
		switch {
		case verified:
			return nil
		case err != nil:
			return err
		case ready && answered:
			// Bytes that an earlier fill left are not served before an upstream
			// answers: the client may still go elsewhere.
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if answered {
				return nil
			}
			return fmt.Errorf("wait for %s: upstream has not answered: %w", f.digest, context.Cause(ctx))
		}
	}
}

// readable is how many bytes a reader may have now. f.mu is held.
func (f *Fill) readable() int64 {
	switch {
	case f.verified:
		return f.received
	case f.size >= 0:
		return max(0, min(f.received, f.size-HoldBack))
	default:
		return max(0, f.received-HoldBack)
	}
}

// update changes the state and wakes all who wait for it.
func (f *Fill) update(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	close(f.changed)
	f.changed = make(chan struct{})
}

// finish ends the fill and takes it out of the table, both at once: whoever
// sees the end and asks again gets the blob or a new fill, and before a new
// fill touches the bytes no reader of this one takes them for its own.
func (f *Fill) finish(err error) {
	f.store.mu.Lock()
	f.leaveTable()
	delete(f.store.alone, f)
	f.update(func() { f.done, f.err = true, err })
	f.store.mu.Unlock()
	f.closeIfUnused()
}

// leaveTable has no more clients join, while the fill goes on: Close still has to
// end it. The store's mu is held.
func (f *Fill) leaveTable() {
	if s := f.store; s.fills[f.digest] == f {
		delete(s.fills, f.digest)
		s.alone[f] = true
	}
}

// turnAway has no more clients join a fill whose file could not be read: who asks
// again gets a fill that tries the disk anew, however long this one takes to end.
func (f *Fill) turnAway() {
	s := f.store
	s.mu.Lock()
	defer s.mu.Unlock()
	f.leaveTable()
}

// isFilling reports whether ref is the ingest of a running fill.
func (s *Store) isFilling(ref string) bool {
	dgst, ok := strings.CutPrefix(ref, fillRef)
	s.mu.Lock()
	defer s.mu.Unlock()
	return ok && s.fills[digest.Digest(dgst)] != nil
}

// closeIfUnused lets go of file and window once the fill is over and nobody
// reads it.
func (f *Fill) closeIfUnused() {
	f.mu.Lock()
	if !f.done || len(f.readers) > 0 {
		f.mu.Unlock()
		return
	}
	f.window = nil
	claimed := f.claimed
	f.claimed = 0
	closeFile := f.takeFile()
	f.mu.Unlock()
	f.store.windows.Release(claimed)
	closeFile()
}

// freeRef has others write to the ingest.
func (f *Fill) freeRef() {
	f.mu.Lock()
	release := f.releaseRef
	f.releaseRef = nil
	f.mu.Unlock()
	if release != nil {
		release()
	}
}

// takeFile takes the ingest's data away from the fill. f.mu is held, and must
// not be when what it returns is called.
func (f *Fill) takeFile() (closeFile func()) {
	file, release := f.file, f.releaseRef
	f.file, f.releaseRef = nil, nil
	return func() {
		if file != nil {
			if err := file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
				f.store.logger.Warn("fill: close", "digest", f.digest, "err", err)
			}
		}
		if release != nil {
			release()
		}
	}
}
