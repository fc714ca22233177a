package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Bounds of a Listener.
type Bounds struct {
	// Connections that are served at a time. Some more are answered 503, and
	// those above are reset, so that a client learns at once that it has to go
	// elsewhere. 0: any number.
	Connections int
	// Stall is how long a client may take no byte of what was sent to it before
	// its connection is cut. 0: for ever.
	Stall time.Duration
}

// Listener is where the mirror listens. It bounds what clients take of the
// process's file descriptors, and how long one that reads nothing holds them.
type Listener struct {
	tcp    *net.TCPListener
	bounds Bounds
	logger *slog.Logger

	open  atomic.Int64
	freed chan struct{} // gets a value when a connection is closed; never blocks
	busy  atomic.Bool   // said in the log

	mu     sync.Mutex // guards what follows
	spare  *os.File   // gives its descriptor to a client that can only be told to go; nil while lent
	closed bool
}

// Listen listens on a TCP address, host:port.
func Listen(ctx context.Context, address string, bounds Bounds, logger *slog.Logger) (*Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return setStall(c, bounds.Stall) }}
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("listen on %s: got a %T", address, l), l.Close())
	}
	spare, err := os.Open(os.DevNull)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", address, err), l.Close())
	}
	return &Listener{
		tcp: tcp, bounds: bounds, logger: logger, freed: make(chan struct{}, 1), spare: spare,
	}, nil
}

// Addr is where it listens.
func (l *Listener) Addr() net.Addr { return l.tcp.Addr() }

// Close stops listening. Connections stay.
func (l *Listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.spare != nil {
		l.spare.Close()
		l.spare = nil
	}
	return l.tcp.Close()
}

// accept waits for a connection that may be answered. It fails only once the Listener
// is closed.
func (l *Listener) accept() (*conn, error) {
	for {
		c, err := l.tcp.AcceptTCP()
		if isOutOfFiles(err) {
			c, err = l.acceptWithSpare()
		}
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil, err
		case err != nil: // of one connection, which ended before it was accepted
			l.logger.Debug("connection not accepted", "err", err)
		default:
			if c := l.admit(c); c != nil {
				return c, nil
			}
		}
	}
}

// admit counts a connection. It returns nil if there are too many to say even
// that.
func (l *Listener) admit(c *net.TCPConn) *conn {
	n, limit := l.open.Add(1), int64(l.bounds.Connections)
	switch {
	case limit <= 0 || n <= limit:
		l.busy.Store(false)
		return &conn{TCPConn: c}
	case n <= limit+told(limit):
		l.warn("too many connections: clients are answered 503", nil)
		return &conn{TCPConn: c, over: true}
	}
	reset(c)
	l.open.Add(-1)
	return nil
}

// left counts out a connection that was admitted.
func (l *Listener) left() {
	l.open.Add(-1)
	select {
	case l.freed <- struct{}{}:
	default:
	}
}

// told is how many connections above the bound get an answer.
func told(limit int64) int64 { return max(8, limit/8) }

// warn logs once for each time that it gets too much.
func (l *Listener) warn(text string, err error) {
	if l.busy.CompareAndSwap(false, true) {
		l.logger.Warn(text, "connections", l.open.Load(), "bound", l.bounds.Connections, "err", err)
	}
}

func isOutOfFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM)
}

// errNoFiles is a connection that was reset for want of a descriptor.
var errNoFiles = errors.New("no file descriptor is left")

// acceptWithSpare takes the next connection with the spare's descriptor. The
// kernel says that none is left whether or not a client waits: if one comes when
// there are some again, it is served.
func (l *Listener) acceptWithSpare() (*net.TCPConn, error) {
	l.lendSpare()
	c, err := l.tcp.AcceptTCP()
	if l.keepSpare() {
		return c, err
	}
	l.warn("no file descriptor is left: clients are sent away", err)
	if err == nil {
		reset(c)
		err = errNoFiles
	}
	if !l.keepSpare() { // somebody else was faster
		select {
		case <-l.freed:
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil, err
}

func (l *Listener) lendSpare() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.spare != nil {
		l.spare.Close()
		l.spare = nil
	}
}

// keepSpare reports whether there is a spare descriptor, or none is needed any
// more.
func (l *Listener) keepSpare() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.spare == nil && !l.closed {
		l.spare, _ = os.Open(os.DevNull)
	}
	return l.spare != nil || l.closed
}

// reset ends a connection without a word that could wait to be read.
func reset(c *net.TCPConn) {
	_, _ = c.SetLinger(0), c.Close() // if it is not reset, it ends in order
}
