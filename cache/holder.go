package cache

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// Origin says for whom a blob is fetched.
type Origin struct {
	// Repository is recorded as a holder of the blob, once it is verified. Empty:
	// none is.
	Repository string
	// Private keeps bytes that are not verified yet with this repository: a
	// fill for another one does not go on from them.
	Private bool
}

// owner is whom an unfinished ingest of this origin belongs to; "" is nobody
// in particular.
func (o Origin) owner() string {
	if o.Private {
		return o.Repository
	}
	return ""
}

// Holder says that an upstream of a repository has a blob: it sent the bytes, or
// has shown that it could.
type Holder struct {
	Digest     digest.Digest `json:"digest"`
	Repository string        `json:"repository"`
	// Since is when that was first seen.
	Since time.Time `json:"since"`
}

func holderPrefix(dgst digest.Digest) string { return dgst.String() + " " }

func (h Holder) key() string { return holderPrefix(h.Digest) + h.Repository }

// PutHolder records that a repository has a blob. What is recorded already
// costs no write. Delete of the blob forgets all of its holders.
func (s *Store) PutHolder(dgst digest.Digest, repository string) error {
	h := Holder{Digest: dgst, Repository: repository}
	known, err := s.Holds(dgst, repository)
	if err != nil || known {
		return err
	}
	h.Since = s.now()
	if err := s.index.put(holdersBucket, h.key(), h); err != nil {
		return fmt.Errorf("note that %s has %s: %w", repository, dgst, err)
	}
	return nil
}

// PutFound is PutHolder and PutLink in one transaction, for a manifest that an
// upstream of a repository has sent.
func (s *Store) PutFound(l Link) error {
	h := Holder{Digest: l.Digest, Repository: l.Repository, Since: s.now()}
	err := s.index.change(func(tx *bolt.Tx) error {
		return errors.Join(
			putRecord(tx, holdersBucket, h.key(), h),
			putRecord(tx, manifestsBucket, l.key(), l))
	})
	if err != nil {
		return fmt.Errorf("note that %s has manifest %s: %w", l.Repository, l.Digest, err)
	}
	return nil
}

// Holds reports whether a repository is recorded as a holder of a blob.
func (s *Store) Holds(dgst digest.Digest, repository string) (bool, error) {
	var h Holder
	err := s.index.get(holdersBucket, Holder{Digest: dgst, Repository: repository}.key(), &h)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// Holders returns the recorded holders of a blob, in the order of their names.
func (s *Store) Holders(dgst digest.Digest) ([]Holder, error) {
	var all []Holder
	err := s.index.view(func(tx *bolt.Tx) error {
		return eachHolder(tx, dgst, func(_, data []byte) error {
			var h Holder
			if json.Unmarshal(data, &h) == nil {
				all = append(all, h)
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read holders of %s: %w", dgst, err)
	}
	return all, nil
}

func eachHolder(tx *bolt.Tx, dgst digest.Digest, fn func(key, data []byte) error) error {
	return eachBelow(tx, holdersBucket, holderPrefix(dgst), fn)
}

// forget drops all that the index knows of blobs that are gone.
func (x *index) forget(dgsts []digest.Digest) error {
	return x.change(func(tx *bolt.Tx) error {
		for _, dgst := range dgsts {
			if err := forgetBlob(tx, dgst); err != nil {
				return err
			}
		}
		return nil
	})
}

func forgetBlob(tx *bolt.Tx, dgst digest.Digest) error {
	var keys [][]byte // deleted behind the walk: a cursor does not bear it
	if err := eachHolder(tx, dgst, func(k, _ []byte) error {
		keys = append(keys, bytes.Clone(k))
		return nil
	}); err != nil {
		return err
	}
	for _, k := range keys {
		if err := tx.Bucket([]byte(holdersBucket)).Delete(k); err != nil {
			return err
		}
	}
	if err := tx.Bucket([]byte(childrenBucket)).Delete(childKey(dgst)); err != nil {
		return err
	}
	return tx.Bucket([]byte(blobsBucket)).Delete([]byte(dgst))
}
