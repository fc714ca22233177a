package remotes

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/opencontainers/go-digest"
)

const (
	// maxSubjects bounds the manifests of one image that are asked about: the
	// root, and the platforms that are stored.
	maxSubjects = 16
	// maxDeep bounds the artifacts of one manifest that are asked about in
	// their turn, such as an SBOM for its signature.
	maxDeep = 16
)

// follow brings the companions of an image: of its manifest and, if that is an
// index, of its manifests that are stored. What was followed lately is left
// alone.
func (r *Registry) follow(ctx context.Context, s sighting, report func(BlobProgress)) error {
	f := &follower{registry: r, sighting: s, grip: grip{store: r.Store}, report: report, seen: map[digest.Digest]bool{}}
	defer f.release()
	var errs []error
	for _, subject := range r.subjects(s.repo, s.digest) {
		if err := f.subject(ctx, subject); err != nil {
			errs = append(errs, fmt.Errorf("companions of %s@%s: %w", s.repo, subject, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// subjects are the manifests of an image that are asked about, its root first.
func (r *Registry) subjects(repo Repository, root digest.Digest) []digest.Digest {
	subjects := []digest.Digest{root}
	data, err := r.readManifest(root)
	if err != nil {
		return subjects // it was removed, or is damaged: subject finds out
	}
	m, err := cache.ParseManifest(data, "")
	if err != nil || !m.IsIndex() {
		return subjects
	}
	for _, child := range m.Manifests {
		if len(subjects) < maxSubjects && !isAttestation(child) && r.isLinked(repo, child.Digest) {
			subjects = append(subjects, child.Digest)
		}
	}
	return subjects
}

// isFollowed reports whether a manifest that was followed at that time is left
// alone now.
func (r *Registry) isFollowed(repo Repository, dgst digest.Digest, at time.Time) bool {
	age := time.Since(at)
	return age >= 0 && age < followPause || r.isCurrent(repo, dgst, at)
}

// follower brings the companions of one image.
type follower struct {
	sighting
	grip
	registry  *Registry
	report    func(BlobProgress)
	seen      map[digest.Digest]bool // artifacts that were looked after
	manifests int                    // that were looked at
	budget    int64                  // bytes that the artifact at hand may still have
	spent     int64                  // bytes that those before it have
}

// subject brings the companions of one manifest, and theirs.
func (f *follower) subject(ctx context.Context, dgst digest.Digest) error {
	release, err := f.registry.backlog.claim(ctx, f.repo.String()+"@"+dgst.String())
	if err != nil {
		return err
	}
	defer release()
	rf, _, err := f.registry.storedReferrers(f.repo, dgst)
	if err != nil {
		return err
	}
	if !rf.Followed.Before(f.at) || !f.force && f.registry.isFollowed(f.repo, dgst, rf.Followed) {
		return nil
	}
	referrers, rerr := f.referrers(ctx, dgst)
	tagged, terr := f.tagged(ctx, dgst, cache.CosignSuffixes())
	errs := []error{rerr, terr}
	// What came by one way is asked about by that way: nobody signs a signature
	// of cosign's by a referrer.
	for i, artifact := range referrers {
		if i < maxDeep {
			_, err := f.referrers(ctx, artifact)
			errs = append(errs, err)
		}
	}
	for _, artifact := range tagged {
		_, err := f.tagged(ctx, artifact, cache.CosignSuffixes()[:1])
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	err = f.registry.Store.ChangeReferrers(f.repo.String(), dgst, func(rf *cache.Referrers) { rf.Followed = f.at })
	if errdefs.IsNotFound(err) {
		return nil // removed meanwhile
	}
	return err
}

// referrers brings the referrers of a manifest, and returns those that are
// stored now.
func (f *follower) referrers(ctx context.Context, subject digest.Digest) (stored []digest.Digest, err error) {
	rf, _, err := f.registry.storedReferrers(f.repo, subject)
	if err != nil {
		return nil, err
	}
	list := rf.Manifests
	if rf.Validated.Before(f.at) {
		fresh, err := f.registry.refreshReferrers(ctx, f.repo, subject)
		switch {
		case err == nil:
			list = fresh
		case !errdefs.IsNotFound(err): // else the list that is stored stays
			return nil, err
		}
	}
	var errs []error
	for _, desc := range list {
		if !cache.IsManifestMediaType(desc.MediaType) {
			continue // ORAS's own kind of artifact, for instance: not asked for by containerd's world
		}
		ok, err := f.artifact(ctx, subject, desc.Digest, true)
		if ok {
			stored = append(stored, desc.Digest)
		}
		errs = append(errs, err)
	}
	return stored, errors.Join(errs...)
}

// tagged brings what cosign keeps for a manifest under tags of its own, and
// returns what is stored now. That there is no such tag is the normal case.
func (f *follower) tagged(ctx context.Context, subject digest.Digest, suffixes []string) (stored []digest.Digest, err error) {
	var errs []error
	for _, suffix := range suffixes {
		ref, ok := companionTag(f.repo, subject, suffix)
		if !ok {
			continue
		}
		// An immutable one is not to be asked about, once it is known.
		force := f.force && !f.registry.Policies.For(f.repo).Immutable(ref.Tag)
		res, err := f.registry.resolveTag(ctx, ref, force)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		ok, err = f.artifact(ctx, subject, res.Descriptor.Digest, false)
		if ok {
			stored = append(stored, res.Descriptor.Digest)
		}
		errs = append(errs, err)
	}
	return stored, errors.Join(errs...)
}
