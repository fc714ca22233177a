package remotes

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/larder-project/larder/remotes/upstream"
	"github.com/opencontainers/go-digest"
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
	// maxQueue bounds the images that wait. What does not fit comes with a
	// later check of its tag.
	maxQueue = 256
	// followers is how many images are followed at a time in the background:
	// pulls come first.
	followers = 2
	// followTimeout bounds the background's work for one image.
	followTimeout = 5 * time.Minute
	// followPause is how long an image whose companions are all there is left
	// alone, however short its tag's window is.
	followPause = time.Hour
)

// sighting says that an image came into the store, or was found to be still
// what its tag points to.
type sighting struct {
	repo   Repository
	digest digest.Digest
	at     time.Time
	// force has its companions asked for although that was done lately.
	force bool
}

// backlog is what waits for Run. It is safe for concurrent use.
type backlog struct {
	queue chan sighting

	mu       sync.Mutex               // guards what follows
	waiting  map[string]int           // how often it is in queue or taken from it, by repository@digest
	followed map[string]chan struct{} // what is being followed; closed at its end

	failures *lru.Cache[string, time.Time] // when following failed last, by repository@digest
}

// maxFailures bounds the memory for them.
const maxFailures = 1024

func newBacklog() *backlog {
	failures, _ := lru.New[string, time.Time](maxFailures) // fails only for a size below 1
	return &backlog{
		queue: make(chan sighting, maxQueue), waiting: map[string]int{}, followed: map[string]chan struct{}{}, failures: failures,
	}
}

func (s sighting) key() string { return s.repo.String() + "@" + s.digest.String() }

// add queues a sighting without waiting. It reports false if the queue is full.
func (b *backlog) add(s sighting) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiting[s.key()] > 0 && !s.force {
		return true
	}
	select {
	case b.queue <- s:
		b.waiting[s.key()]++
		return true
	default:
		return false
	}
}

// done is for a sighting from the queue that was looked after.
func (b *backlog) done(s sighting) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiting[s.key()]--; b.waiting[s.key()] == 0 {
		delete(b.waiting, s.key())
	}
}

// claim makes the caller the only one who follows a manifest, after whoever
// does so now. It returns the context's error if that takes too long.
func (b *backlog) claim(ctx context.Context, key string) (release func(), err error) {
	for {
		b.mu.Lock()
		busy, ok := b.followed[key]
		if !ok {
			b.followed[key] = make(chan struct{})
		}
		b.mu.Unlock()
		if !ok {
			return func() {
				b.mu.Lock()
				defer b.mu.Unlock()
				close(b.followed[key])
				delete(b.followed, key)
			}, nil
		}
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Run does in the background what no client waits for, and returns when ctx
// ends and all of it has stopped: it fetches the companions of images that came
// into the store. Without it they come with Pull only.
func (r *Registry) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for range followers {
		wg.Go(func() {
			for {
				select {
				case s := <-r.backlog.queue:
					r.followBehind(ctx, s)
					r.backlog.done(s)
				case <-ctx.Done():
					return
				}
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
	if failed, ok := r.backlog.failures.Get(s.key()); !r.mayFollow(s.repo) || ok && !s.force && time.Since(failed) < r.Freshness.Retry {
		return
	}
	if err := r.follow(ctx, s, func(BlobProgress) {}); err != nil {
		r.Logger.DebugContext(ctx, "companions not fetched", "repository", s.repo.String(), "digest", s.digest, "err", err)
		r.backlog.failures.Add(s.key(), time.Now())
	}
}

// mayFollow reports whether upstream can be bothered with companions now: they
// are not worth the last pulls of an allowance, nor a wait.
func (r *Registry) mayFollow(repo Repository) bool {
	if r.Policies.For(repo).Mode == ModeOffline || r.Policies.Permit(repo) != nil || r.overdue.has(repo.Host) {
		return false
	}
	return slices.ContainsFunc(r.Routes.For(repo.Host), func(ep upstream.Endpoint) bool {
		return r.Pool.Client(ep).Spare(time.Now()) == nil
	})
}

// sight queues an image for its companions, if they are wanted.
func (r *Registry) sight(s sighting) {
	if r.Companions.Fetch && !r.backlog.add(s) {
		r.Logger.Debug("companions not fetched: too many images wait", "repository", s.repo.String(), "digest", s.digest)
	}
}

// cosignSuffixes end cosign's tags: signatures, attestations, SBOMs.
func cosignSuffixes() []string { return []string{".sig", ".att", ".sbom"} }

// subjectOf returns the digest of the image that a tag of cosign's belongs to,
// "" for other tags.
func subjectOf(tag string) digest.Digest {
	for _, suffix := range cosignSuffixes() {
		name, ok := strings.CutSuffix(tag, suffix)
		hex, sha256 := strings.CutPrefix(name, "sha256-")
		if dgst := digest.NewDigestFromEncoded(digest.SHA256, hex); ok && sha256 && dgst.Validate() == nil {
			return dgst
		}
	}
	return ""
}

// companionTag is cosign's tag for what belongs to a digest. Only sha256 fits
// into a tag.
func companionTag(repo Repository, subject digest.Digest, suffix string) (ref Reference, ok bool) {
	ref = Reference{Repository: repo, Tag: subject.Algorithm().String() + "-" + subject.Encoded() + suffix}
	return ref, subjectOf(ref.Tag) == subject
}
