package remotes

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/larder-project/larder/remotes/upstream"
)

// Companions say whether what belongs to an image comes along with it:
// referrers (OCI 1.1) and cosign's tags. These are signatures, attestations,
// SBOMs. ECR does so since April 2026, for referrers.
type Companions struct {
	// Fetch has them fetched. Otherwise they are stored when a client asks.
	Fetch bool
	// MaxSize bounds the blobs of one artifact in bytes, all together. A larger
	// one is left to the client that asks for it.
	MaxSize int64
}

// DefaultCompanions fetches artifacts up to 64 MiB.
func DefaultCompanions() Companions { return Companions{Fetch: true, MaxSize: 64 << 20} }

const (
	// followers is how many images are followed at a time in the background,
	// each of another registry host: pulls come first.
	followers = 4
	// followTimeout bounds the background's work for one image.
	followTimeout = 5 * time.Minute
	// followPause is how long an image whose companions are all there is left
	// alone, however short its tag's window is.
	followPause = time.Hour
)

// Run does in the background what no client waits for, and returns when ctx
// ends and all of it has stopped: it fetches the companions of images that came
// into the store, expires images by lifecycle policies, looks after the pin file,
// and prefetches. Without it the first come with Pull only, the second is done by
// ExpireImages only, and nothing is prefetched.
func (r *Registry) Run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { r.prefetches.keep(ctx) })
	wg.Go(func() { r.watchPins(ctx) })
	wg.Go(func() { r.keepLifecycle(ctx) })
	for range followers {
		wg.Go(func() {
			for s, ok := r.backlog.take(ctx); ok; s, ok = r.backlog.take(ctx) {
				r.followBehind(ctx, s)
				r.backlog.done(s)
			}
		})
	}
	wg.Wait()
}

// followBehind follows one image. What fails is tried again with the next
// check of its tag, but not at once.
func (r *Registry) followBehind(ctx context.Context, s sighting) {
	ctx, cancel := context.WithTimeout(ctx, followTimeout)
	defer cancel()
	if failed, ok := r.backlog.failures.Get(s.key()); !r.maySpend(ctx, s.repo) || ok && !s.force && time.Since(failed) < r.Freshness.Retry {
		return
	}
	if err := r.follow(ctx, s, func(BlobProgress) {}); err != nil {
		r.Logger.DebugContext(ctx, "companions not fetched", "repository", s.repo.String(), "digest", s.digest, "err", err)
		r.backlog.failures.Add(s.key(), time.Now())
	}
}

// maySpend reports whether upstream can be bothered now with what no client waits
// for, by who ctx is for: that is not worth the last pulls of an allowance, nor a
// wait.
func (r *Registry) maySpend(ctx context.Context, repo Repository) bool {
	if r.Policies.For(repo).Mode == ModeOffline || r.Policies.Permit(repo) != nil || r.overdue.has(repo.Host) {
		return false
	}
	return slices.ContainsFunc(r.Routes.For(repo.Host), func(ep upstream.Endpoint) bool {
		return r.clientFor(ctx, ep).Spare(time.Now()) == nil
	})
}

// sight queues an image for its companions, if they are wanted.
func (r *Registry) sight(s sighting) {
	if r.Companions.Fetch && !r.backlog.add(s) {
		r.Logger.Debug("companions not fetched: too many images wait", "repository", s.repo.String(), "digest", s.digest)
	}
}
