package remotes

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// parallelBlobs is how many blobs of an image are brought at a time;
// containerd's default is three.
const parallelBlobs = 4

// PullOptions say what to bring of an image.
type PullOptions struct {
	// Platforms are the wanted ones, as platforms.Parse reads them. Empty
	// means this machine's; "all" means every one.
	Platforms []string
	// Report, if set, is called at every step of every blob, from several
	// goroutines.
	Report func(BlobProgress)
}

// BlobProgress is how far a blob of a pull is.
type BlobProgress struct {
	Digest    digest.Digest `json:"digest"`
	MediaType string        `json:"mediaType"`
	// Size in bytes, -1 while unknown. Received is how many are there.
	Size     int64 `json:"size"`
	Received int64 `json:"received"`
	Done     bool  `json:"done"`
	// Outcome is Hit, Fill or Miss.
	Outcome Outcome `json:"outcome"`
}

// PullResult says what a pull brought.
type PullResult struct {
	Resolved
	// Manifests counts manifests and indexes, Blobs the rest; Bytes is the
	// size of all of them, Fetched of those that came from upstream now.
	Manifests, Blobs int
	Bytes, Fetched   int64
	// Companions counts the artifacts that are stored with the image. They are
	// not in the figures above.
	Companions int
	// Unaccompanied is why some companions could not be fetched, nil if nothing
	// failed. The image is whole without them.
	Unaccompanied error
}

