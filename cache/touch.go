package cache

import (
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// usesInterval is how long uses are kept in memory before they are written.
const usesInterval = time.Minute

// uses are the last uses of tags and blobs that the index does not have yet,
// and which blobs were verified. It holds at most one entry of a kind for each
// tag and blob that was served or verified in the last usesInterval.
type uses struct {
	mu     sync.Mutex // guards what follows; nothing is done under it but that
	tags   map[string]time.Time
	blobs  map[digest.Digest]time.Time
	right  map[digest.Digest]verified
	timer  *time.Timer // runs from the first use to the write; nil between
	closed bool
}

// Touch notes that a tag and a blob were used now. Either may be empty. It
// costs a map entry: the index is written once a minute, and at Close.
func (s *Store) Touch(tagName string, dgst digest.Digest) {
	now := s.now()
	u := &s.uses
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.begin(s) {
		return
	}
	if tagName != "" {
		u.tags[tagName] = now
	}
	if dgst != "" {
		u.blobs[dgst] = now
	}
}

// verified says when a blob was last read right, and what size it had then.
type verified struct {
	at   time.Time
	size int64
}

// noteVerified notes that a blob was read right.
func (s *Store) noteVerified(dgst digest.Digest, v verified) {
	u := &s.uses
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.begin(s) {
		u.right[dgst] = v
	}
}

// begin makes room for an entry, and has it written in a while. It reports
// false after Close. u.mu is held.
func (u *uses) begin(s *Store) bool {
	if u.closed {
		return false
	}
	if u.tags == nil {
		u.tags, u.blobs, u.right = map[string]time.Time{}, map[digest.Digest]time.Time{}, map[digest.Digest]verified{}
	}
	if u.timer == nil {
		u.timer = time.AfterFunc(usesInterval, s.writeUses)
	}
	return true
}

// verified is when a blob was last read right; not ok if the index knows it
// better.
func (u *uses) verified(dgst digest.Digest) (v verified, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	v, ok = u.right[dgst]
	return v, ok
}

func (u *uses) tag(name string) time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.tags[name]
}

func (u *uses) blob(dgst digest.Digest) time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.blobs[dgst]
}

// take returns the uses and begins anew.
func (u *uses) take() (tags map[string]time.Time, blobs map[digest.Digest]time.Time, right map[digest.Digest]verified) {
	u.mu.Lock()
	defer u.mu.Unlock()
	tags, blobs, right = u.tags, u.blobs, u.right
	u.tags, u.blobs, u.right = nil, nil, nil
	if u.timer != nil {
		u.timer.Stop()
		u.timer = nil
	}
	return tags, blobs, right
}

// writeUses moves the uses to the index in one transaction. They are worth
// little: if that fails they are lost.
func (s *Store) writeUses() {
	tags, blobs, right := s.uses.take()
	sizes := map[digest.Digest]int64{}
	for dgst := range blobs {
		if fi, err := s.stat(dgst); err == nil {
			sizes[dgst] = fi.Size()
		}
	}
	for dgst := range right {
		if has, err := s.Has(dgst); !has || err != nil {
			delete(right, dgst)
		}
	}
	if len(tags) == 0 && len(sizes) == 0 && len(right) == 0 {
		return
	}
	err := s.index.change(func(tx *bolt.Tx) error {
		for name, used := range tags {
			if err := useTag(tx, name, used); err != nil {
				return err
			}
		}
		for dgst, size := range sizes {
			f := blobIn(tx, dgst)
			if !f.IsMeasured() { // else it was measured when it was published
				f.Size = size
			}
			f.Used = later(f.Used, blobs[dgst])
			if err := putRecord(tx, blobsBucket, dgst.String(), f); err != nil {
				return err
			}
		}
		for dgst, v := range right {
			f := blobIn(tx, dgst)
			f.Size, f.Verified = v.size, later(f.Verified, v.at)
			if err := putRecord(tx, blobsBucket, dgst.String(), f); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.logger.Warn("last uses not written", "tags", len(tags), "blobs", len(sizes), "verified", len(right), "err", err)
	}
}

// useTag changes a tag that is there. A use makes none.
func useTag(tx *bolt.Tx, name string, used time.Time) error {
	t, ok := decodeTag(tx, name)
	if !ok {
		return nil
	}
	t.Used = later(t.Used, used)
	return putRecord(tx, tagsBucket, name, t)
}

// closeUses writes what is left and takes no more.
func (s *Store) closeUses() {
	s.uses.mu.Lock()
	s.uses.closed = true
	s.uses.mu.Unlock()
	s.writeUses()
}
