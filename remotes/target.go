package remotes

import (
	"context"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/upstream"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// askUpstream finds the first upstream that both knows the tag and gives the
// manifest it points to. sparing passes over those that have nothing to spare.
func (r *Registry) askUpstream(ctx context.Context, ref Reference, sparing bool) (target ocispec.Descriptor, source string, err error) {
	ask := r.resolveAt
	if r.isNew(ref.Repository) {
		ask = r.fetchTagged
	}
	err = r.eachUpstream(ctx, ref.Repository, func(c *upstream.Client) (err error) {
		if sparing {
			if err := c.Spare(time.Now()); err != nil {
				return err
			}
		}
		source = c.Endpoint().String()
		target, err = ask(ctx, c, ref)
		return err
	})
	return target, source, err
}

// isNew reports whether nothing of a repository is at hand: what a tag of it
// points to is then fetched, whatever it is. That is in vain where another
// repository brought the same. Of a repository that is known it would often be,
// since tags move to what is stored by another tag; and registries that limit
// pulls count GETs of manifests and not HEADs.
func (r *Registry) isNew(repo Repository) bool {
	known, err := r.Store.HasLinks(repo.String())
	return err == nil && !known && !r.passed.anyOf(repo)
}

// fetchTagged brings what a tag points to from one upstream by a single request.
func (r *Registry) fetchTagged(ctx context.Context, c *upstream.Client, ref Reference) (ocispec.Descriptor, error) {
	data, dgst, contentType, err := c.ManifestByTag(ctx, ref.Path, ref.Tag)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	m, err := received(c, ref, dgst, data, contentType)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return r.keepManifest(ctx, ref.Repository, m), nil
}

// resolveAt asks one upstream what a tag points to, and brings that if it is not
// at hand.
func (r *Registry) resolveAt(ctx context.Context, c *upstream.Client, ref Reference) (ocispec.Descriptor, error) {
	desc, err := c.Resolve(ctx, ref.Path, ref.Tag)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	target, err := r.ownManifest(ctx, ref.Repository, desc.Digest)
	if errdefs.IsNotFound(err) {
		return r.fetchManifest(ctx, c, ref.Repository, desc.Digest)
	}
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := r.noteLink(ref.Repository, desc.Digest); err != nil { // another repository brought it
		r.Logger.WarnContext(ctx, "manifest not noted", "ref", ref.String(), "digest", desc.Digest, "err", err)
	}
	return target, nil
}
