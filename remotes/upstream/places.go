package upstream

import (
	"context"
	"fmt"

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
		all: n, waits: waits,
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
		done := p.waiting(ctx)
		defer done()
		if err := from.Acquire(ctx, 1); err != nil {
			return nil, fmt.Errorf("all connections that larder makes to this upstream at a time are in use (max_connections = %d): %w", p.all, err)
		}
	}
	return func() { from.Release(1) }, nil
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
	return func() { p.blobs.Release(1) }, true
}

// haveSpare reports whether spare ever has a place to give, beside that of a body
// that wants one more.
func (p places) haveSpare() bool {
	return p.blobs == nil || int64(p.all-max(1, p.all/4)) >= 2+p.kept()
}

// kept is how many places for blobs what can be done without leaves free.
func (p places) kept() int64 { return max(1, int64(p.all)/8) }

func (p places) waiting(ctx context.Context) (done func()) {
	if p.waits == nil {
		return func() {}
	}
	return p.waits(ctx)
}
