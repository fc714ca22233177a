package cache

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/dustin/go-humanize"
)

const (
	// reserveStep is what a fill of unknown size is promised at a time.
	reserveStep = 64 << 20
	// reservePatience is how long a fill waits for room: behind it wait
	// clients, who can be served without storing.
	reservePatience = 5 * time.Second
)

// reserve promises total bytes to an ingest before they are written, and makes
// room for them if it must. It returns errdefs.ErrResourceExhausted if there is
// none to be made.
func (s *Store) reserve(ctx context.Context, dir string, total int64) error {
	if s.usage.covers(dir, total) {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, reservePatience, errNoTime)
	defer cancel()
	for {
		free, err := s.disk.Free(s.root)
		if err != nil {
			free = Free{} // it cannot be told; writing tells
		}
		var bound string
		var high int64
		allowance := func(onDisk int64) (limit int64) {
			if err != nil || s.budget.isZero() {
				return unbounded
			}
			limit, bound = s.budget.allowance(onDisk, free)
			high = share(limit, s.budget.High)
			return limit
		}
		short, fits := s.usage.claim(dir, total, allowance)
		if all, _ := s.usage.taken(); bound != "" && all > high {
			s.evictor.noteFull()
		}
		if short <= 0 {
			return nil
		}
		if !fits {
			return s.noRoom(total, bound, "it is larger than all that larder may take")
		}
		if err := s.makeRoom(ctx, short); err != nil {
			return s.noRoom(total, bound, err.Error())
		}
	}
}

// HasRoom reports whether that many bytes more can be stored with nothing evicted
// for them, neither now nor by the Keeper: the store stays below its high mark.
// It promises them to nobody. A store that does not store has no room.
func (s *Store) HasRoom(bytes int64) bool {
	if s.Health().State != StateOK {
		return false
	}
	free, err := s.disk.Free(s.root)
	if err != nil {
		return false
	}
	all, onDisk := s.usage.taken()
	limit := onDisk + free.Bytes // without a budget, too, what is not there cannot be had
	if !s.budget.isZero() {
		limit, _ = s.budget.allowance(onDisk, free)
		limit = share(limit, s.budget.High)
	}
	return bytes <= limit-all
}

var errNoTime = fmt.Errorf("no room was made within %s", reservePatience)

// noRoom says which bound stands in the way, and what to do.
func (s *Store) noRoom(bytes int64, bound, why string) error {
	s.evictor.noteProblem(why)
	remedy := "raise space." + bound
	switch bound {
	case boundFree:
		remedy = "free some of the file system for others, or lower space.min_free"
	case boundDisk:
		remedy = "free some of the file system"
	}
	return fmt.Errorf("no room for %s (bound by %s): %s; %s, or unpin what is not needed: %w",
		humanize.IBytes(uint64(max(0, bytes))), bound, why, remedy, errdefs.ErrResourceExhausted)
}

// reserve promises the fill's ingest total bytes, -1 if nobody knows how many. It
// returns errdefs.ErrResourceExhausted if they cannot be stored.
func (f *Fill) reserve(ctx context.Context, in *ingest, total int64) error {
	if total < 0 || f.store.usage.covers(in.dir, total) {
		return nil
	}
	if f.size < 0 { // in steps
		total = (total + reserveStep - 1) / reserveStep * reserveStep
	}
	defer Hold(ctx)() // what larder waits for here is not upstream's fault
	return f.store.reserve(ctx, in.dir, total)
}
