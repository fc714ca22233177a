package remotes

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// maxReferrers bounds the artifacts that are fetched for one image.
	maxReferrers = 100
	// maxShares bounds what all of them may have together, in times of what one
	// may.
	maxShares = 4
)

// artifact brings one companion with its blobs. It reports whether that was
// done now. refers says that the manifest has to name the subject: what a list
// says alone would make a companion of any manifest.
func (f *follower) artifact(ctx context.Context, subject, dgst digest.Digest, refers bool) (ok bool, err error) {
	// A removal of the image ends its companions, too; and an image is not its
	// own companion, whatever a tag points to.
	if f.seen[dgst] || dgst == subject || dgst == f.digest || !f.registry.isLinked(f.repo, subject) {
		return false, ctx.Err()
	}
	f.seen[dgst] = true
	most := f.registry.Companions.MaxSize
	allowed := min(most, maxShares*most-f.spent)
	f.budget = allowed
	m, err := f.manifest(ctx, dgst)
	switch {
	case err != nil:
	case refers && m.Subject != subject:
		return false, fmt.Errorf("artifact %s is listed as a referrer of %s and does not name it: %w", dgst, subject, errdefs.ErrDataLoss)
	default:
		err = f.content(ctx, m)
	}
	if errors.Is(err, errTooLarge) {
		f.registry.Logger.DebugContext(ctx, "companion not fetched", "repository", f.repo.String(), "digest", dgst, "err", err)
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("artifact %s: %w", dgst, err)
	}
	f.spent += allowed - f.budget
	return true, f.registry.noteCompanion(f.repo, dgst)
}

var errTooLarge = fmt.Errorf("artifact is beyond the bounds for companions: %w", errdefs.ErrOutOfRange)

// manifest brings one manifest of an artifact.
func (f *follower) manifest(ctx context.Context, dgst digest.Digest) (cache.Manifest, error) {
	if f.manifests >= maxReferrers {
		return cache.Manifest{}, errTooLarge
	}
	f.manifests++
	f.hold(dgst)
	r := f.registry
	_, err := r.ownManifest(ctx, f.repo, dgst)
	if errdefs.IsNotFound(err) {
		_, err = r.bringManifest(ctx, Reference{Repository: f.repo, Digest: dgst})
	} else if err == nil {
		err = r.noteLink(f.repo, dgst) // another repository may have brought it
	}
	if err != nil {
		return cache.Manifest{}, err
	}
	if why := r.passed.why(f.repo, dgst); why != nil {
		return cache.Manifest{}, notStored(why)
	}
	data, err := r.readManifest(dgst)
	if err != nil {
		return cache.Manifest{}, err
	}
	return cache.ParseManifest(data, "")
}

// content brings what an artifact's manifest names, if all of it is within the
// bounds. An artifact may be an index of manifests, and nothing deeper.
func (f *follower) content(ctx context.Context, m cache.Manifest) error {
	blobs := m.Blobs
	for _, child := range m.Manifests {
		cm, err := f.manifest(ctx, child.Digest)
		if err != nil {
			return err
		}
		blobs = append(blobs, cm.Blobs...)
	}
	for _, blob := range blobs {
		if f.budget -= blob.Size; f.budget < 0 {
			return errTooLarge
		}
	}
	for _, blob := range blobs {
		if images.IsNonDistributable(blob.MediaType) {
			continue
		}
		if err := f.blob(ctx, blob); err != nil {
			return err
		}
	}
	return nil
}

// blob brings one blob, which may not be larger than its manifest says: that is
// what the budget was asked for.
func (f *follower) blob(ctx context.Context, desc ocispec.Descriptor) error {
	f.hold(desc.Digest)
	outcome, err := f.registry.bringBounded(ctx, f.repo, desc, nil)
	if err != nil {
		return err
	}
	f.report(BlobProgress{Digest: desc.Digest, MediaType: desc.MediaType, Size: desc.Size, Received: desc.Size, Done: true, Outcome: outcome})
	return nil
}

// errLonger is of who asked for no more than a manifest says, and nobody else's.
var errLonger = fmt.Errorf("blob is longer than its manifest says: %w", errdefs.ErrDataLoss)

// boundedSource fails where a blob is longer than it should be.
type boundedSource struct {
	cache.Source
	size int64
}

// Open implements cache.Source.
func (s boundedSource) Open(ctx context.Context, offset int64) (cache.Stream, error) {
	stream, err := s.Source.Open(ctx, offset)
	if err != nil {
		return stream, err
	}
	if stream.Size > s.size {
		return cache.Stream{}, errors.Join(fmt.Errorf("%d bytes and not %d: %w", stream.Size, s.size, errLonger), stream.Body.Close())
	}
	stream.Body = &boundedBody{ReadCloser: stream.Body, left: s.size - offset}
	return stream, nil
}

type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, errLonger
	}
	return n, err
}
