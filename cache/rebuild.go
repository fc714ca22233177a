package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

const (
	// rebuildBatch is how many facts share a transaction.
	rebuildBatch = 5000
	// rebuildDepth bounds nested indexes: in practice there is one.
	rebuildDepth = 32
)

// rebuilding is one run of rebuild.
type rebuilding struct {
	store     *Store
	began     time.Time
	seen      map[string]bool // manifests, by repository
	facts     map[digest.Digest]Facts
	links     []Link
	referrers map[string]*Referrers
	blobs     int
}

// rebuild reads the manifests that hang on tags and digests, and writes down
// what they say: which belong to which repository, what their blobs are, and
// who refers to whom.
func (s *Store) rebuild(ctx context.Context) {
	r := &rebuilding{store: s, began: time.Now(), seen: map[string]bool{}, facts: map[digest.Digest]Facts{}, referrers: map[string]*Referrers{}}
	err := r.run(ctx)
	if ctx.Err() != nil {
		return // the next Open begins anew
	}
	if err == nil {
		err = s.index.delete(stateBucket, rebuildKey)
	}
	if err != nil {
		s.logger.Warn("index not rebuilt; it is tried again at the next start", "err", err)
		return
	}
	s.logger.Info("index is rebuilt", "manifests", len(r.seen), "blobs", r.blobs, "dur", time.Since(r.began))
}

func (r *rebuilding) run(ctx context.Context) error {
	tags, err := r.store.Tags()
	if err != nil {
		return err
	}
	links, err := r.store.Links()
	if err != nil {
		return err
	}
	for _, t := range tags {
		repository, tag, isDigest := SplitReference(t.Name)
		if repository == "" || tag == "" || isDigest {
			continue
		}
		if err := r.visit(ctx, Link{Repository: repository, Digest: t.Target.Digest, Created: t.Created}, t.Target.MediaType, 0); err != nil {
			return err
		}
	}
	for _, l := range links {
		if err := r.visit(ctx, l, "", 0); err != nil {
			return err
		}
	}
	if err := r.flush(); err != nil {
		return err
	}
	return r.listReferrers()
}

// visit notes a manifest and what it names. One that is not there, or not as it
// should be, is passed over: the next pull brings it.
func (r *rebuilding) visit(ctx context.Context, l Link, mediaType string, depth int) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if r.seen[l.key()] || depth > rebuildDepth {
		return nil
	}
	m, data, ok := r.store.storedManifest(l.Digest, mediaType)
	if !ok {
		return nil
	}
	r.seen[l.key()] = true
	r.links = append(r.links, l)
	r.note(l.Digest, Facts{Size: int64(len(data)), MediaType: m.MediaType})
	for _, child := range m.Children() {
		r.note(child.Digest, Facts{Size: child.Size, MediaType: child.MediaType})
	}
	if l.Companion && m.Subject != "" {
		r.refer(l, m, data)
	}
	if len(r.facts)+len(r.links) > rebuildBatch {
		if err := r.flush(); err != nil {
			return err
		}
	}
	for _, child := range m.Manifests {
		c := Link{Repository: l.Repository, Digest: child.Digest, Companion: l.Companion, Created: l.Created}
		if err := r.visit(ctx, c, child.MediaType, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (r *rebuilding) note(dgst digest.Digest, claim Facts) {
	f := r.facts[dgst]
	f.merge(claim)
	r.facts[dgst] = f
}

// refer adds a manifest to the list of its subject's referrers. Both belong to
// one repository: what another one has of the kind is its own.
func (r *rebuilding) refer(l Link, m Manifest, data []byte) {
	var doc ocispec.Manifest
	if json.Unmarshal(data, &doc) != nil {
		return
	}
	desc := m.Describe(l.Digest, data)
	desc.ArtifactType, desc.Annotations = doc.ArtifactType, doc.Annotations
	if desc.ArtifactType == "" {
		desc.ArtifactType = doc.Config.MediaType
	}
	rf := &Referrers{Repository: l.Repository, Subject: m.Subject, Validated: l.Created}
	if known, ok := r.referrers[rf.key()]; ok {
		rf = known
	}
	rf.Manifests = append(rf.Manifests, desc)
	// The list may not be all of it. It is as old as the oldest of it, so that
	// upstream is asked when it can be.
	if l.Created.Before(rf.Validated) {
		rf.Validated = l.Created
	}
	r.referrers[rf.key()] = rf
}

// listReferrers writes the lists down, but those that came from upstream
// meanwhile. The list of what is no manifest of the repository is dropped.
func (r *rebuilding) listReferrers() error {
	for _, found := range r.referrers {
		err := r.store.ChangeReferrers(found.Repository, found.Subject, func(rf *Referrers) {
			if rf.Validated.IsZero() {
				rf.Manifests, rf.Validated = found.Manifests, found.Validated
			}
		})
		if err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// flush writes down what is noted.
func (r *rebuilding) flush() error {
	r.blobs += len(r.facts)
	dgsts := make([]digest.Digest, 0, len(r.facts))
	for dgst := range r.facts {
		dgsts = append(dgsts, dgst)
	}
	ferr := r.store.index.changeFacts(dgsts, func(i int, b *blobRecord) { b.merge(r.facts[dgsts[i]]) })
	lerr := r.store.index.change(func(tx *bolt.Tx) error {
		for _, l := range r.links {
			if tx.Bucket([]byte(manifestsBucket)).Get([]byte(l.key())) != nil {
				continue // it was kept, or came meanwhile
			}
			if err := putRecord(tx, manifestsBucket, l.key(), l); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(ferr, lerr); err != nil {
		return fmt.Errorf("note %d blobs and %d manifests: %w", len(r.facts), len(r.links), err)
	}
	clear(r.facts)
	r.links = nil
	return nil
}

// storedManifest reads a stored manifest. ok is false for whatever is none.
func (s *Store) storedManifest(dgst digest.Digest, mediaType string) (m Manifest, data []byte, ok bool) {
	data, err := s.ReadManifest(dgst)
	if err != nil {
		return Manifest{}, nil, false
	}
	m, err = ParseStored(data, mediaType)
	return m, data, err == nil
}
