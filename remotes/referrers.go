package remotes

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes/upstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ReferrerList is who names a manifest as its subject.
type ReferrerList struct {
	Manifests []ocispec.Descriptor
	Outcome   Outcome
	// Problem is why a stale answer is one.
	Problem error
}

// Referrers lists the manifests that name dgst as their subject, of one
// artifact type or of any (""). For a manifest that is stored the list is
// remembered: inside the window of the repository's tags it is answered from
// the store, outside it from upstream, and if that fails from the store again,
// stale. ECR leaves both open. Of other manifests nothing is remembered:
// anyone can ask for anything.
func (r *Registry) Referrers(ctx context.Context, repo Repository, dgst digest.Digest, artifactType string) (ReferrerList, error) {
	if err := r.Policies.Permit(repo); err != nil {
		return ReferrerList{}, err
	}
	_, err := r.Store.Link(repo.String(), dgst)
	old, stored, rerr := r.storedReferrers(repo, dgst)
	if err = errors.Join(err, rerr); err != nil { // also if the disk does not give the index
		descs, err := r.askReferrers(ctx, repo, dgst, artifactType)
		return ReferrerList{Manifests: descs, Outcome: Miss}, err
	}
	list := ReferrerList{Manifests: old.Manifests, Outcome: Hit}
	if !stored || !r.isCurrent(repo, dgst, old.Validated) {
		var asked ReferrerList
		asked, err = r.awaitReferrers(ctx, repo, dgst, stored)
		switch {
		case err == nil:
			list = asked
		case isRefusal(err) && r.IsPrivate(repo):
			return ReferrerList{}, err // not for who may not have what is private
		case stored:
			list.Outcome, list.Problem = Stale, err
		default:
			return ReferrerList{}, err
		}
	}
	if artifactType != "" {
		list.Manifests = slices.DeleteFunc(slices.Clone(list.Manifests), func(d ocispec.Descriptor) bool { return d.ArtifactType != artifactType })
	}
	return list, nil
}

// storedReferrers returns the list as it is remembered. One that nobody asked
// for yet is not stored, an empty one is.
func (r *Registry) storedReferrers(repo Repository, dgst digest.Digest) (rf cache.Referrers, stored bool, err error) {
	rf, err = r.Store.Referrers(repo.String(), dgst)
	if errdefs.IsNotFound(err) {
		return cache.Referrers{}, false, nil
	}
	return rf, err == nil && !rf.Validated.IsZero(), err
}

// isCurrent reports whether what was learnt of a manifest's companions at that
// time needs no check: they have the window of a tag.
func (r *Registry) isCurrent(repo Repository, dgst digest.Digest, learnt time.Time) bool {
	name := Reference{Repository: repo, Digest: dgst}.String()
	return r.Policies.For(repo).over(r.Freshness).IsFresh(cache.Tag{Name: name, Validated: learnt}, time.Now())
}

// awaitReferrers joins or starts the asking for a list and waits for it: as
// long as the client does, or only for a moment if something stored can be
// served.
func (r *Registry) awaitReferrers(ctx context.Context, repo Repository, dgst digest.Digest, impatient bool) (ReferrerList, error) {
	var p *haste
	if impatient {
		p = r.patience(repo.Host)
	}
	at := repo.String() + "@" + dgst.String()
	descs, mine, err := r.lists.do(ctx, perCaller(ctx, at), "list of referrers of "+at, p, func(ctx context.Context) ([]ocispec.Descriptor, error) {
		return r.reviewReferrers(ctx, repo, dgst)
	})
	if err != nil {
		return ReferrerList{}, err
	}
	list := ReferrerList{Manifests: descs, Outcome: Fill}
	if mine {
		list.Outcome = Miss
	}
	return list, nil
}

// reviewReferrers is refreshReferrers for a client; what is new in the list is
// fetched behind it.
func (r *Registry) reviewReferrers(ctx context.Context, repo Repository, dgst digest.Digest) ([]ocispec.Descriptor, error) {
	asked := time.Now()
	old, _, err := r.storedReferrers(repo, dgst)
	if err != nil {
		return nil, err
	}
	descs, err := r.refreshReferrers(ctx, repo, dgst)
	known := make(map[digest.Digest]bool, len(old.Manifests)) // lists can be long
	for _, d := range old.Manifests {
		known[d.Digest] = true
	}
	if slices.ContainsFunc(descs, func(d ocispec.Descriptor) bool { return !known[d.Digest] }) {
		r.sight(sighting{repo: repo, digest: dgst, at: asked, force: true})
	}
	return descs, err
}

// refreshReferrers asks upstream for a list and remembers it. That upstream has
// nothing there is an empty list, unless one with something in it is
// remembered: then the repository may be gone, the list stays, and the error is
// errdefs.ErrNotFound.
func (r *Registry) refreshReferrers(ctx context.Context, repo Repository, dgst digest.Digest) ([]ocispec.Descriptor, error) {
	asked := time.Now()
	descs, err := r.askReferrers(ctx, repo, dgst, "")
	old, _, serr := r.storedReferrers(repo, dgst)
	if serr != nil {
		return nil, serr
	}
	if errdefs.IsNotFound(err) && len(old.Manifests) == 0 {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	err = r.Store.ChangeReferrers(repo.String(), dgst, func(rf *cache.Referrers) {
		rf.Manifests, rf.Validated = descs, asked
	})
	if err != nil && !errdefs.IsNotFound(err) { // not found: it was removed meanwhile
		// A disk that takes no writes must not cost the answer.
		r.Logger.WarnContext(ctx, "referrers not noted", "repository", repo.String(), "digest", dgst, "err", err)
	}
	return descs, nil
}

// askReferrers asks the upstreams. What is no descriptor is left out.
func (r *Registry) askReferrers(ctx context.Context, repo Repository, dgst digest.Digest, artifactType string) (descs []ocispec.Descriptor, err error) {
	err = r.eachUpstream(ctx, repo, func(c *upstream.Client) (err error) {
		descs, err = c.Referrers(ctx, repo.Path, dgst, artifactType)
		return err
	})
	return slices.DeleteFunc(descs, func(d ocispec.Descriptor) bool { return cache.CheckDescriptor(d) != nil }), err
}
