package remotes

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes/upstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// Prefetch says whether all blobs of an image are brought as soon as a client pulls
// it. A client asks for few at a time, and each costs the way to upstream and back.
type Prefetch struct {
	// Parallel is how many blobs of one image are on their way at a time, those
	// included that the client brought about. 0: none is prefetched.
	Parallel int
}

// DefaultPrefetch brings twelve at a time: half of the connections for blobs that
// larder makes to an upstream by default. containerd's default is three.
func DefaultPrefetch() Prefetch { return Prefetch{Parallel: 12} }

// prefetchPatience is how long after its manifest the first layer of an image is to
// be asked for, and how long after a client last asked for a blob, or read one, more
// are begun. Who gave up does not cost the rest of the image; containerd asks for
// the next one at once.
const prefetchPatience = 30 * time.Second

// ExpectPull has the other blobs of an image brought when a client asks for a layer
// of it, if m, which a client is about to be given, is an image's manifest. The
// manifest alone says too little: ctr reads those of all platforms, with their
// configs, and others want no more than to know what an image is. It does for the
// client that asks what that will ask for itself: with its credential, under the
// policies of the repository, and for nobody else's repository. Nothing is done
// without Run.
//
// Without its data, m is one that the client reads in the store. What an index has of
// images there it then reads, too, and asks for none of them.
//
// It brings nothing that the disk does not take, or for which anything would be
// evicted, nothing from the last pulls of an allowance, and nothing that a client
// would have to wait for.
func (r *Registry) ExpectPull(repo Repository, m Manifest) {
	key := imageKey{repo: repo, digest: m.Descriptor.Digest}
	if r.Prefetch.Parallel <= 0 || m.Unstored != nil {
		return
	}
	if images.IsIndexType(m.Descriptor.MediaType) {
		r.expectStored(repo, m)
		return
	}
	if m.Outcome != Hit && m.Outcome != Stale {
		r.prefetches.whole.Remove(key)
	}
	// Images go as a whole: their blobs are there as long as the manifest is.
	if r.prefetches.whole.Contains(key) || r.prefetches.isExpected(key) {
		return
	}
	doc, err := r.documentOf(m)
	if err != nil {
		return // the client is told by whoever answers it
	}
	if blobs := imageBlobs(doc); len(blobs) > 1 {
		r.prefetches.expect(newPrefetch(key, blobs))
	} else {
		r.prefetches.whole.Add(key, nil)
	}
}

// expectStored is ExpectPull for the images of an index that a client reads in the store.
func (r *Registry) expectStored(repo Repository, index Manifest) {
	if index.Data != nil {
		return // it asks for the one that it wants
	}
	doc, err := r.documentOf(index)
	if err != nil {
		return
	}
	for _, desc := range doc.Manifests[:min(len(doc.Manifests), maxPrefetches)] {
		if !images.IsIndexType(desc.MediaType) { // and what is not stored cannot be read
			r.ExpectPull(repo, Manifest{Resolved: Resolved{Descriptor: desc, Outcome: Hit}})
		}
	}
}

// documentOf reads a manifest that is given, or in the store.
func (r *Registry) documentOf(m Manifest) (doc cache.Manifest, err error) {
	data := m.Data
	if data == nil {
		if data, err = r.readManifest(m.Descriptor.Digest); err != nil {
			return doc, err
		}
	}
	return cache.ParseManifest(data, m.Descriptor.MediaType)
}

// notePull notes that the client of ctx asks for a blob, and begins to prefetch the
// image that it belongs to.
func (r *Registry) notePull(ctx context.Context, repo Repository, dgst digest.Digest) {
	ctx, p := r.prefetches.asked(ctx, repo, dgst)
	if p == nil {
		return
	}
	go func() {
		defer r.prefetches.end(p)
		err := r.prefetch(ctx, p)
		r.Logger.DebugContext(ctx, "image prefetched", "ns", repo.Host, "repository", repo.Path, "digest", p.digest,
			"blobs", p.brought.Load(), "err", err)
	}()
}

// imageBlobs are the config and the layers of an image, each once and in the order
// of the manifest, which is containerd's; nil of anything else, such as an artifact
// or an attestation. Layers that are not to be distributed come from their own URLs.
func imageBlobs(m cache.Manifest) []ocispec.Descriptor {
	if m.Subject != "" || len(m.Blobs) < 2 || len(m.Blobs) > maxPrefetchBlobs || !images.IsConfigType(m.Blobs[0].MediaType) {
		return nil
	}
	var blobs []ocispec.Descriptor
	seen := map[digest.Digest]bool{}
	for i, d := range m.Blobs {
		if i > 0 && !images.IsLayerType(d.MediaType) || d.Size > cache.MaxBlobSize {
			return nil
		}
		if !seen[d.Digest] && !images.IsNonDistributable(d.MediaType) {
			seen[d.Digest] = true
			blobs = append(blobs, d)
		}
	}
	return blobs
}

