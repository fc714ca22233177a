package remotes

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes/upstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Manifest is a manifest or index with its bytes.
type Manifest struct {
	Resolved
	Data []byte
}

// Manifest returns a manifest by tag or digest. One that was damaged on disk
// is set aside and fetched again.
func (r *Registry) Manifest(ctx context.Context, ref Reference) (Manifest, error) {
	if err := r.Policies.Permit(ref.Repository); err != nil {
		return Manifest{}, err
	}
	m, err := r.manifest(ctx, ref)
	if dgst := m.Descriptor.Digest; dgst != "" && errdefs.IsDataLoss(err) {
		if err := r.setAside(ctx, dgst, err); !errdefs.IsNotFound(err) {
			return Manifest{}, err
		}
		m, err = r.manifest(ctx, ref)
	}
	if dgst := m.Descriptor.Digest; dgst != "" && err != nil {
		// It is there, and the disk does not give it.
		if perr := r.passManifest(ctx, ref.Repository, dgst, err); perr != nil {
			return Manifest{}, fmt.Errorf("%w; %w", perr, err)
		}
		m.Outcome, m.Unstored = Miss, err
		m.Data, err = r.manifestData(ref.Repository, dgst)
	}
	if err != nil {
		return Manifest{}, err
	}
	return m, nil
}

func (r *Registry) manifest(ctx context.Context, ref Reference) (m Manifest, err error) {
	if ref.Digest != "" {
		m.Resolved, err = r.ensureManifest(ctx, ref, false)
	} else {
		m.Resolved, err = r.resolveTag(ctx, ref, false)
	}
	if err != nil {
		return Manifest{}, err
	}
	if m.Data, err = r.manifestData(ref.Repository, m.Descriptor.Digest); err != nil {
		return m, fmt.Errorf("manifest %s: %w", ref, err)
	}
	return m, nil
}

// manifestData returns the bytes of a manifest that was brought for a repository.
func (r *Registry) manifestData(repo Repository, dgst digest.Digest) ([]byte, error) {
	if m, ok := r.passed.get(repo, dgst); ok {
		return m.data, nil
	}
	return r.readManifest(dgst)
}

// readManifest reads a manifest from the store, once for all who want it at
// the time: nobody may change the bytes.
func (r *Registry) readManifest(dgst digest.Digest) ([]byte, error) {
	if data, ok := r.Store.ManifestInMemory(dgst); ok {
		return data, nil
	}
	data, err, _ := r.reads.Do(dgst.String(), func() (any, error) { return r.Store.ReadManifest(dgst) })
	if err != nil {
		return nil, err
	}
	return data.([]byte), nil
}

// ensureManifest sees to it that a manifest is at hand. Who asks for a
// digest by name (asked), as for a pinned image, has it listed.
func (r *Registry) ensureManifest(ctx context.Context, ref Reference, asked bool) (Resolved, error) {
	res := Resolved{Outcome: Hit}
	var err error
	res.Descriptor, err = r.ownManifest(ctx, ref.Repository, ref.Digest)
	if errdefs.IsNotFound(err) {
		began := time.Now()
		res, err = r.bringManifest(ctx, Reference{Repository: ref.Repository, Digest: ref.Digest})
		if err == nil && res.Outcome == Miss && r.passed.why(ref.Repository, ref.Digest) == nil {
			r.sight(sighting{repo: ref.Repository, digest: ref.Digest, at: began})
		}
	}
	if err != nil {
		return Resolved{}, err
	}
	if res.Unstored = r.passed.why(ref.Repository, ref.Digest); res.Unstored != nil {
		res.Outcome = Miss
		return res, nil //nolint:nilerr // it is at hand
	}
	r.Store.NoteServed(ref.Digest)
	r.Store.Touch("", ref.Digest)
	if asked {
		// Book-keeping: a disk that takes no writes must not cost the answer.
		if err := r.noteWanted(ref.Repository, ref.Digest); err != nil {
			r.Logger.WarnContext(ctx, "digest not noted as asked for", "ref", ref.String(), "err", err)
		}
	}
	return res, nil
}

// ownManifest is storedManifest of a repository. One that does not belong to it
// is not found: what the repository's upstream then sends shows that it does.
func (r *Registry) ownManifest(ctx context.Context, repo Repository, dgst digest.Digest) (ocispec.Descriptor, error) {
	if m, ok := r.takePassed(ctx, repo, dgst); ok {
		return m.descriptor, nil
	}
	desc, err := r.storedManifest(ctx, dgst)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if !r.belongs(ctx, repo, dgst) {
		return ocispec.Descriptor{}, fmt.Errorf("manifest %s is not known to be one of %s: %w", dgst, repo, errdefs.ErrNotFound)
	}
	return desc, nil
}

