package cache

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// Grave remembers something that was evicted.
type Grave struct {
	At time.Time `json:"at"`
	// Names are the full references of an image; none for blobs that belonged to
	// no image. Digest is that of its manifest.
	Names  []string      `json:"names,omitempty"`
	Digest digest.Digest `json:"digest,omitempty"`
	// Blobs are the blobs that went, the first of them; Count is how many there
	// were, Bytes what they took.
	Blobs []digest.Digest `json:"blobs,omitempty"`
	Count int             `json:"count"`
	Bytes int64           `json:"bytes"`
	// Why is the reason in words.
	Why string `json:"why"`
}

const (
	// maxGraves bounds what is remembered; the oldest are forgotten first.
	maxGraves = 10_000
	// maxGraveBlobs bounds the blobs that are remembered of each.
	maxGraveBlobs = 100
)

// dig remembers what goes. The bucket's sequence counts its records: counting
// them would read all of it.
func dig(tx *bolt.Tx, gr Grave) error {
	b := tx.Bucket([]byte(gravesBucket))
	at := uint64(max(0, gr.At.UnixNano()))
	if last, _ := b.Cursor().Last(); len(last) == 8 { // two at a time, or a clock that went back
		at = max(at, binary.BigEndian.Uint64(last)+1)
	}
	key := binary.BigEndian.AppendUint64(nil, at)
	data, err := json.Marshal(gr)
	if err != nil {
		return fmt.Errorf("encode what is remembered of %v: %w", gr.Names, err)
	}
	if err := b.Put(key, data); err != nil {
		return err
	}
	n := b.Sequence() + 1
	if first, _ := b.Cursor().First(); n > maxGraves && first != nil {
		n--
		if err := b.Delete(bytes.Clone(first)); err != nil {
			return err
		}
	}
	return b.SetSequence(n)
}

// GraveOf returns what is remembered of the last eviction of a full reference,
// or of a blob, or errdefs.ErrNotFound.
func (s *Store) GraveOf(name string, dgst digest.Digest) (Grave, error) {
	found := false
	var gr Grave
	err := s.index.view(func(tx *bolt.Tx) error {
		cursor := tx.Bucket([]byte(gravesBucket)).Cursor()
		for k, v := cursor.Last(); k != nil && !found; k, v = cursor.Prev() {
			// A record is decoded only if it can be the one.
			if name != "" && bytes.Contains(v, []byte(name)) || dgst != "" && bytes.Contains(v, []byte(dgst)) {
				gr = Grave{}
				found = json.Unmarshal(v, &gr) == nil && gr.is(name, dgst)
			}
		}
		return nil
	})
	if err == nil && !found {
		err = fmt.Errorf("nothing is remembered of an eviction of %s%s: %w", name, dgst, errdefs.ErrNotFound)
	}
	if err != nil {
		return Grave{}, err
	}
	return gr, nil
}

func (gr Grave) is(name string, dgst digest.Digest) bool {
	return name != "" && slices.Contains(gr.Names, name) || dgst != "" && (gr.Digest == dgst || slices.Contains(gr.Blobs, dgst))
}
