package cache

import (
	"context"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/time/rate"
)

const (
	scrubKey = "scrub" // of stateBucket: ScrubState

	// scrubSmall is what a small blob counts for, in bytes: a disk can do so
	// many things a second, however little each brings.
	scrubSmall = 64 << 10
	// scrubSave is after how many blobs the place is written down.
	scrubSave = 256
	// busyPause is the time between two looks at a busy node; after
	// busyPatience one more blob is read all the same: a node that is always
	// busy has a disk, too.
	busyPause    = 10 * time.Second
	busyPatience = time.Hour
	// After scrubBrake damaged blobs in a row of less than scrubRest each,
	// nothing is read for that time. So much damage is a failing disk or
	// memory, and a person should hear of it before the quarantine, which
	// holds more than that, is full.
	scrubBrake = 8
	scrubRest  = time.Hour
	// refetchTimeout bounds the fetch of one blob.
	refetchTimeout = 15 * time.Minute
)

// ScrubPolicy says how a store is scrubbed.
type ScrubPolicy struct {
	// Rate is how many bytes a second are read at most. 0 or less: no scrub.
	Rate int64
	// Period is the time from the begin of one pass over the store to that of
	// the next.
	Period time.Duration
	// Delay is how long nothing is read at first: a node that starts has other
	// things to do.
	Delay time.Duration
	// Busy says why the node is too busy for it now, "" if it is not. Nil: it
	// never is.
	Busy func() string
}

// ScrubState is how far the scrub of a store is. Blobs, Bytes, Damaged and Lost
// count what the pass has read, found, and not got back.
type ScrubState struct {
	Began time.Time `json:"began,omitzero"`
	// Ended is zero while the pass runs.
	Ended   time.Time `json:"ended,omitzero"`
	Blobs   int       `json:"blobs"`
	Bytes   int64     `json:"bytes"`
	Damaged int       `json:"damaged"`
	Lost    int       `json:"lost"`
	// Cursor is the last blob that was read.
	Cursor digest.Digest `json:"cursor,omitempty"`
	// Waiting is what it waits for now, "" for nothing.
	Waiting string `json:"-"`
}

// ScrubState returns how far the scrub is; zero if there was none yet.
func (s *Store) ScrubState() (ScrubState, error) {
	s.scrubs.mu.Lock()
	defer s.scrubs.mu.Unlock()
	if s.scrubs.running {
		return s.scrubs.state, nil
	}
	return s.loadScrub()
}

func (s *Store) loadScrub() (ScrubState, error) {
	var st ScrubState
	err := s.index.get(stateBucket, scrubKey, &st)
	if errdefs.IsNotFound(err) {
		return ScrubState{}, nil
	}
	return st, err
}

// scrubs is what others may know of the scrub that runs.
type scrubs struct {
	mu      sync.Mutex // guards what follows
	running bool
	state   ScrubState
}

// scrub is a Scrub that runs.
type scrub struct {
	store   *Store
	policy  ScrubPolicy
	refetch Refetcher
	limiter *rate.Limiter
	state   ScrubState
	unsaved int // blobs since the place was written down
	savedAt time.Time
	broken  int // damaged blobs of late
	brokeAt time.Time
}

// Scrub reads the whole store, slowly and again and again, as by Verify, until
// ctx ends. Those that were not read for longest come first, since the order is
// always the same; it goes on where an earlier one stopped. What is damaged is
// fetched again by refetch (nil: it is not). There must be one at a time.
func (s *Store) Scrub(ctx context.Context, policy ScrubPolicy, refetch Refetcher) {
	if policy.Rate <= 0 || policy.Period <= 0 {
		return
	}
	state, err := s.loadScrub()
	if err != nil {
		s.logger.WarnContext(ctx, "scrub: place not known, beginning anew", "err", err)
	}
	sc := &scrub{
		store: s, policy: policy, refetch: refetch, state: state, savedAt: s.now(),
		limiter: rate.NewLimiter(rate.Limit(policy.Rate), max(verifyPiece, scrubSmall)),
	}
	sc.show("")
	defer sc.end()
	if !sc.sleep(ctx, policy.Delay) {
		return
	}
	for sc.awaitPass(ctx) {
		sc.pass(ctx)
	}
}

// awaitPass waits until there is something to read, and begins the pass unless
// one was under way. It reports false when ctx has ended.
func (sc *scrub) awaitPass(ctx context.Context) bool {
	for ctx.Err() == nil {
		began, now := sc.state.Began, sc.store.now()
		if !began.IsZero() && sc.state.Ended.IsZero() {
			return true
		}
		left := began.Add(sc.policy.Period).Sub(now)
		if began.IsZero() || left <= 0 || now.Before(began) { // the clock went back
			sc.state = ScrubState{Began: now}
			sc.save(ctx)
			return true
		}
		sc.sleep(ctx, min(left, time.Hour)) // the clock may be set meanwhile
	}
	return false
}

