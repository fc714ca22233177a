package remotes

import (
	"context"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/opencontainers/go-digest"
)

const (
	// maxQueue bounds the images that wait. What does not fit comes with a later
	// check of its tag.
	maxQueue = 1024
	// maxHostQueue bounds those of one registry host: none leaves no room for
	// others.
	maxHostQueue = 256
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

// backlog is what waits for Run: the images of a registry host one after the
// other, so that a slow one holds up its own only. It is safe for concurrent
// use.
type backlog struct {
	// hosts are those with images of which none is taken. A host is in it, or
	// its image is taken, or it has none; so it never holds more than maxQueue.
	hosts chan string

	mu       sync.Mutex               // guards what follows
	queues   map[string][]sighting    // by registry host; one that is there and empty has its last image taken
	length   int                      // of all queues
	waiting  map[string]int           // how often it is in a queue or taken from it, by repository@digest
	followed map[string]chan struct{} // what is being followed; closed at its end

	failures *lru.Cache[string, time.Time] // when following failed last, by repository@digest
}

// maxFailures bounds the memory for them.
const maxFailures = 1024

func newBacklog() *backlog {
	failures, _ := lru.New[string, time.Time](maxFailures) // fails only for a size below 1
	return &backlog{
		hosts: make(chan string, maxQueue), queues: map[string][]sighting{},
		waiting: map[string]int{}, followed: map[string]chan struct{}{}, failures: failures,
	}
}

func (s sighting) key() string { return s.repo.String() + "@" + s.digest.String() }

// add queues a sighting without waiting. It reports false if there is no room.
func (b *backlog) add(s sighting) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiting[s.key()] > 0 && !s.force {
		return true
	}
	queue, known := b.queues[s.repo.Host]
	if b.length >= maxQueue || len(queue) >= maxHostQueue {
		return false
	}
	b.queues[s.repo.Host] = append(queue, s)
	b.length++
	b.waiting[s.key()]++
	if !known {
		b.hosts <- s.repo.Host
	}
	return true
}

// take waits for an image of a registry host of which no other is taken, until
// ctx ends. done gives the host back.
func (b *backlog) take(ctx context.Context) (s sighting, ok bool) {
	select {
	case host := <-b.hosts:
		b.mu.Lock()
		defer b.mu.Unlock()
		queue := b.queues[host]
		b.queues[host] = queue[1:]
		b.length--
		return queue[0], true
	case <-ctx.Done():
		return sighting{}, false
	}
}

// done is for a sighting from take that was looked after.
func (b *backlog) done(s sighting) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiting[s.key()]--; b.waiting[s.key()] == 0 {
		delete(b.waiting, s.key())
	}
	if len(b.queues[s.repo.Host]) > 0 {
		b.hosts <- s.repo.Host
	} else {
		delete(b.queues, s.repo.Host)
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
