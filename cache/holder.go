package cache

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

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

func holderPrefix(dgst digest.Digest) string { return dgst.String() + " " }

// PutHolder records that a repository is a holder of a blob: an upstream of it sent
// the bytes, or has shown that it could. What is recorded already costs no write.
// Delete of the blob forgets all of its holders.
func (s *Store) PutHolder(dgst digest.Digest, repository string) error {
	known, err := s.Holds(dgst, repository)
	if err != nil || known {
		return err
	}
	err = s.index.change(func(tx *bolt.Tx) error { return putHolder(tx, dgst, repository) })
	if err != nil {
		return fmt.Errorf("note that %s has %s: %w", repository, dgst, err)
	}
	return nil
}

// putHolder notes a holder in the blob's record, or in one of its own where that has
// another, or is a claim: who drops claims need not know of holders. An older larder
// noted each in one of its own, whose key says all.
func putHolder(tx *bolt.Tx, dgst digest.Digest, repository string) error {
	r := blobIn(tx, dgst)
	if r.Holder == repository {
		return nil
	}
	if r.Holder == "" && r.IsMeasured() {
		r.Holder = repository
		return putRecord(tx, blobsBucket, dgst.String(), r)
	}
	return putRecord(tx, holdersBucket, holderPrefix(dgst)+repository, struct{}{})
}

// PutFound is PutHolder and PutLink in one transaction, for a manifest that an
// upstream of a repository has sent.
func (s *Store) PutFound(l Link) error {
	err := s.index.change(func(tx *bolt.Tx) error {
		return errors.Join(
			putHolder(tx, l.Digest, l.Repository),
			putRecord(tx, manifestsBucket, l.key(), l))
	})
	if err != nil {
		return fmt.Errorf("note that %s has manifest %s: %w", l.Repository, l.Digest, err)
	}
	return nil
}

// Holds reports whether a repository is recorded as a holder of a blob.
func (s *Store) Holds(dgst digest.Digest, repository string) (held bool, err error) {
	if repository == "" {
		return false, nil
	}
	err = s.index.view(func(tx *bolt.Tx) error {
		held = blobIn(tx, dgst).Holder == repository || isHolder(recordIn(tx, holdersBucket, holderPrefix(dgst)+repository))
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("read whether %s has %s: %w", repository, dgst, err)
	}
	return held, nil
}

// isHolder reports whether a record is one, and not damaged.
func isHolder(record []byte) bool {
	_, ok := decoded[struct{}](record)
	return ok
}

// Holders returns the repositories that are recorded as holders of a blob, in the
// order of their names.
func (s *Store) Holders(dgst digest.Digest) (repositories []string, err error) {
	err = s.index.view(func(tx *bolt.Tx) error {
		if first := blobIn(tx, dgst).Holder; first != "" {
			repositories = append(repositories, first)
		}
		return eachHolder(tx, dgst, func(key, record []byte) error {
			if isHolder(record) {
				repositories = append(repositories, string(key[len(holderPrefix(dgst)):]))
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read holders of %s: %w", dgst, err)
	}
	slices.Sort(repositories)
	return slices.Compact(repositories), nil // an older larder may have noted the first once more
}

// eachHolder calls fn for each holder that has a record of its own.
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
