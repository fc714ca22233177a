package remotes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/errdefs"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes/upstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Manifest is a stored manifest or index with its bytes.
type Manifest struct {
	Resolved
	Data []byte
}

// Manifest returns a manifest by tag or digest. One that was damaged on disk
// is thrown away and fetched again.
func (r *Registry) Manifest(ctx context.Context, ref Reference) (Manifest, error) {
	if err := r.Policies.Permit(ref.Repository); err != nil {
		return Manifest{}, err
	}
	m, err := r.manifest(ctx, ref)
	if dgst := m.Descriptor.Digest; dgst != "" && errdefs.IsDataLoss(err) {
		if err := r.throwAway(ctx, dgst, err); !errdefs.IsNotFound(err) {
			return Manifest{}, err
		}
		m, err = r.manifest(ctx, ref)
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
	if m.Data, err = r.readManifest(m.Descriptor.Digest); err != nil {
		return m, fmt.Errorf("manifest %s: %w", ref, err)
	}
	return m, nil
}

// readManifest reads a manifest from the store, once for all who want it at
// the time: nobody may change the bytes. Its size on disk may be anything, if
// someone tampered with it: it is bounded, and the digest decides.
func (r *Registry) readManifest(dgst digest.Digest) ([]byte, error) {
	data, err, _ := r.reads.Do(dgst.String(), func() (any, error) { return r.readStored(dgst) })
	if err != nil {
		return nil, err
	}
	return data.([]byte), nil
}

func (r *Registry) readStored(dgst digest.Digest) ([]byte, error) {
	b, err := r.Store.Open(dgst)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	if b.Size() > upstream.MaxManifestSize {
		return nil, fmt.Errorf("stored manifest %s has %d bytes: %w", dgst, b.Size(), errdefs.ErrDataLoss)
	}
	data := make([]byte, b.Size())
	if _, err := io.ReadFull(b, data); err != nil {
		return nil, fmt.Errorf("read %s: %w", dgst, err)
	}
	if dgst.Algorithm().FromBytes(data) != dgst {
		return nil, fmt.Errorf("stored manifest %s does not have its digest: %w", dgst, errdefs.ErrDataLoss)
	}
	return data, nil
}

// ensureManifest sees to it that a manifest is in the store. Who asks for a
// digest by name (asked), as for a pinned image, has it listed.
func (r *Registry) ensureManifest(ctx context.Context, ref Reference, asked bool) (Resolved, error) {
	res := Resolved{Outcome: Hit}
	var err error
	res.Descriptor, err = r.ownManifest(ctx, ref.Repository, ref.Digest)
	if errdefs.IsNotFound(err) {
		began := time.Now()
		res, err = r.bringManifest(ctx, Reference{Repository: ref.Repository, Digest: ref.Digest})
		if err == nil && res.Outcome == Miss {
			r.sight(sighting{repo: ref.Repository, digest: ref.Digest, at: began})
		}
	}
	if err != nil {
		return Resolved{}, err
	}
	r.holds.note(ref.Digest)
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
	desc, err := r.storedManifest(ctx, dgst)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	ok, err := r.belongs(repo, dgst)
	if err == nil && !ok {
		err = fmt.Errorf("manifest %s is not known to be one of %s: %w", dgst, repo, errdefs.ErrNotFound)
	}
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return desc, nil
}

// storedManifest describes a manifest that is in the store. What it is, the
// document says, and the index only where the document does not: what the
// index has may be another manifest's claim. A damaged one is thrown away and
// not found; a blob that is no manifest is not found either.
func (r *Registry) storedManifest(ctx context.Context, dgst digest.Digest) (ocispec.Descriptor, error) {
	info, err := r.Store.Info(ctx, dgst)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if info.Size > upstream.MaxManifestSize {
		return ocispec.Descriptor{}, fmt.Errorf("blob %s of %d bytes is no manifest: %w", dgst, info.Size, errdefs.ErrNotFound)
	}
	if desc, ok := r.described.Get(dgst); ok && desc.Size == info.Size {
		return desc, nil
	}
	data, err := r.readManifest(dgst)
	if errdefs.IsDataLoss(err) {
		return ocispec.Descriptor{}, r.throwAway(ctx, dgst, err)
	}
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	facts, err := r.Store.Facts(dgst)
	if err != nil && !errdefs.IsNotFound(err) {
		return ocispec.Descriptor{}, err
	}
	m, err := parseManifest(data, facts.MediaType)
	if err != nil {
		m, err = parseManifest(data, "")
	}
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("blob %s: %v: %w", dgst, err, errdefs.ErrNotFound) //nolint:errorlint // nothing is damaged: it is another thing
	}
	desc := m.describe(dgst, data)
	r.described.Add(dgst, desc)
	return desc, nil
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

// fetchManifest brings a manifest from one upstream into the store, with what
// it says of its blobs and to which repository it belongs.
func (r *Registry) fetchManifest(ctx context.Context, c *upstream.Client, repo Repository, dgst digest.Digest) (ocispec.Descriptor, error) {
	data, contentType, err := c.Manifest(ctx, repo.Path, dgst)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	m, err := parseManifest(data, contentType)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%s@%s from %s: %w", repo, dgst, c.Endpoint(), err)
	}
	err = r.Store.Put(ctx, dgst, data, cache.Facts{MediaType: m.mediaType, Source: c.Endpoint().String()})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return m.describe(dgst, data), errors.Join(
		r.Store.NoteDescriptors(m.children()),
		r.noteFound(repo, dgst),
	)
}
