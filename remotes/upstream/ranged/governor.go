package ranged

import (
	"runtime"
	"sync"
	"time"
)

const (
	// leastSpan and leastBytes are what a speed is measured over.
	leastSpan  = 250 * time.Millisecond
	maxSpan    = 2 * time.Second
	leastBytes = 256 << 10
	// spanOpenings is how many times as long as it takes to open a part a speed
	// is measured: a new connection is slow at first.
	spanOpenings = 4
	// worth is by what part of its own size an addition must raise the speed to
	// stay: a fifth for twice as many. leastWorth is more than noise.
	worth      = 0.2
	leastWorth = 0.1
	// enough bytes a second of one connection: what is slow then is not the line.
	enough = 128 << 20
	// plenty bytes a second of all together, for each processor, are so, too: to receive,
	// hash, store and send them takes about half of it.
	plenty = 192 << 20
	// firstRest is how long nothing is tried after an addition brought nothing, for
	// noise may have hidden what it brought; twice as long after each one more that
	// does not, up to rest. backoff is that after an upstream refused.
	firstRest = 2 * time.Second
	rest      = 10 * time.Second
	backoff   = time.Minute
	// memory is how long what was found holds while nothing is fetched.
	memory = time.Minute
)

// Governor says how many connections for blobs an upstream host is worth. It
// doubles them on trial, and keeps what raised the speed of all together by a
// fifth; else it goes back, and rests, and also when it is slower later than it
// was with fewer. It compares spans in which the number of
// connections did not change, so that what others begin and end meanwhile does
// not count for it. It has no goroutine; it is safe for concurrent use.
type Governor struct {
	mu      sync.Mutex // guards what follows
	running int
	target  int
	trial   *level  // what the one under way is compared with
	steps   []level // what those that stayed were compared with
	wanted  bool    // one more was asked for, and refused
	quiet   time.Time
	pause   time.Duration // the last rest; 0 after an addition that stayed
	idle    time.Time     // since when nothing runs
	opening time.Duration

	since time.Time // of the span
	bytes int64     // in it
}

// level is a number of connections, and the speed of all together.
type level struct {
	connections int
	speed       float64
}

// isFast reports whether more connections would bring no more that is of use.
func (l level) isFast() bool {
	return l.speed/float64(l.connections) >= enough || l.speed >= plenty*float64(runtime.GOMAXPROCS(0))
}

// Join counts a connection that is made whatever the governor says: that of a
// body that begins.
func (g *Governor) Join() {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if g.running == 0 && now.Sub(g.idle) > memory {
		g.target, g.trial, g.steps, g.pause = 0, nil, nil, 0
	}
	g.running++
	g.begin(now)
}

// More asks for a connection in addition, and counts it.
func (g *Governor) More() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.running >= g.target {
		g.wanted = true
		return false
	}
	g.running++
	g.begin(time.Now())
	return true
}

// Leave takes a connection out of the count.
func (g *Governor) Leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if g.running--; g.running == 0 {
		g.idle = now
	}
	g.begin(now)
}

// TooMany reports whether connections in addition are to be given up.
func (g *Governor) TooMany() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.running > g.target
}

// Opened notes how long it took to open a body or a part. The first part of a
// connection begins a new span: what came while it was made says nothing.
func (g *Governor) Opened(took time.Duration, first bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.opening = took
	if first {
		g.begin(time.Now())
	}
}

// Opening is how long it took to open the last part.
func (g *Governor) Opening() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.opening
}

// Refused says that the upstream does not take more connections: by 429, by
// 503, or by answers that are not what was asked for.
func (g *Governor) Refused() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.target, g.trial, g.steps = 0, nil, nil
	g.quiet = time.Now().Add(backoff)
}

// Resting is for how long nobody will get one more: nothing is tried, and all that
// are worth it are there.
func (g *Governor) Resting() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.running < g.target {
		return 0
	}
	return max(0, time.Until(g.quiet))
}

// Received counts bytes of any connection.
func (g *Governor) Received(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.bytes += int64(n)
	if g.bytes < leastBytes {
		return
	}
	now := time.Now()
	if took := now.Sub(g.since); took >= min(max(leastSpan, spanOpenings*g.opening), maxSpan) {
		g.decide(now, level{connections: g.running, speed: float64(g.bytes) / took.Seconds()})
		g.begin(now)
	}
}

// begin begins a span.
func (g *Governor) begin(now time.Time) { g.since, g.bytes = now, 0 }

// decide judges the trial, if one is under way, and begins the next one.
func (g *Governor) decide(now time.Time, is level) {
	if was := g.trial; was != nil {
		g.trial = nil
		more := is.connections - was.connections
		gain := max(leastWorth, worth*float64(more)/float64(was.connections))
		switch {
		case more <= 0: // nobody has taken it yet, or others ended
			g.wanted = true
		case is.speed < was.speed*(1+gain):
			g.target = was.connections
			g.rest(now)
			return
		default:
			g.pause = 0
			g.target = is.connections
			g.steps = append(g.steps, *was)
		}
	}
	if n := len(g.steps); n > 0 && is.connections > g.steps[n-1].connections && is.speed < g.steps[n-1].speed {
		// With fewer it was faster: the trial was luck, or the line is another one.
		g.target, g.trial = g.steps[n-1].connections, nil
		g.steps = g.steps[:n-1]
		g.rest(now)
		return
	}
	wanted := g.wanted
	g.wanted = false
	if !wanted || now.Before(g.quiet) || is.connections == 0 || is.isFast() {
		return
	}
	g.trial, g.target = &is, 2*is.connections
}

// rest has nothing tried for a while.
func (g *Governor) rest(now time.Time) {
	g.pause = min(max(2*g.pause, firstRest), rest)
	g.quiet = now.Add(g.pause)
}
