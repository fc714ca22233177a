package load

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// bufferSize is what is read at once: less than a core's cache.
const bufferSize = 256 << 10

// Do makes the load in this process.
func Do(p Plan) (Result, error) {
	to, err := p.check()
	if err != nil {
		return Result{}, err
	}
	loops := make([]*loop, min(runtime.NumCPU(), p.Conns))
	defer func() {
		for _, l := range loops {
			l.close()
		}
	}()
	requests := p.requests()
	for i := range loops {
		// Each begins elsewhere, so that together they ask for all in less time.
		if loops[i], err = newLoop(p, requests, i*len(requests)/len(loops)); err != nil {
			return Result{}, err
		}
	}
	for i := range p.Conns {
		if err := loops[i%len(loops)].add(to); err != nil {
			return Result{}, err
		}
	}
	busy, err := Busy()
	if err != nil {
		return Result{}, err
	}
	mine, began := own(), time.Now()
	var all errgroup.Group
	for _, l := range loops {
		all.Go(func() error { return l.run(began) })
	}
	err = all.Wait()
	r := Result{Took: time.Since(began), Own: own() - mine}
	now, busyErr := Busy()
	r.Busy = now - busy
	var took []time.Duration
	for _, l := range loops {
		r.Requests += int64(len(l.took))
		r.Bytes += l.bytes
		took = append(took, l.took...)
	}
	r.took(took)
	return r, errors.Join(err, busyErr)
}

// loop has a part of the connections, on a thread of its own.
type loop struct {
	plan     Plan
	requests [][]byte
	turn     int // of requests: the next
	epoll    int
	conns    map[int32]*conn
	running  int
	bytes    int64
	took     []time.Duration
}

func newLoop(p Plan, requests [][]byte, turn int) (*loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("load: epoll: %w", err)
	}
	return &loop{plan: p, requests: requests, turn: turn, epoll: fd, conns: map[int32]*conn{}}, nil
}

// next is the request whose turn it is.
func (l *loop) next() []byte {
	request := l.requests[l.turn]
	if l.turn++; l.turn == len(l.requests) {
		l.turn = 0
	}
	return request
}

func (l *loop) close() {
	if l == nil {
		return
	}
	for _, c := range l.conns {
		_ = unix.Close(c.fd)
	}
	_ = unix.Close(l.epoll)
}

func (l *loop) add(to netip.AddrPort) error {
	c, err := dial(to)
	if err != nil {
		return err
	}
	if c.left = int64(l.plan.Each); c.left == 0 {
		c.left = -1
	}
	l.conns[int32(c.fd)] = c
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, c.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(c.fd)}); err != nil {
		return fmt.Errorf("load: epoll: %w", err)
	}
	return nil
}

// run sends and reads until every connection has done its part.
func (l *loop) run(began time.Time) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, c := range l.conns {
		if err := c.send(l.next(), time.Now()); err != nil {
			return err
		}
	}
	l.running = len(l.conns)
	buf := make([]byte, bufferSize)
	events := make([]unix.EpollEvent, 256)
	for l.running > 0 {
		left := l.plan.Limit - time.Since(began)
		if left <= 0 {
			return fmt.Errorf("load: %d of %d connections wait for an answer after %v: %w", l.running, len(l.conns), l.plan.Limit, os.ErrDeadlineExceeded)
		}
		n, err := unix.EpollWait(l.epoll, events, int(left.Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("load: epoll: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			if err := l.ready(l.conns[e.Fd], buf, began); err != nil {
				return err
			}
		}
	}
	return nil
}

// ready reads what one connection has, and sends its next request.
func (l *loop) ready(c *conn, buf []byte, began time.Time) error {
	for {
		n, done, more, err := c.read(buf, l.plan)
		if err != nil {
			return err
		}
		l.bytes += n
		if done {
			now := time.Now()
			l.took = append(l.took, now.Sub(c.began))
			if c.left == 0 || l.plan.Each == 0 && now.Sub(began) >= l.plan.For {
				l.running--
				return nil
			}
			return c.send(l.next(), now)
		}
		if !more {
			return nil
		}
	}
}
