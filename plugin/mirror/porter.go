package mirror

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// grace is for how long a worker may be at one batch of requests before another
	// helps out: the disk or the log may hang.
	grace = 100 * time.Millisecond
	// heard is how many connections a worker hears of at a time.
	heard = 16
)

// porter has its share of the connections that wait at the door, and a worker that
// answers them. One that hangs holds up its own client; others wait for grace at most,
// until another worker is there.
type porter struct {
	door   *door
	poller *poller

	mu      sync.Mutex       // guards what follows; never held while anything is waited for
	guests  map[int32]*guest // by descriptor
	ready   []*guest         // who have something to say; longest first
	serial  int32            // of the last guest
	workers int
	hearing bool // one of them waits for events
	sweeper sweeper
	closed  bool
}

// guest is a connection at the door.
type guest struct {
	token
	deadline time.Time // by which it has to say something, if not zero
	waits    bool      // for the client; else it is in ready, or a worker's
	muted    bool      // for the poller
}

func newPorter(d *door) (*porter, error) {
	poller, err := newPoller()
	if err != nil {
		return nil, err
	}
	p := &porter{door: d, poller: poller, guests: map[int32]*guest{}, workers: 1}
	go p.work()
	return p, nil
}

// take has a connection wait.
func (p *porter) take(fd int32, patience time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return fmt.Errorf("connection %d: %w", fd, unix.EBADF)
	}
	p.serial++
	g := &guest{token: token{fd, p.serial}}
	if err := p.poller.add(g.token); err != nil {
		return err
	}
	p.guests[fd] = g
	p.await(g, patience)
	return nil
}

// again has a guest wait for its next request.
func (p *porter) again(g *guest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || g.muted && p.poller.unmute(g.token) != nil {
		p.drop(g)
		return
	}
	g.muted = false
	p.await(g, p.door.next)
}

// await has a guest wait; mu is held.
func (p *porter) await(g *guest, patience time.Duration) {
	g.waits, g.deadline = true, time.Time{}
	if patience > 0 {
		now := time.Now()
		g.deadline = now.Add(patience)
		p.sweeper.by(g.deadline, now, p.sweep)
	}
}

// leave closes the connection of a worker's guest.
func (p *porter) leave(g *guest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(g)
}

// drop closes a guest's connection, of which nothing is under way; mu is held.
func (p *porter) drop(g *guest) {
	delete(p.guests, g.fd)
	_ = unix.Close(int(g.fd))
	p.door.listener.left()
}

// close closes the connections that wait, and has the workers end.
func (p *porter) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, g := range p.guests {
		if g.waits {
			p.drop(g)
		}
	}
	for _, g := range p.ready {
		p.drop(g)
	}
	p.ready = nil
	p.sweeper.stop()
	return p.poller.wake()
}

// next waits for one who has something to say. It returns nil if the worker is to end.
func (p *porter) next(w *worker) *guest {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.closed {
		if len(p.ready) > 0 {
			g := p.ready[0]
			p.ready = slices.Delete(p.ready, 0, 1)
			return g
		}
		if p.hearing {
			break // there is one that can wait: this one hung, or helped
		}
		if err := p.hear(w); err != nil { // for a wrong argument only
			p.door.listener.logger.Error("connections are no longer heard", "err", err)
			break
		}
	}
	p.workers--
	if p.closed && p.workers == 0 {
		_ = p.poller.close() // it is nobody's any more
	}
	return nil
}

// hear waits for events, without mu, and finds whose they are.
func (p *porter) hear(w *worker) error {
	p.hearing = true
	p.mu.Unlock()
	w.late.Stop()
	n, err := p.poller.wait(w.events[:])
	w.late.Reset(grace)
	p.mu.Lock()
	p.hearing = false
	for _, e := range w.events[:n] {
		g, ok := p.guests[e.Fd]
		switch {
		case !ok || g.serial != e.Pad: // it was closed meanwhile; its number may be another's
		case g.waits:
			g.waits = false
			p.ready = append(p.ready, g)
		case !g.muted: // it says more while a worker that hangs has it
			g.muted = p.poller.mute(g.token) == nil
		}
	}
	return err
}

// help has another worker take what one that hangs has not begun.
func (p *porter) help() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.workers++
		go p.work()
	}
}
