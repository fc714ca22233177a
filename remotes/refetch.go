package remotes

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/opencontainers/go-digest"
)

// place is a repository whose upstreams may have a blob.
type place struct {
	repo Repository
	// isManifest says that it is one there, and is asked for as such.
	isManifest bool
}

var _ cache.Refetcher = (*Registry)(nil)

// Refetch implements cache.Refetcher: it brings a blob that was lost from any
// repository that is known to have it, under that one's policies and with
// larder's own credential. Those that sent it or showed that they have it come
// first, then those with an image that names it.
func (r *Registry) Refetch(ctx context.Context, dgst digest.Digest) (source string, err error) {
	known, err := r.knownPlaces(dgst)
	if err != nil {
		return "", err
	}
	tried := map[place]bool{}
	source, err = r.bringFrom(ctx, dgst, known, tried)
	if err == nil {
		return source, nil
	}
	images, ierr := r.imagesWith(ctx, map[digest.Digest]bool{dgst: true})
	if ierr != nil {
		return "", errors.Join(err, ierr)
	}
	var named []place
	for _, f := range images[dgst] {
		named = append(named, place{f.ref.Repository, f.isManifest})
	}
	source, more := r.bringFrom(ctx, dgst, named, tried)
	if more == nil {
		return source, nil
	}
	if errdefs.IsNotFound(err) || len(tried) == 0 {
		err = more
	}
	return "", fmt.Errorf("fetch %s again for %s: %w", dgst, namesOf(images[dgst]), err)
}

// bringFrom tries places until one has the blob. The error is the most telling
// one.
func (r *Registry) bringFrom(ctx context.Context, dgst digest.Digest, places []place, tried map[place]bool) (source string, _ error) {
	telling := fmt.Errorf("no repository is known to have it: %w", errdefs.ErrNotFound)
	for i, p := range places {
		if tried[p] {
			continue
		}
		tried[p] = true
		err := r.bringAgain(ctx, p, dgst)
		if err == nil {
			facts, err := r.Store.Facts(dgst)
			if err != nil && !errdefs.IsNotFound(err) {
				return "", err
			}
			return facts.Source, nil
		}
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		if i == 0 || weight(err) > weight(telling) {
			telling = fmt.Errorf("%s: %w", p.repo, err)
		}
	}
	return "", telling
}

func (r *Registry) bringAgain(ctx context.Context, p place, dgst digest.Digest) error {
	if err := r.Policies.Permit(p.repo); err != nil {
		return err
	}
	if err := r.offline(p.repo); err != nil {
		return err
	}
	if p.isManifest {
		_, err := r.bringManifest(ctx, Reference{Repository: p.repo, Digest: dgst})
		return err
	}
	fill, _, err := r.fill(ctx, p.repo, dgst)
	if errdefs.IsAlreadyExists(err) {
		return nil // somebody else brought it
	}
	if err != nil {
		return err
	}
	return fill.Wait(ctx)
}

// knownPlaces are the repositories that the index has for a blob: its holders,
// and those that it belongs to as a manifest.
func (r *Registry) knownPlaces(dgst digest.Digest) ([]place, error) {
	var all []place
	seen := map[Repository]bool{}
	add := func(name string) error {
		ref, err := parseName(name + "@" + dgst.String())
		if err != nil || seen[ref.Repository] {
			return nil //nolint:nilerr // what is not as larder writes it, it did not write
		}
		seen[ref.Repository] = true
		_, err = r.Store.Link(ref.Repository.String(), dgst)
		if err != nil && !errdefs.IsNotFound(err) {
			return err
		}
		all = append(all, place{ref.Repository, err == nil})
		return nil
	}
	holders, err := r.Store.Holders(dgst)
	if err != nil {
		return nil, err
	}
	for _, h := range holders {
		if err := add(h); err != nil {
			return nil, err
		}
	}
	links, err := r.Store.Links()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		if l.Digest != dgst {
			continue
		}
		if err := add(l.Repository); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// imageUse is an image in which a blob stands.
type imageUse struct {
	ref        Reference
	isManifest bool
}

// imagesWith finds the stored images in whose trees, or companions', blobs
// stand.
func (r *Registry) imagesWith(ctx context.Context, wanted map[digest.Digest]bool) (map[digest.Digest][]imageUse, error) {
	refs, err := r.storedReferences()
	if err != nil {
		return nil, err
	}
	all := map[digest.Digest][]imageUse{}
	for _, ref := range refs {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		img, _, err := r.wholeImage(ref)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		here := map[digest.Digest]bool{}
		img.eachNode(func(n Node) {
			if wanted[n.Digest] && !here[n.Digest] {
				here[n.Digest] = true
				root := n.Digest == img.Tree.Digest
				all[n.Digest] = append(all[n.Digest], imageUse{ref, root || cache.IsManifestMediaType(n.MediaType)})
			}
		})
	}
	return all, nil
}

// namesOf names a few images.
func namesOf(uses []imageUse) string {
	const most = 3
	var names []string
	for i, use := range uses {
		if i == most {
			names = append(names, fmt.Sprintf("%d more", len(uses)-most))
			break
		}
		names = append(names, use.ref.name())
	}
	if len(names) == 0 {
		return "no image"
	}
	return strings.Join(names, ", ")
}
