package cache

import (
	"context"
	"sync"

	"github.com/opencontainers/go-digest"
)

// maxUnreadable bounds the memory of blobs that cannot be read: about 200
// bytes each. Of a disk with more than these, nothing is left anyway.
const maxUnreadable = 10_000

// unreadable are blobs that cannot be read and cannot be set aside either. As
// long as they are in here they are not there.
type unreadable struct {
	mu    sync.Mutex // guards blobs
	blobs map[digest.Digest]bool
}

func (u *unreadable) has(dgst digest.Digest) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.blobs[dgst]
}

func (u *unreadable) add(dgst digest.Digest) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.blobs == nil {
		u.blobs = map[digest.Digest]bool{}
	}
	if len(u.blobs) < maxUnreadable {
		u.blobs[dgst] = true
	}
}

func (u *unreadable) clear() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.blobs = nil
}

func (u *unreadable) forget(dgst digest.Digest) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.blobs, dgst)
}

// noteUnreadable has a blob not be there, though something is in its place.
func (s *Store) noteUnreadable(dgst digest.Digest) {
	s.unreadable.add(dgst)
	s.exposures.setLost(dgst, true)
}

// noteReadable is for a blob that was published anew.
func (s *Store) noteReadable(dgst digest.Digest) {
	s.unreadable.forget(dgst)
	s.exposures.setLost(dgst, false)
}

// noteFailure has a blob whose bytes are lost be set aside, so that the next who
// asks gets it from upstream. Other errors of reading do not count.
func (b *Blob) noteFailure(err error) {
	if !isUnreadable(err) || b.store.unreadable.has(b.digest) {
		return
	}
	ctx := context.Background() // a Read has none
	if derr := b.store.Damaged(ctx, b.digest, err); derr != nil {
		b.store.noteUnreadable(b.digest)
		b.store.noteDisk(ctx, err, 0)
	}
}
