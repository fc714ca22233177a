package mirror

import "time"

// sweepPause is what passes at least between two looks at all who wait.
const sweepPause = time.Second

// sweeper says when to look for who has waited for too long. The zero value is one
// that nobody waits for.
type sweeper struct {
	timer *time.Timer
	at    time.Time // when it looks; zero: never
}

// by has somebody look at a time, or before.
func (s *sweeper) by(deadline, now time.Time, look func()) {
	if !s.at.IsZero() && !deadline.Before(s.at) {
		return
	}
	s.at = deadline
	if s.timer == nil {
		s.timer = time.AfterFunc(deadline.Sub(now), look)
	} else {
		s.timer.Reset(deadline.Sub(now))
	}
}

func (s *sweeper) stop() {
	if s.timer != nil {
		s.timer.Stop()
	}
}

// sweep closes the connections that have waited for too long.
func (p *porter) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	now := time.Now()
	var next time.Time
	for _, g := range p.guests {
		switch {
		case !g.waits || g.deadline.IsZero():
		case !g.deadline.After(now):
			p.drop(g)
		case next.IsZero() || g.deadline.Before(next):
			next = g.deadline
		}
	}
	p.sweeper.at = time.Time{}
	if soonest := now.Add(sweepPause); !next.IsZero() {
		if next.Before(soonest) {
			next = soonest
		}
		p.sweeper.by(next, now, p.sweep)
	}
}
