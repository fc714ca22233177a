package remotes

import (
	"sync"

	"github.com/opencontainers/go-digest"
)

// holds keep digests from a removal that runs. A removal decides what is
// needed first and deletes then; what a pull took into use in between would be
// lost under it. It is safe for concurrent use.
type holds struct {
	mu       sync.Mutex
	removals int                   // that run
	held     map[digest.Digest]int // by pulls; 0: let go, or served, while a removal runs
}

func newHolds() *holds { return &holds{held: map[digest.Digest]int{}} }

// take holds a digest until release is called, and beyond that until the
// removals that run now are over.
func (h *holds) take(dgst digest.Digest) (release func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held[dgst]++
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
	defer h.mu.Unlock()
	if h.removals > 0 {
		h.held[dgst] += 0 // present is enough
	}
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

// unlessHeld runs remove if the digest is not held. Who takes it meanwhile
// waits, and then sees that it is gone.
func (h *holds) unlessHeld(dgst digest.Digest, remove func() error) (removed bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.held[dgst]; ok {
		return false, nil
	}
	err = remove()
	return err == nil, err
}

// grip is what one pull holds. It is not for concurrent use.
type grip struct {
	holds    *holds
	releases []func()
}

// hold keeps a digest from being removed until release.
func (g *grip) hold(dgst digest.Digest) { g.releases = append(g.releases, g.holds.take(dgst)) }

func (g *grip) release() {
	for _, release := range g.releases {
		release()
	}
}
