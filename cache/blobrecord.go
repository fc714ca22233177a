package cache

import (
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// blobRecord is what the index keeps under a blob's digest.
type blobRecord struct {
	Facts
	// Holder is the first holder of the blob. It stands here since most blobs have
	// no other: a record of its own, with the digest in its key once more, took
	// more than all that is known of a small blob. See putHolder.
	Holder string `json:"holder,omitempty"`
}

// blobIn returns a blob's record. One that is not there, or damaged, is begun anew.
func blobIn(tx *bolt.Tx, dgst digest.Digest) blobRecord {
	return decodeBlob(recordIn(tx, blobsBucket, dgst.String()))
}

func decodeBlob(data []byte) blobRecord {
	if r, ok := decoded[blobRecord](data); ok {
		return r
	}
	return blobRecord{}
}

// forgetFacts drops what is known of a blob, but not who has it.
func forgetFacts(tx *bolt.Tx, dgst digest.Digest) error {
	holder := blobIn(tx, dgst).Holder
	if err := tx.Bucket([]byte(blobsBucket)).Delete([]byte(dgst)); err != nil || holder == "" {
		return err
	}
	return putHolder(tx, dgst, holder)
}
