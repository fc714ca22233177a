package mirror

import (
	"context"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// conn is a connection that is counted, and that can be parked.
type conn struct {
	*net.TCPConn
	listener *Listener
	over     bool // the bound was reached before it
	once     sync.Once

	// Of the goroutine that reads. net/http has one at a time.
	pause    pause
	deadline time.Time // for reading
	end      [4]byte   // the last bytes that were read

	// See parking.mu.
	called, left  bool // told to leave net/http; has left it
	before, after *conn
}

// pause is where a connection is between two requests.
type pause int

const (
	none     pause = iota // in a request, or before the first one
	answered              // the last request was answered
	waiting               // and it is set for how long the next one is waited for
)

// Read implements net.Conn.
func (c *conn) Read(p []byte) (n int, err error) {
	if c.pause == waiting && string(c.end[:]) == "\r\n\r\n" {
		n, err = c.listener.parking.read(c, p)
	} else {
		// Within a request; or a part of the next one is in net/http's buffer, and
		// would be lost with it. GET and HEAD end with their header.
		n, err = c.TCPConn.Read(p)
	}
	c.keepEnd(p[:n])
	return n, err
}

func (c *conn) keepEnd(p []byte) {
	if len(p) < len(c.end) {
		copy(c.end[:], c.end[len(p):])
		copy(c.end[len(c.end)-len(p):], p)
		return
	}
	copy(c.end[:], p[len(p)-len(c.end):])
}

// SetReadDeadline implements net.Conn. After an answer net/http sets one for the time
// until the next request, and another when that begins to come.
func (c *conn) SetReadDeadline(t time.Time) error {
	switch c.pause {
	case answered:
		c.pause = waiting
	case waiting:
		c.pause = none
	}
	c.deadline = t
	return c.TCPConn.SetReadDeadline(t)
}

// ReadFrom is called by net/http for a body, when what is before it has been sent.
func (c *conn) ReadFrom(src io.Reader) (int64, error) {
	if body, ok := src.(*sending); ok {
		return body.sendTo(c.TCPConn)
	}
	return c.TCPConn.ReadFrom(src)
}

// Close implements net.Conn. What net/http closes of a connection that has left it
// lives on.
func (c *conn) Close() error {
	if c.listener.parking.hasLeft(c) {
		return nil
	}
	c.once.Do(func() {
		c.listener.open.Add(-1)
		select {
		case c.listener.freed <- struct{}{}:
		default:
		}
	})
	return c.TCPConn.Close()
}

type overKey struct{}

// connContext lets a Server know the connections that are one too many.
func connContext(ctx context.Context, c net.Conn) context.Context {
	if c, ok := c.(*conn); ok && c.over {
		return context.WithValue(ctx, overKey{}, true)
	}
	return ctx
}

// isOver reports whether the request came over one connection too many.
func isOver(ctx context.Context) bool { return ctx.Value(overKey{}) != nil }

// awaitReadable waits until there is something to read, or the read deadline. It reads
// nothing, needs no buffer, and its stack stays at its smallest.
func awaitReadable(c *net.TCPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(isReadable)
}

func isReadable(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}} //nolint:gosec // the kernel's own number
	for {
		n, err := unix.Poll(fds, 0)
		if err != unix.EINTR {
			return n > 0 || err != nil // who reads learns what is wrong
		}
	}
}
