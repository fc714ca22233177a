package remotes

import (
	"context"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/opencontainers/go-digest"
)

// maxQueue bounds the images that wait. What does not fit comes with a later
// check of its tag.
const maxQueue = 256

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