// pass reads what is behind the cursor.
func (sc *scrub) pass(ctx context.Context) {
	err := sc.store.EachStored(ctx, sc.state.Cursor, func(dgst digest.Digest) error {
		if err := sc.blob(ctx, dgst); err != nil {
			return err
		}
		sc.state.Cursor = dgst
		sc.unsaved++
		if sc.unsaved >= scrubSave || sc.store.now().Sub(sc.savedAt) >= time.Minute {
			sc.save(ctx)
		}
		return nil
	})
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		sc.store.logger.WarnContext(ctx, "scrub: it goes on later", "err", err)
		sc.sleep(ctx, scrubRest)
		return
	}
	sc.state.Ended, sc.state.Cursor = sc.store.now(), ""
	sc.save(ctx)
	sc.store.logger.InfoContext(ctx, "store is scrubbed", "blobs", sc.state.Blobs, "bytes", sc.state.Bytes,
		"damaged", sc.state.Damaged, "lost", sc.state.Lost, "dur", sc.state.Ended.Sub(sc.state.Began))
}

// blob reads one blob. Its error is ctx's.
func (sc *scrub) blob(ctx context.Context, dgst digest.Digest) error {
	s := sc.store
	if facts, err := s.Facts(dgst); err == nil && facts.Verified.After(sc.state.Began) && !facts.Verified.After(s.now()) {
		return nil // somebody else has just read it
	}
	if err := sc.awaitIdle(ctx); err != nil {
		return err
	}
	err := s.Verify(ctx, dgst, sc.pace)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errdefs.IsNotFound(err):
		return nil // removed meanwhile
	case errdefs.IsDataLoss(err):
		sc.state.Blobs++
		sc.state.Damaged++
		sc.mend(ctx, dgst)
		return sc.brake(ctx)
	case err != nil:
		s.logger.WarnContext(ctx, "scrub: blob not verified", "digest", dgst, "err", err)
		return nil
	}
	sc.state.Blobs++
	sc.show("")
	return nil
}

func (sc *scrub) pace(ctx context.Context, n int) error {
	sc.state.Bytes += int64(n)
	if !sc.sleep(ctx, sc.limiter.ReserveN(time.Now(), max(n, scrubSmall)).Delay()) {
		return context.Cause(ctx)
	}
	return nil
}

// mend fetches a damaged blob again.
func (sc *scrub) mend(ctx context.Context, dgst digest.Digest) {
	if sc.refetch == nil {
		sc.state.Lost++
		return
	}
	fctx, cancel := context.WithTimeout(ctx, refetchTimeout)
	defer cancel()
	source, err := sc.refetch.Refetch(fctx, dgst)
	if err != nil {
		sc.state.Lost++
		sc.store.logger.ErrorContext(ctx, "damaged blob is lost until a pull brings it", "digest", dgst, "err", err)
		return
	}
	sc.store.logger.InfoContext(ctx, "damaged blob is fetched again", "digest", dgst, "source", source)
}

// brake rests if there is too much damage at once.
func (sc *scrub) brake(ctx context.Context) error {
	now := sc.store.now()
	if now.Sub(sc.brokeAt) > scrubRest {
		sc.broken = 0
	}
	sc.broken++
	sc.brokeAt = now
	sc.show("")
	if sc.broken < scrubBrake {
		return nil
	}
	sc.broken = 0
	sc.store.logger.ErrorContext(ctx, "scrub: many blobs are damaged, disk or memory may be failing", "damaged", sc.state.Damaged, "pause", scrubRest)
	sc.show("many damaged blobs")
	sc.sleep(ctx, scrubRest)
	sc.show("")
	return ctx.Err()
}

// awaitIdle waits while the node is busy.
func (sc *scrub) awaitIdle(ctx context.Context) error {
	for waited := time.Duration(0); sc.policy.Busy != nil && waited < busyPatience; waited += busyPause {
		why := sc.policy.Busy()
		sc.show(why)
		if why == "" {
			break
		}
		if !sc.sleep(ctx, busyPause) {
			return context.Cause(ctx)
		}
	}
	return nil
}

// show tells others how far it is.
func (sc *scrub) show(waiting string) {
	sc.store.scrubs.mu.Lock()
	defer sc.store.scrubs.mu.Unlock()
	sc.state.Waiting = waiting
	sc.store.scrubs.running, sc.store.scrubs.state = true, sc.state
}

// save writes the place down. That it cannot costs some reading anew.
func (sc *scrub) save(ctx context.Context) {
	sc.show("")
	sc.unsaved, sc.savedAt = 0, sc.store.now()
	if err := sc.store.index.put(stateBucket, scrubKey, sc.state); err != nil {
		sc.store.logger.WarnContext(ctx, "scrub: place not written down", "err", err)
	}
}

func (sc *scrub) end() {
	if !sc.state.Began.IsZero() {
		sc.save(context.Background())
	}
	sc.store.scrubs.mu.Lock()
	defer sc.store.scrubs.mu.Unlock()
	sc.store.scrubs.running = false
}

// sleep reports false if ctx ended it.
func (sc *scrub) sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
