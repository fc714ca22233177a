package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
)

// KeeperConfig is what a Keeper asks. Both may be nil.
type KeeperConfig struct {
	// Costs say how dear it is to fetch something again. Nil: all is alike.
	Costs Costs
	// Users say what is in use by pods. Nil: nothing is.
	Users Users
}

// Keeper takes care of a store in the background: it keeps it within its Budget,
// whoever fills the disk, counts its blobs, and throws away what nobody resumes.
type Keeper struct {
	store *Store
	told  time.Time // when watchSpace last logged that nothing more may go
}

const (
	// watchInterval is how often the file system is looked at: other processes
	// fill it, too.
	watchInterval = 10 * time.Second
	// tellInterval is how often the log has what does not change.
	tellInterval = time.Hour
	// saveInterval is how often the usage is written down.
	saveInterval = time.Minute
	// dailyInterval is how often blobs are counted and old ingests swept.
	dailyInterval = 24 * time.Hour
)

// NewKeeper makes the Keeper of a store. What it is given holds at once, for
// evictions that fills cause too; Run does the rest.
func NewKeeper(s *Store, c KeeperConfig) *Keeper {
	s.evictor.mu.Lock()
	defer s.evictor.mu.Unlock()
	s.evictor.costs, s.evictor.users = c.Costs, c.Users
	return &Keeper{store: s}
}

// Run works until ctx ends, and returns when all of it has stopped.
func (k *Keeper) Run(ctx context.Context) {
	loops := []func(context.Context){k.watchSpace, k.saveUsage, k.recount, k.sweep}
	var wg sync.WaitGroup
	for _, loop := range loops {
		wg.Go(func() { loop(ctx) })
	}
	wg.Wait()
}

// each calls do at once and then at every interval, until ctx ends.
func each(ctx context.Context, interval time.Duration, do func(context.Context)) {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		do(ctx)
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// watchSpace looks at every interval, and at once when a fill passes the high
// mark.
func (k *Keeper) watchSpace(ctx context.Context) {
	t := time.NewTicker(watchInterval)
	defer t.Stop()
	for {
		k.evict(ctx)
		select {
		case <-t.C:
		case <-k.store.evictor.full:
		case <-ctx.Done():
			return
		}
	}
}

// evict brings the store down to the low mark if it is beyond the high one.
func (k *Keeper) evict(ctx context.Context) {
	s := k.store
	u, err := s.Usage()
	if err != nil {
		s.tell(ctx, "usage not known", err)
		return
	}
	if u.Allowance < 0 || u.Taken <= u.High {
		s.evictor.noteProblem("")
		k.told = time.Time{}
		return
	}
	began := s.now()
	done, err := s.collect(ctx, passOptions{to: s.beyond(func(u Usage) int64 { return u.Low }), gentle: true, why: u.pressure()})
	if err != nil {
		s.tell(ctx, "not evicted", err)
		return
	}
	if done.Blobs > 0 || done.Bytes > 0 {
		s.logger.InfoContext(ctx, "evicted in all", "images", done.Images, "blobs", done.Blobs, "bytes", done.Bytes, "took", s.now().Sub(began), "because", u.pressure())
	}
	if done.Missing > 0 {
		k.cannot(ctx, done)
	}
}

// cannot tells that less went than should. It may stay so for months: the log has
// it once an hour.
func (k *Keeper) cannot(ctx context.Context, done Collected) {
	s := k.store
	why := theRest(done.Stays)
	s.evictor.noteProblem(fmt.Sprintf("%s too much is stored%s", humanize.IBytes(uint64(done.Missing)), why))
	if !k.told.IsZero() && s.now().Sub(k.told) < tellInterval {
		return
	}
	k.told = s.now()
	s.logger.WarnContext(ctx, "the store is over its budget and nothing more may be evicted", "missing", done.Missing, "stays", why)
}

// pressure says in words why something has to go.
func (u Usage) pressure() string {
	return fmt.Sprintf("the store took %s of %s (%s)", humanize.IBytes(uint64(u.Taken)), humanize.IBytes(uint64(u.Allowance)), u.Bound)
}

// beyond is how much more is taken than some mark allows.
func (s *Store) beyond(mark func(Usage) int64) func() int64 {
	return func() int64 {
		u, err := s.Usage()
		if err != nil {
			return 0
		}
		return u.Taken - mark(u)
	}
}

func (k *Keeper) saveUsage(ctx context.Context) {
	each(ctx, saveInterval, func(context.Context) { k.store.saveUsage(false) })
}

// recount counts at once if the last process did not close the store, else when
// the last count is a day old.
func (k *Keeper) recount(ctx context.Context) {
	const look = time.Hour
	each(ctx, look, func(ctx context.Context) {
		u := k.store.usage.read()
		if age := k.store.now().Sub(u.Counted); !u.Doubtful && age >= 0 && age < dailyInterval {
			return
		}
		if err := k.store.Recount(ctx); err != nil {
			k.store.tell(ctx, "blobs not counted", err)
		}
	})
}

func (k *Keeper) sweep(ctx context.Context) {
	each(ctx, dailyInterval, func(ctx context.Context) {
		k.store.sweepAbandoned()
		if err := k.store.purgeExposures(); err != nil {
			k.store.tell(ctx, "old exposures stay", err)
		}
	})
}

// tell logs a failure that is not just the end.
func (s *Store) tell(ctx context.Context, what string, err error) {
	if ctx.Err() == nil && !errors.Is(err, errClosed) {
		s.logger.WarnContext(ctx, what, "err", err)
	}
}

// CollectOptions say what Collect does.
type CollectOptions struct {
	// To is what the store may take afterwards, in bytes; negative: the low mark
	// of its Budget.
	To int64
	// DryRun chooses, and evicts nothing.
	DryRun bool
	// Report is called for each thing that goes. It must not block for long.
	Report func(Eviction)
}

// Collect evicts now. Of what may not be evicted nothing goes, whatever To is.
func (s *Store) Collect(ctx context.Context, o CollectOptions) (Collected, error) {
	mark := func(Usage) int64 { return o.To }
	if o.To < 0 {
		mark = func(u Usage) int64 {
			if u.Allowance < 0 {
				return unbounded
			}
			return u.Low
		}
	}
	return s.collect(ctx, passOptions{to: s.beyond(mark), toSize: o.To >= 0, dry: o.DryRun, report: o.Report, why: "asked for by hand"})
}
