package cache

import (
	"encoding/hex"
	"fmt"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// Digests in the children bucket are a byte for the algorithm and the sum: a
// third of the text, and it needs no parsing.
const (
	algSHA256 = 1
	algSHA384 = 2
	algSHA512 = 3
)

func algOf(dgst digest.Digest) (alg byte, size int) {
	switch dgst.Algorithm() {
	case digest.SHA384:
		return algSHA384, 48
	case digest.SHA512:
		return algSHA512, 64
	}
	return algSHA256, 32
}

// childKey is the binary form of a valid digest.
func childKey(dgst digest.Digest) []byte { return appendDigest(nil, dgst) }

func appendDigest(to []byte, dgst digest.Digest) []byte {
	alg, _ := algOf(dgst)
	to = append(to, alg)
	to, _ = hex.AppendDecode(to, []byte(dgst.Encoded())) // a valid digest is hex
	return to
}

// nextDigest takes the first digest off a record. ok is false at its end, and
// for what no larder wrote.
func nextDigest(record []byte) (alg byte, sum, rest []byte, ok bool) {
	if len(record) == 0 {
		return 0, nil, nil, false
	}
	size := 0
	switch record[0] {
	case algSHA256:
		size = 32
	case algSHA384:
		size = 48
	case algSHA512:
		size = 64
	}
	if size == 0 || len(record) < 1+size {
		return 0, nil, nil, false
	}
	return record[0], record[1 : 1+size], record[1+size:], true
}

// textOf is the digest of a binary one.
func textOf(alg byte, sum []byte) digest.Digest {
	name := digest.SHA256
	switch alg {
	case algSHA384:
		name = digest.SHA384
	case algSHA512:
		name = digest.SHA512
	}
	return digest.NewDigestFromBytes(name, sum)
}

// childrenRecord is what the index keeps of a manifest.
func childrenRecord(m Manifest) []byte {
	record := []byte{}
	for _, desc := range m.Children() {
		if desc.Digest.Validate() == nil {
			record = appendDigest(record, desc.Digest)
		}
	}
	return record
}

// NoteManifest records what a verified manifest names, and what it says of them
// as NoteDescriptors does, in one transaction. What it names is kept from the
// removals that run.
func (s *Store) NoteManifest(dgst digest.Digest, m Manifest) error {
	if err := dgst.Validate(); err != nil {
		return fmt.Errorf("note manifest %.100q: %w", dgst, err)
	}
	for _, desc := range m.Children() {
		s.holds.note(desc.Digest)
	}
	return s.noteDescriptors(m.Children(), rawRecord{bucket: childrenBucket, key: childKey(dgst), value: childrenRecord(m)})
}

// rawRecord is one that is not JSON.
type rawRecord struct {
	bucket     string
	key, value []byte
}

func (r rawRecord) get(tx *bolt.Tx) []byte { return tx.Bucket([]byte(r.bucket)).Get(r.key) }
func (r rawRecord) put(tx *bolt.Tx) error  { return tx.Bucket([]byte(r.bucket)).Put(r.key, r.value) }
