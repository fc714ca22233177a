package cache

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// maxDamages bounds the record of damages; the oldest go first.
const maxDamages = 1000

// Damage is a blob that was found to be damaged.
type Damage struct {
	Digest digest.Digest `json:"digest"`
	Found  time.Time     `json:"found"`
	// Why says what was wrong with it.
	Why string `json:"why"`
	// Size in bytes of what was found. Source is the upstream that had sent
	// the blob, "" if unknown.
	Size   int64  `json:"size"`
	Source string `json:"source,omitempty"`
	// Kept is the file's name in the quarantine as it was moved there, "" if
	// it could only be removed. It may be purged since.
	Kept string `json:"kept,omitempty"`
	// Back says that the blob is in the store again, From which upstream sent
	// it then. Both are as of the call, and not recorded.
	Back bool   `json:"back"`
	From string `json:"from,omitempty"`
}

// key sorts by time.
func (d Damage) key() string { return d.Found.UTC().Format(quarantineTime) + " " + d.Digest.String() }

// Damages returns the last damages that were found, the oldest first.
func (s *Store) Damages() ([]Damage, error) {
	all, err := records[Damage](s.index, damageBucket)
	if err != nil {
		return nil, err
	}
	for i := range all {
		d := &all[i]
		d.Back, d.From = false, ""
		if has, err := s.Has(d.Digest); err != nil || !has {
			continue
		}
		d.Back = true
		if facts, err := s.Facts(d.Digest); err == nil {
			d.From = facts.Source
		}
	}
	return all, nil
}

// putDamage records a damage, and forgets the facts of the blob that is gone.
// Holders and links stay: their upstreams still have it.
func (x *index) putDamage(d Damage) error {
	data, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode damage: %w", err)
	}
	return x.change(func(tx *bolt.Tx) error {
		damages := tx.Bucket([]byte(damageBucket))
		return errors.Join(
			forgetFacts(tx, d.Digest),
			damages.Put([]byte(d.key()), data),
			trimFirst(damages, maxDamages),
		)
	})
}

// trimFirst deletes the first entries of a bucket that holds more than most.
func trimFirst(b *bolt.Bucket, most int) error {
	var keys [][]byte // deleted behind the walk: a cursor does not bear it
	if err := b.ForEach(func(k, _ []byte) error {
		keys = append(keys, bytes.Clone(k))
		return nil
	}); err != nil {
		return err
	}
	for len(keys) > most {
		if err := b.Delete(keys[0]); err != nil {
			return err
		}
		keys = keys[1:]
	}
	return nil
}
