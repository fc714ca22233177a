package ranged

import "time"

// paceSpan is how far back a pace looks, at least.
const paceSpan = time.Second

// pace is how fast bytes came lately while they were waited for.
type pace struct {
	bytes int64
	took  time.Duration
}

// note counts n bytes that were waited for.
func (p *pace) note(n int, took time.Duration) {
	p.bytes += int64(n)
	if p.took += took; p.took > 2*paceSpan {
		p.bytes, p.took = p.bytes/2, p.took/2
	}
}

// speed in bytes a second; took must not be 0.
func (p *pace) speed() float64 { return float64(p.bytes) / p.took.Seconds() }
