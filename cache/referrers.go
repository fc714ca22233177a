package cache

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// Referrers is what an upstream said of who names a manifest as its subject.
// It belongs to the manifest's Link, and goes with it.
type Referrers struct {
	// Repository is the registry host and path, Subject the manifest.
	Repository string        `json:"repository"`
	Subject    digest.Digest `json:"subject"`
	// Manifests are the referrers, with artifact type and annotations. That
	// they are listed does not mean that they are stored.
	Manifests []ocispec.Descriptor `json:"manifests"`
	// Validated is when an upstream last gave this list.
	Validated time.Time `json:"validated,omitzero"`
	// Followed is when all that belongs to the manifest was last asked for,
	// and either came or was found not to exist.
	Followed time.Time `json:"followed,omitzero"`
}

func (rf Referrers) key() string {
	return Link{Repository: rf.Repository, Digest: rf.Subject}.key()
}

// Referrers returns the list of a manifest's referrers, or
// errdefs.ErrNotFound.
func (s *Store) Referrers(repository string, subject digest.Digest) (Referrers, error) {
	rf := Referrers{Repository: repository, Subject: subject}
	if err := s.index.get(referrersBucket, rf.key(), &rf); err != nil {
		return Referrers{}, err
	}
	return rf, nil
}

// ChangeReferrers changes the list of a manifest's referrers, an empty one if
// there is none yet. change may be called more than once. A manifest that does
// not belong to the repository is errdefs.ErrNotFound: a list must not outlive
// the removal of its image.
func (s *Store) ChangeReferrers(repository string, subject digest.Digest, change func(*Referrers)) error {
	key := Referrers{Repository: repository, Subject: subject}.key()
	err := s.index.change(func(tx *bolt.Tx) error {
		if tx.Bucket([]byte(manifestsBucket)).Get([]byte(key)) == nil {
			return fmt.Errorf("manifest is not linked: %w", errdefs.ErrNotFound)
		}
		var rf Referrers
		if data := tx.Bucket([]byte(referrersBucket)).Get([]byte(key)); data == nil || json.Unmarshal(data, &rf) != nil {
			rf = Referrers{} // a damaged one is begun anew
		}
		rf.Repository, rf.Subject = repository, subject
		change(&rf)
		return putRecord(tx, referrersBucket, key, rf)
	})
	if err != nil {
		return fmt.Errorf("note referrers of %s: %w", key, err)
	}
	return nil
}

// DeleteReferrers forgets the list of a manifest's referrers. The manifests
// stay.
func (s *Store) DeleteReferrers(repository string, subject digest.Digest) error {
	key := Referrers{Repository: repository, Subject: subject}.key()
	if err := s.index.delete(referrersBucket, key); err != nil {
		return fmt.Errorf("forget referrers of %s: %w", key, err)
	}
	return nil
}
