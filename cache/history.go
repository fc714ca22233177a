package cache

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// History is what a tag pointed to, and until when. It outlives the tag.
type History struct {
	// Name is the full reference, for instance docker.io/library/nginx:1.29.
	Name string `json:"name"`
	// Entries are in their order; the newest hundred are kept. The last one of
	// a tag that is stored has not ended.
	Entries []HistoryEntry `json:"entries"`
}

// HistoryEntry says that a tag pointed to a digest for some time.
type HistoryEntry struct {
	Digest digest.Digest `json:"digest"`
	From   time.Time     `json:"from"`
	// Until is zero as long as the tag points there.
	Until time.Time `json:"until,omitzero"`
	Ending
}

// Ending says why a tag no longer points to a digest.
type Ending struct {
	Why Why `json:"why,omitempty"`
	// Detail is more of it, for instance the rule that expired the image.
	Detail string `json:"detail,omitempty"`
}

// Why is the kind of an Ending.
type Why string

// The kinds of an Ending.
const (
	Moved   Why = "moved"   // upstream has something else under the tag
	Removed Why = "removed" // by a person
	Expired Why = "expired" // by a rule of a lifecycle policy
	Evicted Why = "evicted" // for space
)

const (
	// maxEntries bounds a history: a tag that moves every hour has four days.
	maxEntries = 100
	// maxEnded bounds the histories of tags that are gone, some hundred bytes
	// each; those that ended first are forgotten first.
	maxEnded = 10_000
)

func (h *History) open() *HistoryEntry {
	if n := len(h.Entries); n > 0 && h.Entries[n-1].Until.IsZero() {
		return &h.Entries[n-1]
	}
	return nil
}

// end ends what the tag points to, if it points to anything.
func (h *History) end(at time.Time, why Ending) {
	if e := h.open(); e != nil {
		e.Until, e.Ending = at, why
	}
}

func (h *History) begin(dgst digest.Digest, at time.Time) {
	h.Entries = append(h.Entries, HistoryEntry{Digest: dgst, From: at})
	h.Entries = h.Entries[max(0, len(h.Entries)-maxEntries):]
}

// catchUp makes the history end with what is stored: a larder that kept none may
// have changed the tag since.
func (h *History) catchUp(t Tag, stored bool, now time.Time) {
	switch e := h.open(); {
	case !stored && e != nil:
		h.end(now, Ending{Why: Removed})
	case stored && (e == nil || e.Digest != t.Target.Digest):
		since := later(t.Created, t.Moved)
		h.end(since, Ending{Why: Moved})
		h.begin(t.Target.Digest, since)
	}
}

// History returns a tag's history, or errdefs.ErrNotFound if the store
// remembers nothing of it.
func (s *Store) History(name string) (History, error) {
	var h History
	err := s.index.view(func(tx *bolt.Tx) error {
		h = historyOf(tx, name)
		t, stored := decodeTag(tx, name)
		h.catchUp(t, stored, s.now())
		return nil
	})
	if err == nil && len(h.Entries) == 0 {
		err = fmt.Errorf("history of %s: %w", name, errdefs.ErrNotFound)
	}
	return h, err
}

// historyOf decodes a history. A damaged one is begun anew.
func historyOf(tx *bolt.Tx, name string) History {
	var h History
	data := tx.Bucket([]byte(historyBucket)).Get([]byte(name))
	if data == nil || json.Unmarshal(data, &h) != nil {
		h = History{}
	}
	h.Name = name
	return h
}

// noteTarget adds to the history what a tag points to from now on. Nothing is
// written if it points there already: most puts only note a check.
func noteTarget(tx *bolt.Tx, old Tag, stored bool, t Tag, now time.Time) error {
	if stored && old.Target.Digest == t.Target.Digest {
		return nil
	}
	h := historyOf(tx, t.Name)
	wasEnded := endOf(h)
	h.catchUp(old, stored, now)
	at := t.Moved
	if at.IsZero() {
		at = now
	}
	h.end(at, Ending{Why: Moved})
	h.begin(t.Target.Digest, at)
	if err := forgetEnd(tx, t.Name, wasEnded); err != nil {
		return err
	}
	return putRecord(tx, historyBucket, t.Name, h)
}

// noteEnd ends the history of a tag that goes, and forgets the one that ended
// first if there are too many.
func noteEnd(tx *bolt.Tx, name string, old Tag, why Ending, now time.Time) error {
	h := historyOf(tx, name)
	wasEnded := endOf(h)
	h.catchUp(old, true, now)
	h.end(now, why)
	if err := forgetEnd(tx, name, wasEnded); err != nil {
		return err
	}
	if err := putRecord(tx, historyBucket, name, h); err != nil {
		return err
	}
	return rememberEnd(tx, name, endOf(h))
}

// endOf is when a tag went, zero if it has not.
func endOf(h History) time.Time {
	if n := len(h.Entries); n > 0 {
		return h.Entries[n-1].Until
	}
	return time.Time{}
}

// endKey orders histories by their end.
func endKey(name string, at time.Time) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(max(0, at.UnixNano()))), name...)
}

// rememberEnd has the bucket's sequence count its keys: counting them would
// read all of it.
func rememberEnd(tx *bolt.Tx, name string, at time.Time) error {
	ended := tx.Bucket([]byte(endedBucket))
	if err := ended.Put(endKey(name, at), []byte{1}); err != nil {
		return err
	}
	n := ended.Sequence() + 1
	if first, _ := ended.Cursor().First(); n > maxEnded && first != nil {
		n--
		first = bytes.Clone(first) // deletions below may move it
		if err := tx.Bucket([]byte(historyBucket)).Delete(first[8:]); err != nil {
			return err
		}
		if err := ended.Delete(first); err != nil {
			return err
		}
	}
	return ended.SetSequence(n)
}

// forgetEnd is for a tag that is there again.
func forgetEnd(tx *bolt.Tx, name string, at time.Time) error {
	ended, key := tx.Bucket([]byte(endedBucket)), endKey(name, at)
	if at.IsZero() || ended.Get(key) == nil {
		return nil
	}
	if err := ended.Delete(key); err != nil {
		return err
	}
	return ended.SetSequence(ended.Sequence() - 1)
}
