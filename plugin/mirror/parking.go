package mirror

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// maxWaiting is how many connections wait for their next request in net/http, each
// with two buffers and the stack that its last request has left: some 20 KiB. Those
// that are idle longer than these are parked.
const maxWaiting = 512

// parking has the connections that are idle for longest give back what net/http keeps
// for each: it is told that such a connection has ended, and serves it as a new one
// when the client says something again. Nothing of it shows to the client.
//
// It is a net.Listener, of the connections that come back.
type parking struct {
	addr    net.Addr
	waiting int        // at most; the others are parked
	back    chan *conn // those that come back
	done    chan struct{}

	mu     sync.Mutex // guards what follows, and a conn's called, left, before and after
	idle   queue
	parked map[*conn]struct{}
	closed bool
}

func newParking(addr net.Addr, waiting int) *parking {
	return &parking{addr: addr, waiting: waiting, back: make(chan *conn), done: make(chan struct{}), parked: map[*conn]struct{}{}}
}

// read is a Read between two requests, which may end with the connection parked.
func (p *parking) read(c *conn, b []byte) (int, error) {
	p.enter(c)
	n, err := c.TCPConn.Read(b)
	return p.leave(c, n, err)
}

// enter has a connection wait, and calls away the one that has waited for longest if
// they are too many.
func (p *parking) enter(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.called = false
	p.idle.add(c)
	if p.idle.n > p.waiting {
		longest := p.idle.first
		p.idle.remove(longest)
		// Its Read ends, and sees that it was called: to leave, it needs mu.
		longest.called = longest.TCPConn.SetReadDeadline(time.Unix(1, 0)) == nil
	}
}

// leave is the end of a Read that returned n and err. A connection that was called
// away and has nothing to say is parked, and net/http is told that the client left.
func (p *parking) leave(c *conn, n int, err error) (int, error) {
	switch {
	case !p.isCalled(c):
	case n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && p.park(c):
		return 0, io.EOF
	default: // the client was faster, or all ends
		if failed := c.TCPConn.SetReadDeadline(c.deadline); err == nil {
			err = failed
		}
	}
	return n, err
}

// isCalled reports whether a connection that waits no more was called away.
func (p *parking) isCalled(c *conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !c.called {
		p.idle.remove(c)
	}
	return c.called
}

// park takes a connection over from net/http, which closes what it has of it. It is
// not ok once the parking is closed.
func (p *parking) park(c *conn) (ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	c.left = true
	again := &conn{TCPConn: c.TCPConn, listener: c.listener, deadline: c.deadline}
	p.parked[again] = struct{}{}
	go p.watch(again)
	return true
}

// hasLeft reports whether a connection is net/http's no more.
func (p *parking) hasLeft(c *conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return c.left
}

// watch waits until the client says something, or its time to be idle is over. Of what
// it says nothing is read here.
func (p *parking) watch(c *conn) {
	err := c.TCPConn.SetReadDeadline(c.deadline)
	if err == nil {
		err = awaitReadable(c.TCPConn)
	}
	p.mu.Lock()
	delete(p.parked, c)
	p.mu.Unlock()
	if err == nil && c.SetReadDeadline(time.Time{}) == nil {
		select {
		case p.back <- c:
			return
		case <-p.done:
		}
	}
	_ = c.Close() // it had nothing under way
}

// Accept waits for a connection to come back.
func (p *parking) Accept() (net.Conn, error) {
	select {
	case c := <-p.back:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// Addr is where the connections came from.
func (p *parking) Addr() net.Addr { return p.addr }

// Close closes those that are parked: a server that ends closes the idle ones.
func (p *parking) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	close(p.done)
	var errs []error
	for c := range p.parked {
		errs = append(errs, c.TCPConn.Close()) // who watches it counts it out
	}
	return errors.Join(errs...)
}

// Serve has a server serve a Listener's connections, until it is shut down or the
// Listener is closed. Use it, and not the server's own Serve, which parks none.
func Serve(srv *http.Server, l *Listener) error {
	srv.ConnContext, srv.ConnState = connContext, connState
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = srv.Serve(l.parking) // fails only once it is closed
	}()
	err := srv.Serve(l)
	err = errors.Join(err, l.parking.Close())
	<-ended
	return err
}

// connState lets a connection know that a request was answered and no other has come.
func connState(c net.Conn, state http.ConnState) {
	if c, ok := c.(*conn); ok && state == http.StateIdle {
		c.pause = answered
	}
}

// queue is a list of connections, in the order in which they were added.
type queue struct {
	first, last *conn
	n           int
}

func (q *queue) add(c *conn) {
	c.before, c.after = q.last, nil
	if q.last != nil {
		q.last.after = c
	} else {
		q.first = c
	}
	q.last = c
	q.n++
}

func (q *queue) remove(c *conn) {
	if c.before != nil {
		c.before.after = c.after
	} else {
		q.first = c.after
	}
	if c.after != nil {
		c.after.before = c.before
	} else {
		q.last = c.before
	}
	c.before, c.after = nil, nil
	q.n--
}
