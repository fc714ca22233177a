package cache

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// Facts is what the index knows of a blob, present or not: a manifest tells
// the size of its layers before they are there.
type Facts struct {
	// Size in bytes; 0 if unknown. Measured once the blob was published;
	// before that it is what a manifest claims.
	Size int64 `json:"size,omitempty"`
	// Measured says that Size is that of the bytes that this store published. Of a
	// blob that has a Source it need not say so; see IsMeasured.
	Measured bool `json:"measured,omitempty"`
	// MediaType as the first descriptor gave it, or the Put that brought
	// the bytes.
	MediaType string `json:"mediaType,omitempty"`
	// Source is the upstream that sent the bytes. Empty if they are not
	// there, or came through Writer.
	Source string `json:"source,omitempty"`
	// Updated is when labels changed last.
	Updated time.Time `json:"updated,omitzero"`
	// Used is when the blob was last used, as told to Touch: in whole seconds, once
	// it is in the index. Up to a minute of it may be lost in a crash.
	Used time.Time `json:"used,omitzero"`
	// Verified is when the blob was last read from the disk and had its
	// digest. Up to a minute of it may be lost in a crash.
	Verified time.Time `json:"verified,omitzero"`
	// Labels are containerd's.
	Labels map[string]string `json:"labels,omitempty"`
}

// merge takes over what other knows. A size or media type that is known
// stays: the first one decides, so that a blob never changes type.
func (f *Facts) merge(other Facts) {
	if f.Size == 0 {
		f.Size = other.Size
	}
	if f.MediaType == "" {
		f.MediaType = other.MediaType
	}
	if other.Source != "" {
		f.Source = other.Source
	}
	f.Updated = later(f.Updated, other.Updated)
	f.Used = later(f.Used, other.Used)
	f.Verified = later(f.Verified, other.Verified)
	f.Measured = f.Measured || other.Measured
	if len(other.Labels) > 0 {
		f.Labels = maps.Clone(f.Labels)
		if f.Labels == nil {
			f.Labels = map[string]string{}
		}
		maps.Copy(f.Labels, other.Labels)
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Facts returns what is known of a blob, or errdefs.ErrNotFound.
func (s *Store) Facts(dgst digest.Digest) (Facts, error) {
	var f Facts
	right, isRight := s.uses.verified(dgst)
	err := s.index.get(blobsBucket, dgst.String(), &f)
	if err != nil && !(isRight && errdefs.IsNotFound(err)) {
		return Facts{}, err
	}
	if isRight && !right.at.IsZero() {
		f.Size, f.Verified = right.size, later(f.Verified, right.at)
	}
	f.Used = later(f.Used, s.uses.blob(dgst))
	return f, nil
}

// SetFacts adds to what is known of a blob. What is known already stays, and
// nothing is written if nothing is new.
func (s *Store) SetFacts(dgst digest.Digest, facts Facts) error {
	return s.changeFacts(dgst, func(r *blobRecord) { r.merge(facts) })
}

// notePublished adds to the facts of a blob that is published. Its size was
// measured. What manifests claimed before is overruled, and, if its bytes came
// just now, so is the media type: any manifest may name any digest, and must
// not decide what somebody else's blob is. A holder is noted in the same transaction,
// but where the blob has another one already.
func (s *Store) notePublished(dgst digest.Digest, size int64, facts Facts, isNew bool, holder string) error {
	var isSecond bool // it has another holder
	err := s.changeFacts(dgst, func(r *blobRecord) {
		r.Size = size
		if isNew && facts.MediaType != "" {
			r.MediaType = facts.MediaType
		}
		r.merge(facts)
		r.Measured = r.Measured || r.Source == ""
		if r.Holder == "" {
			r.Holder = holder
		}
		isSecond = holder != "" && r.Holder != holder
	})
	if err != nil || !isSecond {
		return err
	}
	return s.PutHolder(dgst, holder)
}

func (s *Store) changeFacts(dgst digest.Digest, change func(*blobRecord)) error {
	err := s.index.changeFacts([]digest.Digest{dgst}, func(_ int, r *blobRecord) { change(r) })
	if err != nil {
		return fmt.Errorf("note facts of %s: %w", dgst, err)
	}
	return nil
}

// NoteDescriptors records sizes and media types of blobs that a verified
// manifest names, in one transaction. They are claims: a descriptor with an
// invalid digest is passed over, and the first claim of a blob stays.
func (s *Store) NoteDescriptors(descs []ocispec.Descriptor) error { return s.noteDescriptors(descs) }

func (s *Store) noteDescriptors(descs []ocispec.Descriptor, also ...rawRecord) error {
	dgsts := make([]digest.Digest, 0, len(descs))
	claims := make([]Facts, 0, len(descs))
	for _, desc := range descs {
		if desc.Digest.Validate() != nil {
			continue
		}
		dgsts = append(dgsts, desc.Digest)
		claims = append(claims, Facts{Size: max(0, desc.Size), MediaType: desc.MediaType})
	}
	err := s.index.changeFacts(dgsts, func(i int, r *blobRecord) { r.merge(claims[i]) }, also...)
	if err != nil {
		return fmt.Errorf("note facts of %d blobs: %w", len(descs), err)
	}
	return nil
}

// changeFacts applies change to the facts of each digest, and writes what else
// is given, in one transaction. It looks first: a write that changes nothing
// would still cost an fsync.
func (x *index) changeFacts(dgsts []digest.Digest, change func(i int, r *blobRecord), also ...rawRecord) error {
	var differs bool
	err := x.view(func(tx *bolt.Tx) error {
		for _, r := range also {
			old := r.get(tx)
			differs = differs || old == nil || !bytes.Equal(old, r.value)
		}
		for i, dgst := range dgsts {
			old, data, err := changedFacts(tx, dgst, func(r *blobRecord) { change(i, r) })
			if err != nil {
				return err
			}
			differs = differs || !bytes.Equal(old, data)
		}
		return nil
	})
	if err != nil || !differs {
		return err
	}
	return x.change(func(tx *bolt.Tx) error {
		for _, r := range also {
			if err := r.put(tx); err != nil {
				return err
			}
		}
		for i, dgst := range dgsts {
			_, data, err := changedFacts(tx, dgst, func(r *blobRecord) { change(i, r) })
			if err != nil {
				return err
			}
			if err := tx.Bucket([]byte(blobsBucket)).Put([]byte(dgst), data); err != nil {
				return err
			}
		}
		return nil
	})
}

// changedFacts returns a record as it is, nil if there is none, and as it
// would be after change.
func changedFacts(tx *bolt.Tx, dgst digest.Digest, change func(*blobRecord)) (old, data []byte, err error) {
	old = tx.Bucket([]byte(blobsBucket)).Get([]byte(dgst))
	r := decodeBlob(old)
	change(&r)
	data, err = json.Marshal(r)
	return old, data, err
}