// storedManifest describes a manifest that is in the store. What it is, the
// document says, and the index only where the document does not: what the
// index has may be another manifest's claim. A damaged one is set aside and
// not found; a blob that is no manifest is not found either, nor one that the
// disk does not give.
func (r *Registry) storedManifest(ctx context.Context, dgst digest.Digest) (ocispec.Descriptor, error) {
	size, err := r.Store.Size(dgst)
	if err != nil {
		return ocispec.Descriptor{}, asNotFound(dgst, err)
	}
	if size > cache.MaxManifestSize {
		return ocispec.Descriptor{}, fmt.Errorf("blob %s of %d bytes is no manifest: %w", dgst, size, errdefs.ErrNotFound)
	}
	if desc, ok := r.described.Get(dgst); ok && desc.Size == size {
		return desc, nil
	}
	data, err := r.readManifest(dgst)
	if errdefs.IsDataLoss(err) {
		return ocispec.Descriptor{}, r.setAside(ctx, dgst, err)
	}
	if err != nil {
		return ocispec.Descriptor{}, asNotFound(dgst, err)
	}
	facts, _ := r.Store.Facts(dgst) // none, or an index that cannot be read: the document says enough
	m, err := cache.ParseStored(data, facts.MediaType)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("blob %s: %v: %w", dgst, err, errdefs.ErrNotFound) //nolint:errorlint // nothing is damaged: it is another thing
	}
	desc := m.Describe(dgst, data)
	r.described.Add(dgst, desc)
	return desc, nil
}

// asNotFound makes "not found" of what the disk says of a blob: upstream has it,
// and a pull must not fail for a disk.
func asNotFound(dgst digest.Digest, err error) error {
	if errdefs.IsNotFound(err) {
		return err
	}
	return fmt.Errorf("blob %s: %v: %w", dgst, err, errdefs.ErrNotFound) //nolint:errorlint // see above
}

// maxDescribed bounds the memory of what manifests are: about 200 bytes each.
const maxDescribed = 4096

func newDescribed() *lru.Cache[digest.Digest, ocispec.Descriptor] {
	described, _ := lru.New[digest.Digest, ocispec.Descriptor](maxDescribed) // fails only for a size below 1
	return described
}

// bringManifest brings a manifest by digest, once for all who wait.
func (r *Registry) bringManifest(ctx context.Context, ref Reference) (Resolved, error) {
	key := perCaller(ctx, ref.String())
	if err := r.negatives.recall(key); err != nil {
		return Resolved{}, err
	}
	desc, mine, err := r.manifests.do(ctx, key, "manifest "+ref.String(), nil, func(ctx context.Context) (desc ocispec.Descriptor, err error) {
		// Between the caller's look and now somebody may have brought it.
		if desc, err = r.ownManifest(ctx, ref.Repository, ref.Digest); err == nil {
			return desc, nil
		}
		err = r.eachUpstream(ctx, ref.Repository, func(c *upstream.Client) (err error) {
			desc, err = r.fetchManifest(ctx, c, ref.Repository, ref.Digest)
			return err
		})
		if err != nil {
			r.negatives.note(key, err)
		} else {
			r.negatives.forget(key)
		}
		return desc, err
	})
	if err != nil {
		return Resolved{}, err
	}
	res := Resolved{Descriptor: desc, Outcome: Fill}
	if mine {
		res.Outcome = Miss
	}
	return res, nil
}

// fetchManifest brings a manifest from one upstream into the store, or to hand if
// the disk does not take it.
func (r *Registry) fetchManifest(ctx context.Context, c *upstream.Client, repo Repository, dgst digest.Digest) (ocispec.Descriptor, error) {
	m, err := r.askManifest(ctx, c, repo, dgst)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return r.keepManifest(ctx, repo, m), nil
}

// askManifest fetches a manifest from one upstream.
func (r *Registry) askManifest(ctx context.Context, c *upstream.Client, repo Repository, dgst digest.Digest) (passedManifest, error) {
	data, contentType, err := c.Manifest(ctx, repo.Path, dgst)
	if err != nil {
		return passedManifest{}, err
	}
	return received(c, Reference{Repository: repo, Digest: dgst}, dgst, data, contentType)
}

// received is a manifest that an upstream has sent for a reference.
func received(c *upstream.Client, ref Reference, dgst digest.Digest, data []byte, contentType string) (passedManifest, error) {
	m, err := cache.ParseManifest(data, contentType)
	if err != nil {
		return passedManifest{}, fmt.Errorf("%s from %s: %w", ref, c.Endpoint(), err)
	}
	return passedManifest{descriptor: m.Describe(dgst, data), manifest: m, data: data, source: c.Endpoint().String()}, nil
}