// prefetch brings what is missing of an image, until one blob cannot be brought:
// the client that asks for it hears why.
func (r *Registry) prefetch(ctx context.Context, p *prefetch) error {
	missing, bytes := r.missing(ctx, p)
	if len(missing) > 0 && !r.Store.HasRoom(bytes) {
		return errNoFreeRoom
	}
	var group errgroup.Group
	var stopped atomic.Bool
	line := make(chan struct{}, r.Prefetch.Parallel) // has a value for each blob on its way
	for _, desc := range missing {
		line <- struct{}{}
		if stopped.Load() {
			break
		}
		arrived := sync.OnceFunc(func() { <-line })
		group.Go(func() error {
			defer arrived()
			err := r.prefetchBlob(ctx, p, desc, func(fill *cache.Fill) {
				if fill.WaitReadable(ctx, math.MaxInt64) == nil { // else it is told below, before another begins
					arrived() // what is still to be synced holds up no other
				}
			})
			if err != nil && !errors.Is(err, errMadeWay) {
				stopped.Store(true)
			}
			return err
		})
	}
	err := group.Wait()
	if err == nil {
		r.prefetches.whole.Add(p.imageKey, p.names)
	}
	return err
}

// missing are the blobs of an image that are not stored, or not known to belong to
// its repository, and the bytes of those that are to be stored.
func (r *Registry) missing(ctx context.Context, p *prefetch) (missing []ocispec.Descriptor, bytes int64) {
	for _, d := range p.blobs {
		has, err := r.Store.Has(d.Digest)
		if has && err == nil && r.belongs(ctx, p.repo, d.Digest) {
			continue
		}
		missing = append(missing, d)
		if !has {
			bytes += d.Size
		}
	}
	return missing, bytes
}

var (
	errNoFreeRoom = fmt.Errorf("not prefetched: something would have to be evicted, or the disk takes nothing: %w", errdefs.ErrResourceExhausted)
	errNotPulled  = fmt.Errorf("not prefetched: no client asks for the image's blobs: %w", errdefs.ErrUnavailable)
	errUnspared   = fmt.Errorf("not prefetched: upstream has nothing to spare: %w", errdefs.ErrUnavailable)
	errRemoved    = fmt.Errorf("not prefetched: the image was removed: %w", errdefs.ErrNotFound)
	errMadeWay    = fmt.Errorf("prefetch ended: a client needs its connection: %w", errdefs.ErrUnavailable)
)

// prefetchBlob has one blob stored. It calls await with the fill that brings it, in a
// goroutine that ends when all bytes are there.
func (r *Registry) prefetchBlob(ctx context.Context, p *prefetch, desc ocispec.Descriptor, await func(*cache.Fill)) error {
	if !r.isPulled(p) {
		return errNotPulled
	}
	s, err := r.prefetches.sit(ctx, desc.Size, r.upstreamsOf(p.repo))
	if err != nil {
		return err
	}
	defer s.leave()
	switch {
	case !r.maySpend(ctx, p.repo):
		return errUnspared
	case !r.Store.HasRoom(r.prefetches.unreserved()):
		return errNoFreeRoom
	case !r.isLinked(p.repo, p.digest):
		return errRemoved
	}
	var awaiting sync.WaitGroup
	defer awaiting.Wait()
	outcome, err := r.bringBounded(ctx, p.repo, desc, func(fill *cache.Fill, began bool) {
		s.joined(fill, began)
		awaiting.Go(func() {
			await(fill)
			s.arrived()
		})
	})
	if err != nil {
		s.abandon(err) // what the disk does not take is of no use to anybody who does not read it
		return fmt.Errorf("prefetch %s: %w", desc.Digest, err)
	}
	if outcome == Miss {
		p.brought.Add(1)
	}
	return nil
}

// upstreamsOf are the clients of a repository's upstreams.
func (r *Registry) upstreamsOf(repo Repository) []*upstream.Client {
	var clients []*upstream.Client
	for _, ep := range r.Routes.For(repo.Host) {
		clients = append(clients, r.Pool.Client(ep))
	}
	return clients
}

// isPulled reports whether a client still pulls an image.
func (r *Registry) isPulled(p *prefetch) bool {
	return r.prefetches.sinceAsked(p) < prefetchPatience ||
		slices.ContainsFunc(p.blobs, func(d ocispec.Descriptor) bool { return r.Store.IsRead(d.Digest) })
}
