package remotes

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// AwaitBlob is for a client that writes to larder's store and is about to fetch a blob
// into it, of which it tells the digest alone: a containerd whose content store larder
// is. It waits until the blob is stored, or nobody brings it any more.
//
// A blob that is missing is brought as for a client that asks for it, if one image that
// a client was given the manifest of has it: see ExpectPull. That says for which
// repository, and which others are wanted. It is not, of a repository that is private:
// the client shows its secret when it asks by name.
//
// It calls moved as Fill.WaitMoving does. It returns errdefs.ErrNotFound
// if nobody brings the blob, and as Fill.Wait does.
func (r *Registry) AwaitBlob(ctx context.Context, dgst digest.Digest, moved func()) error {
	if has, err := r.Store.Has(dgst); has && err == nil {
		return nil
	}
	repo, ok := r.prefetches.repositoryOf(dgst)
	if !ok || r.IsPrivate(repo) || r.Policies.Permit(repo) != nil {
		return r.Store.AwaitFill(ctx, dgst, moved)
	}
	r.notePull(ctx, repo, dgst)
	rd, _, err := r.Store.OpenFill(ctx, ctx, r.origin(repo), dgst, r.hint(dgst), blobSource{registry: r, repo: repo, digest: dgst})
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("bring %s: %w", dgst, err)
	}
	return errors.Join(rd.Fill().WaitMoving(ctx, moved), rd.Close())
}
