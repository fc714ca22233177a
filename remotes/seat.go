package remotes

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes/upstream"
)

// seat is the place of a blob that is brought ahead.
type seat struct {
	table     *prefetches
	size      int64
	upstreams []upstream.Endpoint // any of which may be asked for it

	// The table's mu guards what follows.
	fill *cache.Fill // that was begun for it; nil before
	here bool        // all of its bytes are: it needs no connection
}

// seatPoll is how often it is looked whether clients have left connections.
const seatPoll = 100 * time.Millisecond

// sit waits for a seat: half of the connections that larder makes to an upstream
// for blobs are for clients alone, and a seat is given only while one of all is
// free. It returns errdefs.ErrUnavailable if an upstream has too few of them, or if
// it takes too long.
func (ps *prefetches) sit(ctx context.Context, size int64, upstreams []*upstream.Client) (*seat, error) {
	s := &seat{table: ps, size: size}
	for _, c := range upstreams {
		s.upstreams = append(s.upstreams, c.Endpoint())
	}
	late := time.NewTimer(prefetchPatience)
	defer late.Stop()
	poll := time.NewTicker(seatPoll)
	defer poll.Stop()
	for {
		seated, changed, err := ps.trySit(s, upstreams)
		if seated || err != nil {
			return s, err
		}
		select {
		case <-changed:
		case <-poll.C:
		case <-late.C:
			return nil, errNoSeat
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

var errNoSeat = fmt.Errorf("not prefetched: clients need the connections to upstream: %w", errdefs.ErrUnavailable)

func (ps *prefetches) trySit(s *seat, upstreams []*upstream.Client) (seated bool, changed <-chan struct{}, _ error) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if len(ps.seats) >= maxSeats {
		return false, ps.changed, nil
	}
	for _, c := range upstreams {
		free, all, bounded := c.Streams()
		if !bounded {
			continue
		}
		if all < 2 {
			return false, nil, errNoSeat
		}
		if free == 0 || ps.taken(c.Endpoint()) >= all/2 {
			return false, ps.changed, nil
		}
	}
	ps.seats = append(ps.seats, s)
	return true, nil, nil
}

// taken counts the seats of an upstream's host. mu is held.
func (ps *prefetches) taken(ep upstream.Endpoint) (n int) {
	for _, s := range ps.seats {
		if !s.here && s.isAt(ep) {
			n++
		}
	}
	return n
}

// isAt reports whether the blob may come from the host of an endpoint.
func (s *seat) isAt(ep upstream.Endpoint) bool {
	return slices.ContainsFunc(s.upstreams, func(e upstream.Endpoint) bool { return e.Host == ep.Host })
}

// joined notes the fill that brings the blob. If others began it, it has their
// connection, and the seat is free.
func (s *seat) joined(fill *cache.Fill, began bool) {
	if !began {
		s.leave()
		return
	}
	ps := s.table
	ps.mu.Lock()
	defer ps.mu.Unlock()
	s.fill, s.here = fill, false
	if !slices.Contains(ps.seats, s) { // the others' fill was not for this repository
		ps.seats = append(ps.seats, s)
	}
}

// arrived gives the seat's connection back: all bytes have come, or no more do.
func (s *seat) arrived() {
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	s.here = true
	s.table.change()
}

// leave gives the seat back. It may be called twice.
func (s *seat) leave() {
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	s.table.seats = slices.DeleteFunc(s.table.seats, func(o *seat) bool { return o == s })
	s.table.change()
}

// change wakes those who wait for a seat. mu is held.
func (ps *prefetches) change() {
	close(ps.changed)
	ps.changed = make(chan struct{})
}

// abandon ends the fill, if no client wants it.
func (s *seat) abandon(cause error) {
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	if s.fill != nil {
		s.fill.Abandon(cause)
	}
}

// makeWay ends the oldest fill from an upstream that no client wants: one waits for
// a connection to it. What came of it stays, and is gone on with when a client asks.
func (ps *prefetches) makeWay(ep upstream.Endpoint) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, s := range ps.seats {
		if s.fill != nil && !s.here && s.isAt(ep) && s.fill.Abandon(errMadeWay) {
			return
		}
	}
}

// unreserved is what the store has not promised yet to those who have a seat.
func (ps *prefetches) unreserved() (bytes int64) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, s := range ps.seats {
		if s.fill == nil {
			bytes += s.size
		} else if p, _ := s.fill.Progress(); p.Received == 0 {
			bytes += s.size
		}
	}
	return bytes
}
