package remotes

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes/upstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// maxPassedBytes bounds the memory of manifests that could not be stored,
	// maxPassed their number.
	maxPassedBytes = 32 << 20
	maxPassed      = 4096
)

// passedManifest is a manifest that was passed through without storing.
type passedManifest struct {
	descriptor ocispec.Descriptor
	manifest   cache.Manifest
	data       []byte
	source     string
	why        error // the disk did not take it
}

// passed are manifests that could not be stored, by repository and digest: a
// client asks for one by tag, then by digest, then for what it names, and
// each would cost another request upstream. They are the repository's whose
// upstream sent them, and no other's. It is safe for concurrent use.
type passed struct {
	mu    sync.Mutex // guards what follows
	all   *simplelru.LRU[string, passedManifest]
	bytes int
}

func newPassed() *passed {
	p := &passed{}
	p.all, _ = simplelru.NewLRU(maxPassed, func(_ string, m passedManifest) { p.bytes -= len(m.data) }) // fails only for a size below 1
	return p
}

func passedKey(repo Repository, dgst digest.Digest) string {
	return repo.String() + "@" + dgst.String()
}

// any reports whether there is one.
func (p *passed) any() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all.Len() > 0
}

// anyOf reports whether there is one of a repository.
func (p *passed) anyOf(repo Repository) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.all.Keys(), func(key string) bool { return strings.HasPrefix(key, passedKey(repo, "")) })
}

func (p *passed) get(repo Repository, dgst digest.Digest) (passedManifest, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all.Get(passedKey(repo, dgst))
}

// why is why a manifest is in here and not in the store, nil if it is not here.
func (p *passed) why(repo Repository, dgst digest.Digest) error {
	m, _ := p.get(repo, dgst)
	return m.why
}

func (p *passed) add(repo Repository, m passedManifest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all.Remove(passedKey(repo, m.descriptor.Digest))
	p.all.Add(passedKey(repo, m.descriptor.Digest), m)
	p.bytes += len(m.data)
	for p.bytes > maxPassedBytes {
		p.all.RemoveOldest()
	}
}

func (p *passed) remove(repo Repository, dgst digest.Digest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all.Remove(passedKey(repo, dgst))
}

// takePassed returns a manifest that was passed through. Once the store
// stores again it is stored, and not passed any more.
func (r *Registry) takePassed(ctx context.Context, repo Repository, dgst digest.Digest) (passedManifest, bool) {
	m, ok := r.passed.get(repo, dgst)
	if !ok || r.Store.Health().State != cache.StateOK {
		return m, ok
	}
	if err := r.storeManifest(ctx, repo, m); err != nil {
		return m, true
	}
	r.passed.remove(repo, dgst)
	return m, true
}

// keepManifest stores a manifest that upstream sent, or keeps it in memory if the
// disk does not take it: that must not cost the answer. It returns what the
// manifest is from now on: of a document that does not say it, the first upstream
// that sent it did.
func (r *Registry) keepManifest(ctx context.Context, repo Repository, m passedManifest) ocispec.Descriptor {
	if m.why = r.storeManifest(ctx, repo, m); m.why != nil {
		r.Logger.InfoContext(ctx, "manifest is passed through without storing",
			"ns", repo.Host, "repository", repo.Path, "digest", m.descriptor.Digest, "err", m.why)
		r.passed.add(repo, m)
		return m.descriptor
	}
	facts, err := r.Store.Facts(m.descriptor.Digest)
	if err != nil || facts.MediaType == m.descriptor.MediaType {
		return m.descriptor
	}
	known, err := cache.ParseStored(m.data, facts.MediaType)
	if err != nil {
		return m.descriptor
	}
	return known.Describe(m.descriptor.Digest, m.data)
}

// storeManifest stores a manifest, with what it says of its blobs and to which
// repository it belongs. That the notes fail is no error: they are asked for
// again.
func (r *Registry) storeManifest(ctx context.Context, repo Repository, m passedManifest) error {
	dgst := m.descriptor.Digest
	if err := r.Store.Put(ctx, dgst, m.data, cache.Facts{MediaType: m.descriptor.MediaType, Source: m.source}); err != nil {
		return err
	}
	if err := r.Store.NoteManifest(dgst, m.manifest); err != nil {
		r.Logger.WarnContext(ctx, "children of a manifest not noted", "digest", dgst, "err", err)
	}
	if err := r.noteFound(repo, dgst); err != nil {
		return fmt.Errorf("note manifest %s of %s: %w", dgst, repo, err)
	}
	return nil
}

// passManifest fetches a manifest beside a stored one that cannot be read.
func (r *Registry) passManifest(ctx context.Context, repo Repository, dgst digest.Digest, why error) error {
	ref := Reference{Repository: repo, Digest: dgst}.String()
	_, _, err := r.manifests.do(ctx, perCaller(ctx, "unread "+ref), "manifest "+ref, nil, func(ctx context.Context) (desc ocispec.Descriptor, err error) {
		err = r.eachUpstream(ctx, repo, func(c *upstream.Client) error {
			m, err := r.askManifest(ctx, c, repo, dgst)
			if err != nil {
				return err
			}
			m.why = why
			r.passed.add(repo, m)
			return nil
		})
		return desc, err
	})
	return err
}
