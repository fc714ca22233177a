package cache

import (
	"maps"
	"slices"
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

// usesBatch is how many blobs share a transaction of writeUses. A transaction writes
// the pages that it changes anew, and leaves as much room unused in the file.
const usesBatch = 1000

// writeUses moves the uses to the index. They are worth little: if that fails they
// are lost.
func (s *Store) writeUses() {
	tags, blobs, right := s.uses.take()
	dgsts := slices.AppendSeq(slices.Collect(maps.Keys(blobs)), maps.Keys(right))
	slices.Sort(dgsts) // as the index is
	dgsts = slices.Compact(dgsts)
	err := s.writeTagUses(tags)
	for some := range slices.Chunk(dgsts, usesBatch) {
		if err != nil {
			break
		}
		err = s.writeBlobUses(some, blobs, right)
	}
	if err != nil {
		s.logger.Warn("last uses not written", "tags", len(tags), "blobs", len(dgsts), "err", err)
	}
}

func (s *Store) writeTagUses(tags map[string]time.Time) error {
	if len(tags) == 0 {
		return nil
	}
	return s.index.change(func(tx *bolt.Tx) error {
		for name, used := range tags {
			if err := useTag(tx, name, used); err != nil {
				return err
			}
		}
		return nil
	})
}

// writeBlobUses notes the uses of some blobs, but those that are gone, in one
// transaction.
func (s *Store) writeBlobUses(dgsts []digest.Digest, blobs map[digest.Digest]time.Time, right map[digest.Digest]verified) error {
	sizes := map[digest.Digest]int64{}
	for _, dgst := range dgsts {
		if fi, err := s.stat(dgst); err == nil {
			sizes[dgst] = fi.Size()
		}
	}
	if len(sizes) == 0 {
		return nil
	}
	return s.index.change(func(tx *bolt.Tx) error {
		for _, dgst := range dgsts {
			size, isThere := sizes[dgst]
			if !isThere {
				continue
			}
			r := blobIn(tx, dgst)
			if v, ok := right[dgst]; ok {
				r.Size, r.Verified = v.size, later(r.Verified, v.at)
			} else if !r.IsMeasured() { // else it was measured when it was published
				r.Size = size
			}
			r.Used = later(r.Used, blobs[dgst].Truncate(time.Second)) // nobody needs more of it
			if err := putRecord(tx, blobsBucket, dgst.String(), r); err != nil {
				return err
			}
		}
		return nil
	})
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
