package remotes

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// maxPrefetches bounds the images that are expected or prefetched at a time;
	// others are left to their clients.
	maxPrefetches = 32
	// maxSeats bounds the blobs of all of them that are on their way, and so the
	// memory: about 350 KiB each.
	maxSeats = 24
	// maxWhole bounds the memory of images of which nothing is missing, and
	// maxPrefetchBlobs the blobs of each; Docker's images have up to 128.
	maxWhole         = 512
	maxPrefetchBlobs = 256
)

// imageKey is an image of a repository.
type imageKey struct {
	repo   Repository
	digest digest.Digest
}

// prefetch is an image whose blobs are brought ahead, or will be when a client asks
// for a layer of it.
type prefetch struct {
	imageKey
	blobs   []ocispec.Descriptor
	names   map[digest.Digest]bool // of the blobs
	brought atomic.Int32           // blobs that came by it

	// The prefetches' mu guards what follows.
	last   time.Time               // when it was expected, or a client asked for a blob of it
	cancel context.CancelCauseFunc // nil while it is not prefetched
	over   bool                    // it was, and could not be as a whole
}

func newPrefetch(key imageKey, blobs []ocispec.Descriptor) *prefetch {
	p := &prefetch{imageKey: key, blobs: blobs, names: map[digest.Digest]bool{}, last: time.Now()}
	for _, d := range blobs {
		p.names[d.Digest] = true
	}
	return p
}

// prefetches are the images whose blobs are brought ahead, and the blobs of them
// that are on their way. It is safe for concurrent use.
type prefetches struct {
	whole *lru.Cache[imageKey, map[digest.Digest]bool] // images of which nothing was missing, with their blobs

	mu      sync.Mutex // guards what follows; before the store's
	open    bool       // keep runs
	images  map[imageKey]*prefetch
	seats   []*seat       // in the order in which they were taken
	changed chan struct{} // closed, and replaced, when one is left, or its connection
	running sync.WaitGroup
}

func newPrefetches() *prefetches {
	whole, _ := lru.New[imageKey, map[digest.Digest]bool](maxWhole) // fails only for a size below 1
	return &prefetches{whole: whole, images: map[imageKey]*prefetch{}, changed: make(chan struct{})}
}

// keep lets images be prefetched until ctx ends, and returns when all has stopped.
// Fills that were begun go on, as all do.
func (ps *prefetches) keep(ctx context.Context) {
	ps.mu.Lock()
	ps.open = true
	ps.mu.Unlock()
	<-ctx.Done()
	ps.mu.Lock()
	ps.open = false
	for key, p := range ps.images {
		if p.cancel == nil {
			delete(ps.images, key)
		} else {
			p.cancel(context.Cause(ctx))
		}
	}
	ps.mu.Unlock()
	ps.running.Wait()
}

// isExpected reports whether an image is expected or prefetched. One that is, goes
// on to be, and is begun again if it could not be prefetched as a whole.
func (ps *prefetches) isExpected(key imageKey) bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p, ok := ps.images[key]
	if ok {
		p.last, p.over = time.Now(), false
	}
	return ok
}

// expect takes an image in, in place of one that is expected longer if there are
// too many.
func (ps *prefetches) expect(p *prefetch) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if _, known := ps.images[p.imageKey]; known || !ps.open {
		return
	}
	if len(ps.images) >= maxPrefetches {
		oldest := p
		for _, o := range ps.images {
			if o.cancel == nil && o.last.Before(oldest.last) {
				oldest = o
			}
		}
		if oldest == p {
			return
		}
		delete(ps.images, oldest.imageKey)
	}
	ps.images[p.imageKey] = p
}

// asked notes that a client asks for a blob. If that says which image it pulls, and
// the image is not prefetched yet, it is returned, with a context that has the
// values of ctx and ends with keep; end is to be called. A config says nothing, nor
// does a layer that several images have, such as two platforms of one.
func (ps *prefetches) asked(ctx context.Context, repo Repository, dgst digest.Digest) (context.Context, *prefetch) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	var found []*prefetch
	for key, p := range ps.images {
		switch {
		case p.repo != repo || !p.names[dgst]:
		case p.isGivenUp():
			delete(ps.images, key)
		default:
			p.last = time.Now()
			found = append(found, p)
		}
	}
	if len(found) != 1 || !found[0].tells(dgst) || ps.isOfWhole(repo, dgst) {
		return nil, nil
	}
	p := found[0]
	ctx, p.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	ps.running.Add(1)
	return ctx, p
}

// repositoryOf is whose image a client pulls that has a blob, if that is certain.
func (ps *prefetches) repositoryOf(dgst digest.Digest) (repo Repository, ok bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range ps.images {
		if !p.names[dgst] || p.isGivenUp() {
			continue
		}
		if ok && repo != p.repo {
			return Repository{}, false
		}
		repo, ok = p.repo, true
	}
	return repo, ok
}

// isGivenUp reports whether no client has gone on from the manifest. The prefetches' mu
// is held.
func (p *prefetch) isGivenUp() bool {
	return p.cancel == nil && time.Since(p.last) >= prefetchPatience
}

// tells reports whether a blob that a client asks for is a reason to begin. The
// prefetches' mu is held.
func (p *prefetch) tells(dgst digest.Digest) bool {
	return p.cancel == nil && !p.over && p.blobs[0].Digest != dgst
}

// isOfWhole reports whether an image that is whole has a blob.
func (ps *prefetches) isOfWhole(repo Repository, dgst digest.Digest) bool {
	for _, key := range ps.whole.Keys() {
		if names, _ := ps.whole.Peek(key); key.repo == repo && names[dgst] {
			return true
		}
	}
	return false
}

// end is for an image from asked. One that is not whole is not begun again before its
// manifest is asked for.
func (ps *prefetches) end(p *prefetch) {
	ps.mu.Lock()
	p.cancel(nil)
	p.cancel, p.over = nil, true
	if ps.whole.Contains(p.imageKey) || !ps.open {
		delete(ps.images, p.imageKey)
	}
	ps.mu.Unlock()
	ps.running.Done()
}

func (ps *prefetches) sinceAsked(p *prefetch) time.Duration {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return time.Since(p.last)
}
