package line

import (
	"context"
	"sync"
	"time"
)

// slack is for how long a pace makes up for what was not used, or for a timer that
// came late.
const slack = 4 * time.Millisecond

// pace spreads bytes over time. The zero value does not.
type pace struct {
	rate int64 // bytes a second; 0: any

	mu   sync.Mutex // guards free
	free time.Time  // when all that was let through has gone
}

// wait blocks until n bytes may go, in the order of the calls.
func (p *pace) wait(ctx context.Context, n int) error {
	if p.rate == 0 {
		return nil
	}
	return until(ctx, p.reserve(time.Now(), n))
}

// reserve is when the last of n bytes has gone.
func (p *pace) reserve(now time.Time, n int) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if earliest := now.Add(-slack); p.free.Before(earliest) {
		p.free = earliest
	}
	p.free = p.free.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	return p.free
}

// until waits for a time.
func until(ctx context.Context, at time.Time) error {
	left := time.Until(at)
	if left <= 0 {
		return nil
	}
	t := time.NewTimer(left)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
