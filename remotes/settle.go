package remotes

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
)

// settles reports whether a stored tag is served without ever being checked.
func (p Policy) settles(tag string) bool { return p.Mode == ModeOffline || p.Immutable(tag) }

// settle answers a tag that is never checked once it is stored. settled is
// false for an immutable tag that is not known yet: the first one has to come
// from somewhere. An immutable tag whose manifest was lost is brought by its
// digest: by its tag it could be another one.
func (r *Registry) settle(ctx context.Context, p Policy, ref Reference, tag cache.Tag, stored, force bool) (res Resolved, settled bool, err error) {
	known := tag.Name != "" // also when the manifest is lost
	switch {
	case stored && !force:
		return r.serveTag(tag, Hit, nil), true, nil
	case known && p.Immutable(ref.Tag) && force:
		return Resolved{}, true, fmt.Errorf("refresh %s: the tag is immutable by %s (image_tag_mutability) and stays %s; remove it to have the next pull bring it anew: %w",
			ref, p.mutability, tag.Target.Digest, errdefs.ErrFailedPrecondition)
	case known && p.Immutable(ref.Tag):
		res, err := r.ensureManifest(ctx, Reference{Repository: ref.Repository, Digest: tag.Target.Digest}, false)
		if err == nil {
			r.Store.Touch(tag.Name, tag.Target.Digest)
		}
		return res, true, err
	}
	err = r.offline(ref.Repository)
	return Resolved{}, err != nil, err
}

// offline returns errdefs.ErrUnavailable, naming who says so, for a repository
// whose upstreams are never asked.
func (r *Registry) offline(repo Repository) error {
	p := r.Policies.For(repo)
	if p.Mode != ModeOffline {
		return nil
	}
	return fmt.Errorf("%s is offline by %s (mode = %q), no upstream is asked: %w", repo, p.mode, ModeOffline, errdefs.ErrUnavailable)
}
