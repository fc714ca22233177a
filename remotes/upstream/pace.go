package upstream

import (
	"sync"
	"time"
)

// Pace is what was measured of an upstream host since the daemon began.
type Pace struct {
	// Speed of a blob's body in bytes a second, without what larder itself waits
	// for; 0 if too little came to tell.
	Speed float64
	// Latency is the time to the headers of an answer.
	Latency time.Duration
	// Limited is set if the host counts pulls, or has refused some for their
	// number.
	Limited bool
}

const (
	// paceLeast is how much must have come to tell the speed.
	paceLeast = 256 << 10
	// paceMemory is how many bytes count: older ones fade.
	paceMemory = 256 << 20
)

// pace measures a host. It is safe for concurrent use.
type pace struct {
	mu      sync.Mutex // guards what follows
	bytes   float64
	took    time.Duration // for them
	latency time.Duration
}

// received notes a part of a blob's body, and how long it was waited for.
func (p *pace) received(n int, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bytes += float64(n)
	p.took += took
	if p.bytes > paceMemory {
		p.bytes /= 2
		p.took /= 2
	}
}

// answered notes how long an answer's headers took.
func (p *pace) answered(took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.latency == 0 {
		p.latency = took
	}
	p.latency += (took - p.latency) / 8
}

func (p *pace) read() Pace {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := Pace{Latency: p.latency}
	if p.bytes >= paceLeast && p.took > 0 {
		now.Speed = p.bytes / p.took.Seconds()
	}
	return now
}

// Pace returns what was measured of an upstream. It makes no entry: one that was
// not asked has none.
func (p *Pool) Pace(ep Endpoint) Pace {
	s, ok := p.sites.Peek(ep.hostPort())
	if !ok {
		return Pace{}
	}
	now := s.pace.read()
	for _, a := range s.ledger() {
		now.Limited = now.Limited || a.Limit != nil || a.Remaining != nil || a.Answers.Limited > 0
	}
	return now
}
