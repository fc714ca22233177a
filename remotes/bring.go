package remotes

import (
	"context"
	"errors"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// bringBounded has a blob stored that no client waits for, and that may not be
// larger than desc says: that is what room was asked for. Of a stored one it sees
// to it that it belongs to the repository: another may have brought it, and keep it
// from this one until its upstream has shown it, and later that may be gone.
// joined, if set, is told of the fill, and whether this call began it.
func (r *Registry) bringBounded(ctx context.Context, repo Repository, desc ocispec.Descriptor, joined func(fill *cache.Fill, began bool)) (Outcome, error) {
	b, err := r.Store.OpenVerified(ctx, desc.Digest)
	if err == nil {
		return Hit, errors.Join(r.prove(ctx, repo, b), b.Close())
	}
	if !errdefs.IsNotFound(err) {
		return "", err
	}
	src := boundedSource{Source: blobSource{registry: r, repo: repo, digest: desc.Digest, behind: true}, size: desc.Size}
	fill, began, err := r.Store.FillFor(ctx, r.origin(repo), desc.Digest, desc.Size, src)
	if errdefs.IsAlreadyExists(err) {
		return r.bringBounded(ctx, repo, desc, joined) // since we looked
	}
	if err != nil {
		return "", err
	}
	if joined != nil {
		joined(fill, began)
	}
	err = fill.Wait(ctx)
	switch {
	case err == nil && !r.mayShare(fill, repo):
		return r.bringBounded(ctx, repo, desc, joined)
	case err != nil && !began && ctx.Err() == nil && r.isOthers(fill, repo, err):
		return r.bringBounded(ctx, repo, desc, joined)
	case err != nil:
		return "", err
	case began:
		return Miss, nil
	}
	return Fill, nil
}
