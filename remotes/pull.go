package remotes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
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
	res, err := r.Resolve(ctx, ref)
	if err != nil {
		return PullResult{}, err
	}
	result := PullResult{Resolved: res}
	if res.Outcome == Miss { // the root came with the answer; below it is a hit
		result.Fetched = res.Descriptor.Size
	}
	blobs, err := r.collect(ctx, ref.Repository, res.Descriptor, want, &result)
	if err != nil {
		return PullResult{}, fmt.Errorf("pull %s: %w", ref, err)
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelBlobs)
	progress := make([]BlobProgress, len(blobs))
	for i, desc := range blobs {
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
	return result, nil
}

// collect brings the manifests below root and returns the blobs they name,
// each once.
func (r *Registry) collect(ctx context.Context, repo Repository, root ocispec.Descriptor, want platformChoice, result *PullResult) ([]ocispec.Descriptor, error) {
	m, err := r.Manifest(ctx, Reference{Repository: repo, Digest: root.Digest})
	if err != nil {
		return nil, err
	}
	result.Manifests++
	result.Bytes += int64(len(m.Data))
	if m.Outcome != Hit {
		result.Fetched += int64(len(m.Data))
	}
	doc, err := parseManifest(m.Data, m.Descriptor.MediaType)
	if err != nil {
		return nil, err
	}
	blobs := slices.DeleteFunc(slices.Clone(doc.blobs), func(d ocispec.Descriptor) bool {
		// Windows base layers: by their terms they come from their own URLs.
		return images.IsNonDistributable(d.MediaType)
	})
	if !doc.isIndex() {
		return blobs, nil
	}
	chosen, err := want.choose(doc.manifests)
	if err != nil {
		return nil, err
	}
	for _, child := range chosen {
		below, err := r.collect(ctx, repo, child, want, result)
		if err != nil {
			return nil, err
		}
		blobs = append(blobs, below...)
	}
	return uniqueByDigest(blobs), nil
}

func uniqueByDigest(descs []ocispec.Descriptor) []ocispec.Descriptor {
	seen := map[digest.Digest]bool{}
	return slices.DeleteFunc(descs, func(d ocispec.Descriptor) bool {
		dup := seen[d.Digest]
		seen[d.Digest] = true
		return dup
	})
}

// pullBlob brings one blob and reports on it.
func (r *Registry) pullBlob(ctx context.Context, repo Repository, desc ocispec.Descriptor, report func(BlobProgress)) (BlobProgress, error) {
	p := BlobProgress{Digest: desc.Digest, MediaType: desc.MediaType, Size: desc.Size, Outcome: Hit}
	fill, started, err := r.fill(ctx, repo, desc.Digest)
	if errdefs.IsAlreadyExists(err) {
		p.Received, p.Done = p.Size, true
		report(p)
		return p, nil
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
		p.Received, p.Size, p.Done = now.Received, max(now.Size, desc.Size), now.Done && now.Err == nil
		report(p)
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

var _ cache.Source = blobSource{}

// platformChoice says which manifests of an index are wanted.
type platformChoice struct {
	all  bool
	want []platforms.MatchComparer
	text string
}

func newPlatformChoice(texts []string) (platformChoice, error) {
	if len(texts) == 0 {
		return platformChoice{want: []platforms.MatchComparer{platforms.Default()}, text: platforms.DefaultString()}, nil
	}
	c := platformChoice{text: strings.Join(texts, ", ")}
	for _, t := range texts {
		if t == "all" {
			return platformChoice{all: true}, nil
		}
		p, err := platforms.Parse(t)
		if err != nil {
			return platformChoice{}, fmt.Errorf("platform %q: want os/arch[/variant], or all: %w", t, errors.Join(err, errdefs.ErrInvalidArgument))
		}
		c.want = append(c.want, platforms.Only(p))
	}
	return c, nil
}

// choose returns for each wanted platform the manifest that fits best.
// Manifests without a platform, as in an index of artifacts, are all taken;
// attestations (unknown/unknown) only with "all".
func (c platformChoice) choose(descs []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if c.all {
		return descs, nil
	}
	var chosen []ocispec.Descriptor
	var offered []string
	for _, d := range descs {
		if d.Platform == nil {
			chosen = append(chosen, d)
		} else if d.Platform.OS != "unknown" {
			offered = append(offered, platforms.FormatAll(*d.Platform))
		}
	}
	for _, match := range c.want {
		best := -1
		for i, d := range descs {
			if d.Platform == nil || !match.Match(*d.Platform) {
				continue
			}
			if best < 0 || match.Less(*d.Platform, *descs[best].Platform) {
				best = i
			}
		}
		if best >= 0 {
			chosen = append(chosen, descs[best])
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("no image for %s in the index, which has %s: %w", c.text, strings.Join(offered, ", "), errdefs.ErrNotFound)
	}
	return uniqueByDigest(chosen), nil
}
