package remotes

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/opencontainers/go-digest"
)

// Removed says what Remove freed.
type Removed struct {
	Blobs int   `json:"blobs"`
	Bytes int64 `json:"bytes"`
}

// Remove forgets a reference and deletes what no other reference needs. A
// pinned one is errdefs.ErrFailedPrecondition.
func (r *Registry) Remove(ctx context.Context, ref Reference) (Removed, error) {
	defer r.holds.begin()()
	img, err := r.Image(ref)
	if err != nil {
		return Removed{}, err
	}
	if img.Pin != nil {
		return Removed{}, fmt.Errorf("image %s is pinned (%s): unpin it first: %w", img.Name, img.Pin.Reason, errdefs.ErrFailedPrecondition)
	}
	if img.Tag != nil {
		err = r.Store.DeleteTag(img.Name)
	} else {
		// The manifest may still be a tag's: then it goes on belonging to
		// the repository.
		err = r.Store.PutLink(cache.Link{Repository: ref.Repository.String(), Digest: ref.Digest, Created: img.Created})
	}
	if err != nil {
		return Removed{}, err
	}
	kept, err := r.reachable(ctx)
	if err != nil {
		return Removed{}, err
	}
	var removed Removed
	return removed, r.removeTree(ctx, ref.Repository, img.Tree, kept, &removed)
}

// reachable is the set of digests that hang on stored references.
func (r *Registry) reachable(ctx context.Context) (map[digest.Digest]bool, error) {
	refs, err := r.storedReferences()
	if err != nil {
		return nil, err
	}
	kept := map[digest.Digest]bool{}
	for _, ref := range refs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		img, unread, err := r.imageTree(ref)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if unread != nil {
			return nil, fmt.Errorf("nothing is deleted, since what %s needs cannot be told; larder pull %s may mend it: %w", img.Name, img.Name, unread)
		}
		markTree(img.Tree, kept)
	}
	return kept, nil
}

func markTree(n Node, kept map[digest.Digest]bool) {
	kept[n.Digest] = true
	for _, c := range n.Children {
		markTree(c, kept)
	}
}

func (r *Registry) removeTree(ctx context.Context, repo Repository, n Node, kept map[digest.Digest]bool, removed *Removed) error {
	var errs []error
	for _, c := range n.Children {
		errs = append(errs, r.removeTree(ctx, repo, c, kept, removed))
	}
	if kept[n.Digest] {
		return errors.Join(errs...)
	}
	kept[n.Digest] = true // once, if it stands twice in the tree
	gone, err := r.holds.unlessHeld(n.Digest, func() error { return r.Store.Delete(ctx, n.Digest) })
	switch {
	case gone:
		removed.Blobs++
		removed.Bytes += n.Size
	case err == nil:
		return errors.Join(errs...) // a pull holds it
	case !errdefs.IsNotFound(err):
		errs = append(errs, err)
	}
	if n.MediaType == "" || isManifestMediaType(n.MediaType) {
		errs = append(errs, r.Store.DeleteLink(repo.String(), n.Digest))
	}
	return errors.Join(errs...)
}