// Pull brings a whole image into the store: manifests, configs and layers of
// the wanted platforms. What is there is not fetched again.
func (r *Registry) Pull(ctx context.Context, ref Reference, opts PullOptions) (PullResult, error) {
	want, err := newPlatformChoice(opts.Platforms)
	if err != nil {
		return PullResult{}, err
	}
	if opts.Report == nil {
		opts.Report = func(BlobProgress) {}
	}
	// Who asks for a pull may just have put right why it was refused.
	r.negatives.forget(perCaller(ctx, ref.String()))
	res, err := r.Resolve(ctx, ref)
	if err != nil {
		return PullResult{}, err
	}
	if res.Unstored != nil {
		return PullResult{}, fmt.Errorf("pull %s: %w", ref, notStored(res.Unstored))
	}
	result := PullResult{Resolved: res}
	if res.Outcome == Miss { // the root came with the answer; below it is a hit
		result.Fetched = res.Descriptor.Size
	}
	if ref.Digest != "" {
		if err := r.noteLink(ref.Repository, ref.Digest); err != nil {
			return PullResult{}, err
		}
		if err := r.noteAsked(ref.Repository, ref.Digest); err != nil {
			return PullResult{}, err
		}
	}
	walk := manifestWalk{grip: grip{store: r.Store}, registry: r, repo: ref.Repository, want: want, result: &result, seen: map[digest.Digest]bool{}}
	defer walk.release()
	if err := walk.visit(ctx, res.Descriptor, 0); err != nil {
		return PullResult{}, fmt.Errorf("pull %s: %w", ref, err)
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelBlobs)
	progress := make([]BlobProgress, len(walk.blobs))
	for i, desc := range walk.blobs {
		group.Go(func() (err error) {
			progress[i], err = r.pullBlob(gctx, ref.Repository, desc, opts.Report)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return PullResult{}, fmt.Errorf("pull %s: %w", ref, err)
	}
	for _, p := range progress {
		result.Blobs++
		result.Bytes += p.Size
		if p.Outcome != Hit {
			result.Fetched += p.Size
		}
	}
	return result, r.pullCompanions(ctx, ref, &result, opts.Report)
}

// pullCompanions brings what belongs to a pulled image. Only the end of the
// pull is an error.
func (r *Registry) pullCompanions(ctx context.Context, ref Reference, result *PullResult, report func(BlobProgress)) error {
	s := sighting{repo: ref.Repository, digest: result.Descriptor.Digest, at: time.Now()}
	if r.Companions.Fetch && r.maySpend(ctx, s.repo) {
		// Damaged ones are brought anew although that was done lately.
		_, unread, _ := r.wholeImage(ref)
		s.force = unread != nil
		result.Unaccompanied = r.follow(ctx, s, report)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("pull %s: %w", ref, context.Cause(ctx))
	}
	img, err := r.Image(ref)
	if err != nil {
		return nil //nolint:nilerr // it was removed meanwhile, and was whole before
	}
	for _, c := range img.Companions {
		if c.Tree.Stored {
			result.Companions++
		}
	}
	return nil
}

// notStored says to who wants something stored why it is not.
func notStored(why error) error {
	return fmt.Errorf("the disk does not take it (\"larder status\" tells more): %w", why)
}

// manifestWalk brings the manifests of an image, from the root down, and
// collects the blobs they name. What stands in several places counts once.
type manifestWalk struct {
	grip
	registry *Registry
	repo     Repository
	want     platformChoice
	result   *PullResult
	seen     map[digest.Digest]bool
	blobs    []ocispec.Descriptor
}

// take notes a digest as seen, and holds it until the pull is over.
func (w *manifestWalk) take(dgst digest.Digest) {
	w.seen[dgst] = true
	w.hold(dgst)
}

func (w *manifestWalk) visit(ctx context.Context, desc ocispec.Descriptor, depth int) error {
	if w.seen[desc.Digest] {
		return nil
	}
	w.take(desc.Digest)
	if depth > maxDepth {
		return fmt.Errorf("manifest %s: indexes are nested more than %d deep: %w", desc.Digest, maxDepth, errdefs.ErrDataLoss)
	}
	m, err := w.registry.Manifest(ctx, Reference{Repository: w.repo, Digest: desc.Digest})
	if err != nil {
		return err
	}
	if m.Unstored != nil {
		return notStored(m.Unstored)
	}
	w.result.Manifests++
	w.result.Bytes += int64(len(m.Data))
	if m.Outcome != Hit {
		w.result.Fetched += int64(len(m.Data))
	}
	doc, err := cache.ParseManifest(m.Data, m.Descriptor.MediaType)
	if err != nil {
		return err
	}
	w.addBlobs(doc.Blobs)
	if !doc.IsIndex() {
		return nil
	}
	chosen, err := w.want.choose(doc.Manifests)
	if err != nil {
		return err
	}
	for _, child := range chosen {
		if err := w.visit(ctx, child, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (w *manifestWalk) addBlobs(descs []ocispec.Descriptor) {
	for _, d := range descs {
		// Windows base layers: by their terms they come from their own URLs.
		if !w.seen[d.Digest] && !images.IsNonDistributable(d.MediaType) {
			w.take(d.Digest)
			w.blobs = append(w.blobs, d)
		}
	}
}

// pullBlob brings one blob and reports on it.
func (r *Registry) pullBlob(ctx context.Context, repo Repository, desc ocispec.Descriptor, report func(BlobProgress)) (BlobProgress, error) {
	p := BlobProgress{Digest: desc.Digest, MediaType: desc.MediaType, Size: desc.Size}
	fill, started, err := r.fill(ctx, repo, desc.Digest)
	if errdefs.IsAlreadyExists(err) {
		return r.storedBlob(ctx, repo, p, report)
	}
	if err != nil {
		return p, err
	}
	p.Outcome = Fill
	if started {
		p.Outcome = Miss
	}
	for {
		now, changed := fill.Progress()
		p.Received, p.Done = now.Received, now.Done && now.Err == nil
		switch {
		case p.Done: // a manifest can be wrong about it
			p.Size = now.Received
		case now.Size >= 0:
			p.Size = now.Size
		}
		report(p)
		if now.Unstored != nil {
			return p, notStored(now.Unstored)
		}
		if now.Done && now.Err == nil && !r.mayShare(fill, repo) {
			return r.storedBlob(ctx, repo, p, report)
		}
		if now.Done && now.Err != nil && !started && ctx.Err() == nil && r.isOthers(fill, repo, now.Err) {
			return r.pullBlob(ctx, repo, desc, report)
		}
		if now.Done {
			return p, now.Err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return p, context.Cause(ctx)
		}
	}
}

// storedBlob reports a blob that is there; its size is the file's and not the
// manifest's word. A damaged one is brought anew.
func (r *Registry) storedBlob(ctx context.Context, repo Repository, p BlobProgress, report func(BlobProgress)) (BlobProgress, error) {
	b, err := r.Store.OpenVerified(ctx, p.Digest)
	if errdefs.IsNotFound(err) && ctx.Err() == nil {
		return r.pullBlob(ctx, repo, ocispec.Descriptor{Digest: p.Digest, MediaType: p.MediaType, Size: p.Size}, report)
	}
	if err != nil {
		return p, err
	}
	if err := r.prove(ctx, repo, b); err != nil {
		return p, errors.Join(err, b.Close())
	}
	p.Outcome, p.Size, p.Received, p.Done = Hit, b.Size(), b.Size(), true
	report(p)
	return p, b.Close()
}
