package mirror

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// maxPorters bounds how many threads answer at the door, on large machines.
const maxPorters = 4

// prompt is a http.Handler that can answer some plain requests at once.
type prompt interface {
	answerPlain(ctx context.Context, dst []byte, p plain) (answer []byte, ok bool)
}

// door is where connections wait for their next request. What is plain and at hand is
// answered there and then, by few threads: no goroutine is switched to, and nothing is
// kept of who waits but a descriptor. With all else a connection goes in, to net/http,
// whose net.Listener it is, and comes back when that was answered.
type door struct {
	listener    *Listener
	prompt      prompt        // nil: all is net/http's
	first, next time.Duration // for the first request of a connection, and for each that follows; 0: for ever
	porters     []*porter     // each has its share of who waits
	turn        atomic.Uint32
	in          chan net.Conn // for net/http
	done        chan struct{}
	closing     sync.Once
}

// newDoor makes the door of a Listener, and lets nobody in yet.
func newDoor(l *Listener, p prompt, first, next time.Duration) (*door, error) {
	d := &door{listener: l, prompt: p, first: first, next: next, in: make(chan net.Conn), done: make(chan struct{})}
	for range min(runtime.GOMAXPROCS(0), maxPorters) {
		p, err := newPorter(d)
		if err != nil {
			return nil, errors.Join(err, d.Close())
		}
		d.porters = append(d.porters, p)
	}
	return d, nil
}

// Serve has a server serve a Listener's connections, until it is shut down or the
// Listener is closed. Use it, and not the server's own Serve, for which each
// connection that is idle has buffers and a goroutine of its own.
func Serve(srv *http.Server, l *Listener) error {
	p, _ := srv.Handler.(prompt)
	d, err := newDoor(l, p, srv.ReadHeaderTimeout, srv.IdleTimeout)
	if err != nil {
		return err
	}
	return d.serve(srv)
}

// serve has a server serve what comes in.
func (d *door) serve(srv *http.Server) error {
	srv.ConnContext, srv.ConnState = connContext, connState
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.admit()
	}()
	err := srv.Serve(d) // closes it
	<-ended
	return err
}

// admit takes new connections to the door until the Listener is closed.
func (d *door) admit() {
	for {
		c, err := d.listener.accept()
		if err != nil {
			_ = d.Close()
			return
		}
		c.door = d
		if c.over || !d.enter(c, d.first) {
			d.letIn(c)
		}
	}
}

// letIn gives a connection to net/http.
func (d *door) letIn(c *conn) {
	select {
	case d.in <- c:
	case <-d.done:
		_ = c.Close() // nothing of it is under way
	}
}

// answer asks the prompt. If that panics, net/http will have to do with it, and knows
// how to.
func (d *door) answer(dst []byte, p plain) (answer []byte, ok bool) {
	if d.prompt == nil {
		return nil, false
	}
	defer func() {
		if recover() != nil {
			answer, ok = nil, false
		}
	}()
	return d.prompt.answerPlain(context.Background(), dst, p)
}

// Accept waits for a connection that has something to say to net/http.
func (d *door) Accept() (net.Conn, error) {
	select {
	case c := <-d.in:
		return c, nil
	case <-d.done:
		return nil, net.ErrClosed
	}
}

// Addr is where it listens.
func (d *door) Addr() net.Addr { return d.listener.Addr() }

// Close closes the Listener and all connections that wait. Those that are being
// answered are closed behind that.
func (d *door) Close() (err error) {
	d.closing.Do(func() {
		close(d.done)
		err = d.listener.Close()
		for _, p := range d.porters {
			err = errors.Join(err, p.close())
		}
	})
	return err
}

// enter has a connection wait at the door. What it was lives on with another
// descriptor then, of which Go's poller knows nothing, and net/http has nothing of it
// any more. If it is not ok no descriptor is left, and nothing has changed.
func (d *door) enter(c *conn, patience time.Duration) (ok bool) {
	fd, err := duplicate(c.TCPConn)
	if isOutOfFiles(err) { // for a moment there are two
		d.listener.lendSpare()
		defer d.listener.keepSpare()
		fd, err = duplicate(c.TCPConn)
	}
	if err != nil {
		return false
	}
	if c.ended.Swap(true) { // it was closed: a server that ends does that
		_ = unix.Close(int(fd))
		return true
	}
	defer func() { _ = c.TCPConn.Close() }() // it has nothing under way
	p := d.porters[int(d.turn.Add(1))%len(d.porters)]
	if err := p.take(fd, patience); err != nil { // all ends
		_ = unix.Close(int(fd))
		d.listener.left()
	}
	return true
}

func duplicate(c *net.TCPConn) (fd int32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = raw.Control(func(old uintptr) {
		var n int
		n, failed = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
		fd = int32(n) //nolint:gosec // descriptors are small
	})
	return fd, errors.Join(err, os.NewSyscallError("fcntl", failed))
}
