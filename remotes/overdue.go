package remotes

import "sync"

// overdue counts, by registry host, what somebody stopped waiting for and still
// runs. It is safe for concurrent use.
type overdue struct {
	mu    sync.Mutex
	count map[string]int
}

func newOverdue() *overdue { return &overdue{count: map[string]int{}} }

// add counts; done takes it back.
func (o *overdue) add(host string) (done func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.count[host]++
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.count[host]--; o.count[host] <= 0 {
			delete(o.count, host)
		}
	}
}

func (o *overdue) has(host string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.count[host] > 0
}

// patience is how long a client waits for a registry host if something stored
// can be served: not at all while something of that host is overdue.
func (r *Registry) patience(host string) *haste {
	p := &haste{most: r.Freshness.Patience, ended: func() func() { return r.overdue.add(host) }}
	if r.overdue.has(host) {
		p.most = 0
	}
	return p
}
