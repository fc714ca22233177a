package cache

import (
	"context"
	"sync"

	"github.com/opencontainers/go-digest"
)

// holds keep digests from a removal that runs. A removal decides what is
// needed first and deletes then; what a pull took into use in between would be
// lost under it. It is safe for concurrent use.
type holds struct {
	kept func(digest.Digest) bool // says what may not be removed beyond that

	mu       sync.Mutex
	removals int                             // that run
	held     map[digest.Digest]int           // by pulls; 0: let go, or served, while a removal runs
	open     map[digest.Digest]int           // Blobs that are read
	going    map[digest.Digest]chan struct{} // that are removed just now; closed when they are
}

func newHolds(kept func(digest.Digest) bool) *holds {
	return &holds{kept: kept, held: map[digest.Digest]int{}, open: map[digest.Digest]int{}, going: map[digest.Digest]chan struct{}{}}
}

// enter counts with a digest, and waits for the end of its removal if one has
// begun: whoever comes then sees that it is gone.
func (h *holds) enter(dgst digest.Digest, count func()) {
	h.mu.Lock()
	count()
	gone := h.going[dgst]
	h.mu.Unlock()
	if gone != nil {
		<-gone
	}
}

// take holds a digest until release is called, and beyond that until the
// removals that run now are over.
func (h *holds) take(dgst digest.Digest) (release func()) {
	h.enter(dgst, func() { h.held[dgst]++ })
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.held[dgst]--; h.held[dgst] == 0 && h.removals == 0 {
			delete(h.held, dgst)
		}
	}
}

// note keeps what is served now from the removals that run.
func (h *holds) note(dgst digest.Digest) {
	h.mu.Lock()
	if h.removals == 0 && len(h.going) == 0 { // it is asked at every request
		h.mu.Unlock()
		return
	}
	h.mu.Unlock()
	h.enter(dgst, func() {
		if h.removals > 0 {
			h.held[dgst] += 0 // present is enough
		}
	})
}

// removing reports whether a removal runs.
func (h *holds) removing() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.removals > 0
}

// has reports whether a pull holds the digest.
func (h *holds) has(dgst digest.Digest) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.held[dgst] > 0
}

// begin starts a removal. It must come before the removal looks at what is
// needed.
func (h *holds) begin() (end func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.removals++
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.removals--; h.removals > 0 {
			return
		}
		for dgst, n := range h.held {
			if n == 0 {
				delete(h.held, dgst)
			}
		}
	}
}

// read counts one who reads a blob, or is about to open it, until done is called.
func (h *holds) read(dgst digest.Digest) (done func()) {
	h.enter(dgst, func() { h.open[dgst]++ })
	return sync.OnceFunc(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.open[dgst]--; h.open[dgst] == 0 {
			delete(h.open, dgst)
		}
	})
}

// isBusy reports whether a digest is held or read.
func (h *holds) isBusy(dgst digest.Digest) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, held := h.held[dgst]
	return held || h.open[dgst] > 0
}

// isRead reports whether a blob is read.
func (h *holds) isRead(dgst digest.Digest) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.open[dgst] > 0
}

// unlessBusy is unlessHeld for who does not delete under readers either.
func (h *holds) unlessBusy(dgst digest.Digest, remove func() error) (removed bool, err error) {
	return h.unless(dgst, func() bool { return h.open[dgst] > 0 }, remove)
}

// unlessHeld runs remove if the digest is not held. Who takes it meanwhile
// waits, and then sees that it is gone; nobody else does: to unlink a large file
// takes some file systems seconds.
func (h *holds) unlessHeld(dgst digest.Digest, remove func() error) (removed bool, err error) {
	return h.unless(dgst, func() bool { return false }, remove)
}

func (h *holds) unless(dgst digest.Digest, busy func() bool, remove func() error) (removed bool, err error) {
	h.mu.Lock()
	for h.going[dgst] != nil {
		other := h.going[dgst]
		h.mu.Unlock()
		<-other
		h.mu.Lock()
	}
	if _, held := h.held[dgst]; held || busy() || h.kept(dgst) {
		h.mu.Unlock()
		return false, nil
	}
	gone := make(chan struct{})
	h.going[dgst] = gone
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.going, dgst)
		close(gone)
	}()
	err = remove()
	return err == nil, err
}

// Hold keeps a blob from being removed until release is called, and beyond that
// until the removals that run now are over. The blob need not be there yet.
func (s *Store) Hold(dgst digest.Digest) (release func()) { return s.holds.take(dgst) }

// Removing reports whether a removal runs.
func (s *Store) Removing() bool { return s.holds.removing() }

// IsHeld reports whether somebody holds a blob.
func (s *Store) IsHeld(dgst digest.Digest) bool { return s.holds.has(dgst) }

// NoteServed keeps what is served now from the removals that run.
func (s *Store) NoteServed(dgst digest.Digest) { s.holds.note(dgst) }

// BeginRemoval must come before a removal looks at what is needed: what is
// served or held from now on until end is not deleted by DeleteUnlessHeld.
func (s *Store) BeginRemoval() (end func()) { return s.holds.begin() }

// DeleteUnlessHeld is Delete for a removal. It reports false, and deletes
// nothing, if somebody holds the blob.
func (s *Store) DeleteUnlessHeld(ctx context.Context, dgst digest.Digest) (deleted bool, _ error) {
	return s.holds.unlessHeld(dgst, func() error { return s.Delete(ctx, dgst) })
}

// DeleteLinkUnlessHeld is DeleteLink for a removal that leaves the manifest, as
// DeleteUnlessHeld is for one that does not.
func (s *Store) DeleteLinkUnlessHeld(repository string, dgst digest.Digest) (deleted bool, _ error) {
	return s.holds.unlessHeld(dgst, func() error { return s.DeleteLink(repository, dgst) })
}
