package upstream

import (
	"context"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// places bound how many exchanges with a host run at once. Blob streams have
// most of them, and hold theirs until their body is closed; what is short has
// places of its own, so that a tag or a manifest never waits behind layers.
// Token requests need none: they belong to an exchange that has one, and would
// wait for each other.
type places struct {
	all           int
	blobs, others *semaphore.Weighted // nil: no bound
	streams       int64               // places for blobs
	taken         *atomic.Int64       // of them
	waits         func(context.Context) (done func())
}

// newPlaces shares out n places, of which a quarter, and at least one, is not
// for blobs. Less than two are taken for two; 0 is no bound.
func newPlaces(n int, waits func(context.Context) (done func())) places {
	if n <= 0 {
		return places{waits: waits}
	}
	n = max(n, 2)
	others := max(1, n/4)
	return places{
		all: n, waits: waits, streams: int64(n - others), taken: new(atomic.Int64),
		blobs: semaphore.NewWeighted(int64(n - others)), others: semaphore.NewWeighted(int64(others)),
	}
}

// take waits for a place, in the order of arrival.
func (p places) take(ctx context.Context, stream bool) (release func(), err error) {
	from := p.others
	if stream {
		from = p.blobs
	}
	if from == nil {
		return func() {}, nil
	}
	if !from.TryAcquire(1) {
		if begins, ok := ctx.Value(waitKey{}).(func()); ok && stream {
			begins()
		}
		done := p.waiting(ctx)
		defer done()
		if err := from.Acquire(ctx, 1); err != nil {
			return nil, fmt.Errorf("all connections that larder makes to this upstream at a time are in use (max_connections = %d): %w", p.all, err)
		}
	}
	if !stream {
		return func() { from.Release(1) }, nil
	}
	return p.taking(), nil
}

// taking counts a place for a blob that was acquired.
func (p places) taking() (release func()) {
	p.taken.Add(1)
	return func() {
		p.blobs.Release(1)
		p.taken.Add(-1)
	}
}

type waitKey struct{}

// WithWaiting has begins called when a blob that is asked for with the context has
// to wait for a place among those of its upstream: who has one for less can give
// it up then.
func WithWaiting(ctx context.Context, begins func()) context.Context {
	return context.WithValue(ctx, waitKey{}, begins)
}

// Streams says of how many blobs at a time the upstream can be asked for: how many
// more now, and how many in all. ok is false if there is no bound. It says nothing
// of who comes at the same time.
func (c *Client) Streams() (free, all int, ok bool) {
	p := c.site.places
	if p.blobs == nil {
		return 0, 0, false
	}
	return int(max(0, p.streams-p.taken.Load())), int(p.streams), true
}

// spare takes a place for a blob without waiting, if as many are left then as
// are kept for blobs that come.
func (p places) spare() (release func(), ok bool) {
	if p.blobs == nil {
		return func() {}, true
	}
	if !p.blobs.TryAcquire(1 + p.kept()) {
		return nil, false
	}
	p.blobs.Release(p.kept())
	return p.taking(), true
}

// haveSpare reports whether spare ever has a place to give, beside that of a body
// that wants one more.
func (p places) haveSpare() bool {
	return p.blobs == nil || p.streams >= 2+p.kept()
}

// kept is how many places for blobs what can be done without leaves free.
func (p places) kept() int64 { return max(1, int64(p.all)/8) }

func (p places) waiting(ctx context.Context) (done func()) {
	if p.waits == nil {
		return func() {}
	}
	return p.waits(ctx)
}
