package remotes

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
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
	defer r.Store.BeginRemoval()()
	r.refreshPins()
	img, err := r.Image(ref)
	if err != nil {
		return Removed{}, err
	}
	// A pin of the digest does not hold a tag: all that hangs on it stays.
	pins, err := r.Store.PinsOf(img.Name, ref.Digest)
	if err != nil {
		return Removed{}, err
	}
	if len(pins) > 0 {
		return Removed{}, fmt.Errorf("image %s is pinned%s: %w", img.Name, r.reasons(img.Name, pins), errdefs.ErrFailedPrecondition)
	}
	if img.Tag != nil {
		err = r.forgetTag(ref.Repository, *img.Tag)
	} else {
		// The manifest may still be a tag's: then it goes on belonging to
		// the repository.
		err = r.forgetAsked(ref)
	}
	if err != nil {
		return Removed{}, err
	}
	return r.sweep(ctx, []goneImage{{ref.Repository, img, cache.Ending{Why: cache.Removed}}})
}

// goneImage is an image whose reference is forgotten.
type goneImage struct {
	repo Repository
	ImageDetail
	why cache.Ending
}

// sweep deletes what images that are gone have left, and no reference needs.
func (r *Registry) sweep(ctx context.Context, gone []goneImage) (Removed, error) {
	tags := map[string]bool{}
	for _, img := range gone {
		maps.Copy(tags, r.companionTags(img.repo, img.ImageDetail))
	}
	reached, err := r.reachable(ctx, tags)
	if err != nil {
		return Removed{}, err
	}
	var removed Removed
	var all []error
	for _, img := range gone {
		trees, errs := r.forgetCompanions(img.repo, img.ImageDetail, reached, img.why)
		all = append(all, errs...)
		for _, tree := range append(trees, img.Tree) {
			all = append(all, r.removeTree(ctx, img.repo, tree, reached, &removed))
		}
	}
	return removed, errors.Join(all...)
}

// forgetTag forgets a tag. Where its manifest is pinned by digest, that is an
// image of its own from now on: it stays listed, and can be removed, when the
// pin is gone.
func (r *Registry) forgetTag(repo Repository, tag cache.Tag) error {
	target := Reference{Repository: repo, Digest: tag.Target.Digest}
	if r.hasPin(target) {
		if err := r.noteAsked(repo, target.Digest); err != nil {
			return err
		}
	}
	return r.Store.DeleteTag(tag.Name)
}

// reach is what hangs on stored references.
type reach struct {
	digests map[digest.Digest]bool
	of      map[string]bool // the same by repository@digest: companions are a repository's
}

func (rc reach) has(repo Repository, dgst digest.Digest) bool {
	return rc.of[repo.String()+"@"+dgst.String()]
}

// reachable finds what hangs on stored references and pins, companions included. The
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
		repo := ref.Repository.String()
		img.eachNode(func(n Node) {
			reached.digests[n.Digest] = true
			reached.of[repo+"@"+n.Digest.String()] = true
		})
	}
	return reached, r.reachPinned(reached)
}

// reachPinned adds what hangs on digests that are pinned alone. Where one
// belongs to a repository, it is a stored reference, too.
func (r *Registry) reachPinned(reached reach) error {
	pins, err := r.Store.Pins()
	if err != nil {
		return err
	}
	for _, p := range pins {
		if dgst := p.Digest(); dgst != "" && dgst.String() == p.Name {
			tree, unread := r.bareTree(dgst)
			if unread != nil {
				return fmt.Errorf("nothing is deleted, since what %s, which is pinned, needs cannot be told: %w", dgst, unread)
			}
			tree.each(func(n Node) { reached.digests[n.Digest] = true }) // in no repository in particular
		}
	}
	return nil
}

func (r *Registry) removeTree(ctx context.Context, repo Repository, n Node, reached reach, removed *Removed) error {
	var errs []error
	for _, c := range n.Children {
		errs = append(errs, r.removeTree(ctx, repo, c, reached, removed))
	}
	if reached.digests[n.Digest] {
		return errors.Join(append(errs, r.unlink(repo, n, reached))...)
	}
	reached.digests[n.Digest] = true // once, if it stands twice in the tree
	gone, err := r.Store.DeleteUnlessHeld(ctx, n.Digest)
	switch {
	case gone:
		removed.Blobs++
		removed.Bytes += n.Size
	case err == nil:
		return errors.Join(errs...) // a pull holds it
	case !errdefs.IsNotFound(err):
		errs = append(errs, err)
	}
	if isManifestNode(n) {
		errs = append(errs, r.Store.DeleteLink(repo.String(), n.Digest))
	}
	return errors.Join(errs...)
}

// unlink has a manifest that stays, because another repository needs it, no
// longer belong to this one.
func (r *Registry) unlink(repo Repository, n Node, reached reach) error {
	if reached.has(repo, n.Digest) || !isManifestNode(n) {
		return nil
	}
	_, err := r.Store.DeleteLinkUnlessHeld(repo.String(), n.Digest)
	return err
}

// isManifestNode reports whether a node may be a manifest's: one that is not
// stored may have no type.
func isManifestNode(n Node) bool { return n.MediaType == "" || cache.IsManifestMediaType(n.MediaType) }
