package remotes

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// Removed says what Remove freed.
type Removed struct {
	Blobs int   `json:"blobs"`
	Bytes int64 `json:"bytes"`
}

// Remove forgets a reference with its companions, and deletes what no other
// reference needs. A pinned one is errdefs.ErrFailedPrecondition.
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
		err = r.forgetAsked(ref)
	}
	if err != nil {
		return Removed{}, err
	}
	reached, err := r.reachable(ctx, r.companionTags(ref.Repository, img))
	if err != nil {
		return Removed{}, err
	}
	var removed Removed
	trees, errs := r.forgetCompanions(ref.Repository, img, reached)
	for _, tree := range append(trees, img.Tree) {
		errs = append(errs, r.removeTree(ctx, ref.Repository, tree, reached.digests, &removed))
	}
	return removed, errors.Join(errs...)
}

// reach is what hangs on stored references.
type reach struct {
	digests map[digest.Digest]bool
	of      map[string]bool // the same by repository@digest: companions are a repository's
}

func (rc reach) has(repo Repository, dgst digest.Digest) bool {
	return rc.of[repo.String()+"@"+dgst.String()]
}

func (rc reach) mark(repo Repository, n Node) {
	rc.digests[n.Digest] = true
	rc.of[repo.String()+"@"+n.Digest.String()] = true
	for _, c := range n.Children {
		rc.mark(repo, c)
	}
}

// reachable finds what hangs on stored references, companions included. The
// names in except count only as companions of something else.
func (r *Registry) reachable(ctx context.Context, except map[string]bool) (reach, error) {
	refs, err := r.storedReferences()
	if err != nil {
		return reach{}, err
	}
	reached := reach{digests: map[digest.Digest]bool{}, of: map[string]bool{}}
	for _, ref := range refs {
		if err := ctx.Err(); err != nil {
			return reach{}, err
		}
		if except[ref.name()] {
			continue
		}
		img, unread, err := r.wholeImage(ref)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return reach{}, err
		}
		if unread != nil {
			return reach{}, fmt.Errorf("nothing is deleted, since what %s needs cannot be told; larder pull %s may mend it: %w", img.Name, img.Name, unread)
		}
		reached.mark(ref.Repository, img.Tree)
		for _, c := range img.Companions {
			reached.mark(ref.Repository, c.Tree)
		}
	}
	return reached, nil
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
