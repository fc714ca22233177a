package remotes

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/larder-project/larder/cache"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// maxPullSet bounds the blobs of one image: an index may name a thousand
	// others.
	maxPullSet = 1024
	// maxPullSets bounds the memory of them: about 100 bytes a blob.
	maxPullSets = 512
)

// PullSet returns the blobs that a pull of a stored manifest takes on this node,
// parents first: the manifest, of an index that for the node's platform, config
// and layers. Whether these are stored it does not say; it is errdefs.ErrNotFound
// if it cannot tell what they are, since a manifest is not. The result is shared:
// do not change it.
func (r *Registry) PullSet(dgst digest.Digest) ([]digest.Digest, error) {
	if set, ok := r.pullSets.Get(dgst); ok {
		return set, nil // bytes that have a digest name the same for ever
	}
	w := pullSetWalk{registry: r, seen: map[digest.Digest]bool{},
		platform: platformChoice{want: []platforms.MatchComparer{platforms.Default()}, text: platforms.DefaultString()}}
	if err := w.manifest(ocispec.Descriptor{Digest: dgst}, 0); err != nil {
		return nil, fmt.Errorf("blobs of %s: %w", dgst, err)
	}
	r.pullSets.Add(dgst, w.set)
	return w.set, nil
}

// pullSetWalk collects a PullSet.
type pullSetWalk struct {
	registry *Registry
	platform platformChoice
	seen     map[digest.Digest]bool
	set      []digest.Digest
}

func (w *pullSetWalk) manifest(desc ocispec.Descriptor, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("indexes are nested more than %d deep: %w", maxDepth, errdefs.ErrInvalidArgument)
	}
	if isNew, err := w.add(desc.Digest); err != nil || !isNew {
		return err
	}
	data, err := w.registry.readManifest(desc.Digest)
	if err != nil {
		return err
	}
	m, err := cache.ParseStored(data, desc.MediaType)
	if err != nil {
		return err
	}
	for _, b := range m.Blobs {
		if _, err := w.add(b.Digest); err != nil {
			return err
		}
	}
	if !m.IsIndex() {
		return nil
	}
	children, err := w.platform.choose(m.Manifests)
	if err != nil {
		return err
	}
	for _, child := range children {
		if err := w.manifest(child, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// add takes a blob into the set, once.
func (w *pullSetWalk) add(dgst digest.Digest) (isNew bool, _ error) {
	if w.seen[dgst] {
		return false, nil
	}
	if len(w.set) == maxPullSet {
		return false, fmt.Errorf("more than %d blobs: %w", maxPullSet, errdefs.ErrInvalidArgument)
	}
	w.seen[dgst] = true
	w.set = append(w.set, dgst)
	return true, nil
}

func newPullSets() *lru.Cache[digest.Digest, []digest.Digest] {
	sets, _ := lru.New[digest.Digest, []digest.Digest](maxPullSets) // fails only for a size below 1
	return sets
}

// OpenSure opens a stored blob for who hands it on to somebody who does not look at
// its bytes: they were right when this store had them, its file has the size that
// they had, and it is known without asking anybody that it belongs to the
// repository. Else it is an error; errdefs.ErrNotFound if it is not stored.
func (r *Registry) OpenSure(ctx context.Context, repo Repository, dgst digest.Digest) (*cache.Blob, error) {
	b, err := r.Store.OpenVerified(ctx, dgst)
	if err != nil {
		return nil, err
	}
	// OpenVerified gives a blob, too, of which the index cannot be read.
	facts, err := r.Store.Facts(dgst)
	if err != nil || !facts.IsMeasured() || facts.Size != b.Size() {
		b.Close()
		return nil, fmt.Errorf("blob %s: whether it is right is not known: %w", dgst, errors.Join(err, errdefs.ErrUnavailable))
	}
	if !r.belongs(ctx, repo, dgst) {
		b.Close()
		return nil, fmt.Errorf("blob %s is not known to be one of %s: %w", dgst, repo, errdefs.ErrPermissionDenied)
	}
	return b, nil
}
