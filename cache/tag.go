package cache

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// Tag is what the store knows of a tag: where it points, and since when.
type Tag struct {
	// Name is the full reference, for instance docker.io/library/nginx:1.29.
	Name string `json:"name"`
	// Target is the manifest or index that the tag points to.
	Target ocispec.Descriptor `json:"target"`
	// Source is the upstream that said so.
	Source string `json:"source"`
	// Created is when the store learnt of the tag, Moved when its target
	// changed last.
	Created time.Time `json:"created"`
	Moved   time.Time `json:"moved"`
	// Validated is when an upstream last confirmed the target.
	Validated time.Time `json:"validated"`
	// NextCheck holds off further checks after a failed one. Failures counts
	// the failed ones since Validated, LastError is the last one's text.
	NextCheck time.Time `json:"nextCheck,omitzero"`
	Failures  int       `json:"failures,omitempty"`
	LastError string    `json:"lastError,omitempty"`
	// Gone says that the last failure was upstream's word that it no longer
	// has the tag.
	Gone bool `json:"gone,omitempty"`
	// Used is when the tag was last used, as told to Touch. Up to a minute
	// of it may be lost in a crash.
	Used time.Time `json:"used,omitzero"`
}

// Tag returns a tag by its full reference, or errdefs.ErrNotFound. What its
// descriptor points to is shared, and not to be changed.
func (s *Store) Tag(name string) (Tag, error) {
	t, err := recall[Tag](s.index, tagsBucket, name)
	if err != nil {
		return Tag{}, err
	}
	t.Used = later(t.Used, s.uses.tag(name))
	return t, nil
}

// PutTag stores a tag under its name, and adds to its History what it points to
// now. It is durable when PutTag returns. An earlier Used than the stored one
// does not count.
func (s *Store) PutTag(t Tag) error {
	err := s.index.change(func(tx *bolt.Tx) error {
		old, stored := decodeTag(tx, t.Name)
		t.Used = later(t.Used, old.Used)
		if err := noteTarget(tx, old, stored, t, s.now()); err != nil {
			return err
		}
		return putRecord(tx, tagsBucket, t.Name, t)
	})
	if err != nil {
		return fmt.Errorf("store tag %s: %w", t.Name, err)
	}
	return nil
}

// decodeTag decodes a tag. One that does not decode is not there.
func decodeTag(tx *bolt.Tx, name string) (Tag, bool) {
	var t Tag
	data := tx.Bucket([]byte(tagsBucket)).Get([]byte(name))
	if data == nil || json.Unmarshal(data, &t) != nil {
		return Tag{}, false
	}
	return t, true
}

// DeleteTag forgets a tag that somebody removes; its History stays. The blobs
// stay, too.
func (s *Store) DeleteTag(name string) error {
	return s.EndTag(name, "", Ending{Why: Removed})
}

// EndTag is DeleteTag for another reason. A tag that does not point to target
// any more stays, which is errdefs.ErrFailedPrecondition; an empty target is any.
// One that is not there is no error.
func (s *Store) EndTag(name string, target digest.Digest, why Ending) error {
	err := s.index.change(func(tx *bolt.Tx) error {
		tags := tx.Bucket([]byte(tagsBucket))
		old, stored := decodeTag(tx, name)
		if !stored {
			return tags.Delete([]byte(name)) // one that does not decode
		}
		if target != "" && old.Target.Digest != target {
			return fmt.Errorf("points to %s now: %w", old.Target.Digest, errdefs.ErrFailedPrecondition)
		}
		if err := noteEnd(tx, name, old, why, s.now()); err != nil {
			return err
		}
		return tags.Delete([]byte(name))
	})
	if err != nil {
		return fmt.Errorf("forget tag %s: %w", name, err)
	}
	return nil
}

// Tags returns all tags, in the order of their names.
func (s *Store) Tags() ([]Tag, error) {
	tags, err := records[Tag](s.index, tagsBucket)
	for i := range tags {
		tags[i].Used = later(tags[i].Used, s.uses.tag(tags[i].Name))
	}
	return tags, err
}

// Link says that a manifest belongs to a repository.
type Link struct {
	// Repository is the registry host and path, Digest the manifest's.
	Repository string        `json:"repository"`
	Digest     digest.Digest `json:"digest"`
	// Asked is set if a client asked for this digest by name, as for a pod
	// pinned to it, and not just because another manifest names it.
	Asked bool `json:"asked,omitempty"`
	// Companion is set if it came as something that belongs to an image, such
	// as a signature.
	Companion bool `json:"companion,omitempty"`
	// Created is when the manifest was first seen there.
	Created time.Time `json:"created"`
}

func (l Link) key() string { return l.Repository + "@" + l.Digest.String() }

// Link returns whether and how a manifest belongs to a repository, or
// errdefs.ErrNotFound.
func (s *Store) Link(repository string, dgst digest.Digest) (Link, error) {
	return recall[Link](s.index, manifestsBucket, Link{Repository: repository, Digest: dgst}.key())
}

// PutLink records that a manifest belongs to a repository.
func (s *Store) PutLink(l Link) error {
	if err := s.index.put(manifestsBucket, l.key(), l); err != nil {
		return fmt.Errorf("link %s: %w", l.key(), err)
	}
	return nil
}

// DeleteLink forgets that a manifest belongs to a repository, and what refers
// to it there.
func (s *Store) DeleteLink(repository string, dgst digest.Digest) error {
	key := Link{Repository: repository, Digest: dgst}.key()
	err := s.index.change(func(tx *bolt.Tx) error {
		return deleteLink(tx, key)
	})
	if err != nil {
		return fmt.Errorf("unlink %s: %w", key, err)
	}
	return nil
}

func deleteLink(tx *bolt.Tx, key string) error {
	if err := tx.Bucket([]byte(referrersBucket)).Delete([]byte(key)); err != nil {
		return err
	}
	return tx.Bucket([]byte(manifestsBucket)).Delete([]byte(key))
}

// LinksOf returns the links of one repository, in the order of their digests.
func (s *Store) LinksOf(repository string) ([]Link, error) {
	var all []Link
	err := s.index.view(func(tx *bolt.Tx) error {
		return eachBelow(tx, manifestsBucket, repository+"@", func(_, data []byte) error {
			var l Link
			if json.Unmarshal(data, &l) == nil {
				all = append(all, l)
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read links of %s: %w", repository, err)
	}
	return all, nil
}

// HasLinks reports whether any manifest is known to belong to a repository. It
// costs one look into the index, however many there are.
func (s *Store) HasLinks(repository string) (has bool, _ error) {
	prefix := []byte(repository + "@")
	err := s.index.view(func(tx *bolt.Tx) error {
		key, _ := tx.Bucket([]byte(manifestsBucket)).Cursor().Seek(prefix)
		has = bytes.HasPrefix(key, prefix)
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("read links of %s: %w", repository, err)
	}
	return has, nil
}

// Links returns all links, in the order of repository and digest.
func (s *Store) Links() ([]Link, error) { return records[Link](s.index, manifestsBucket) }

// decoded decodes a record. ok is false for one that does not decode: it is as
// good as none.
func decoded[T any](data []byte) (v T, ok bool) {
	ok = data != nil && json.Unmarshal(data, &v) == nil
	return v, ok
}

// records decodes a whole bucket; what does not decode is passed over.
func records[T any](x *index, bucket string) ([]T, error) {
	var all []T
	err := x.walk(bucket, func(_ string, data []byte) error {
		var v T
		if json.Unmarshal(data, &v) == nil {
			all = append(all, v)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", bucket, err)
	}
	return all, nil
}
