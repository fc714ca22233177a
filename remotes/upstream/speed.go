package upstream

import (
	"context"
	"io"
	"time"

	"github.com/larder-project/larder/remotes/upstream/ranged"
	"golang.org/x/time/rate"
)

const (
	// speedParts is into how many parts of a second the speed is cut, so that
	// many bodies which share it all move on several times a second.
	speedParts = 256
	// maxSpeedPart bounds a part, in bytes, where the speed is high.
	maxSpeedPart = 64 << 10
)

// newSpeed bounds bytes a second over all bodies that share it; nil for 0.
func newSpeed(bytes int64) *rate.Limiter {
	if bytes <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytes), int(min(max(1, bytes/speedParts), maxSpeedPart)))
}

// meter counts an answer's body for an account, and slows it down if it is a
// blob's.
func (s *site) meter(ctx context.Context, name string, stream bool, body io.ReadCloser) io.ReadCloser {
	m := &meteredBody{ReadCloser: body, ctx: ctx, account: s.account(name), waiting: s.places.waiting}
	if stream {
		m.speed, m.pace, m.governor = s.speed, &s.pace, &s.governor
	}
	return m
}

type meteredBody struct {
	io.ReadCloser
	ctx      context.Context //nolint:containedctx // a body's reads end with its request
	account  *account
	speed    *rate.Limiter    // nil: no bound
	pace     *pace            // nil: of no use here
	governor *ranged.Governor // with pace
	waiting  func(context.Context) (done func())
}

// Read reads a part, and returns when the speed allows for it.
func (m *meteredBody) Read(p []byte) (int, error) {
	if m.speed != nil && len(p) > m.speed.Burst() {
		p = p[:m.speed.Burst()]
	}
	began := time.Now()
	n, err := m.ReadCloser.Read(p)
	if m.pace != nil {
		m.pace.received(n, time.Since(began))
		m.governor.Received(n)
	}
	m.account.bytes.Add(int64(n))
	if m.speed == nil || n == 0 {
		return n, err
	}
	if werr := m.wait(n); werr != nil {
		return 0, werr
	}
	return n, err
}

// wait takes n bytes of the speed. Those who share it get them in the order in
// which they ask.
func (m *meteredBody) wait(n int) error {
	left := m.speed.ReserveN(time.Now(), n).Delay()
	if left <= 0 {
		return nil
	}
	done := m.waiting(m.ctx)
	defer done()
	t := time.NewTimer(left)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-m.ctx.Done():
		return m.ctx.Err()
	}
}
