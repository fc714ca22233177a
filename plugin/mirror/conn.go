package mirror

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

// conn is a connection that net/http serves, until it is idle.
type conn struct {
	*net.TCPConn
	door  *door
	over  bool        // the bound was reached before it
	ended atomic.Bool // for net/http: it is closed, or back at the door

	// Of the goroutine that reads. net/http has one at a time.
	said  []byte // read at the door
	owed  []byte // of an answer that was given there
	pause pause
	until time.Time // for how long net/http waits for the next request, when it does
	room  int       // of net/http's buffer, when it is empty
}

// pause is where a connection is between two requests.
type pause int

const (
	none     pause = iota // in a request, or before the first one
	answered              // the last request was answered
	waiting               // and it is set for how long the next one is waited for
)

// linger is for how long a connection waits in net/http for the next request: to go
// out and in costs more than most requests that net/http answers.
const linger = 250 * time.Millisecond

// Read implements net.Conn. Between two requests it may have the connection go back to
// the door, and tells net/http that the client has left.
func (c *conn) Read(p []byte) (n int, err error) {
	if len(c.owed) > 0 {
		if err := c.pay(); err != nil {
			return 0, err
		}
	}
	if c.room == 0 {
		c.room = len(p) // of the first request nothing has been read
	}
	switch {
	case len(c.said) > 0:
		n = copy(p, c.said)
		c.said = c.said[n:]
		return n, nil
	// Not if something behind the last request is in net/http's buffer, and would be lost
	// with it: then there is less room in it.
	case c.pause == waiting && len(p) == c.room:
		return c.readNext(p)
	}
	return c.TCPConn.Read(p)
}

// readNext reads the next request. If that takes long the connection waits for it at
// the door; and so it does for others like one that can be answered there.
func (c *conn) readNext(p []byte) (n int, err error) {
	if err := c.TCPConn.SetReadDeadline(time.Now().Add(linger)); err != nil {
		return 0, err
	}
	n, err = c.TCPConn.Read(p)
	isLate := n == 0 && errors.Is(err, os.ErrDeadlineExceeded)
	canLeave := isLate || err == nil && c.answer(p[:n])
	if canLeave && c.door.enter(c, c.door.next) {
		return 0, io.EOF
	}
	// It stays. Behind a first byte or two net/http reads on, under the deadline that it
	// has set.
	c.pause = none
	if err := c.TCPConn.SetReadDeadline(c.until); err != nil {
		return n, err
	}
	if canLeave {
		return c.TCPConn.Read(p)
	}
	return n, err
}

// answer answers a plain request that is all that was said, if it can be at once.
func (c *conn) answer(said []byte) bool {
	p, n, ok := parsePlain(said)
	if !ok || n < len(said) {
		return false
	}
	text, ok := c.door.answer(nil, p)
	if !ok {
		return false
	}
	_, _ = c.TCPConn.Write(text) // if it fails, so does the next Read
	return true
}

// pay sends the rest of an answer, for which the client may take its time.
func (c *conn) pay() error {
	_, err := c.TCPConn.Write(c.owed)
	c.owed = nil
	if err == nil && c.door.first > 0 {
		err = c.TCPConn.SetReadDeadline(time.Now().Add(c.door.first))
	}
	return err
}

// SetReadDeadline implements net.Conn. After an answer net/http sets one for the time
// until the next request, and another when that begins to come.
func (c *conn) SetReadDeadline(t time.Time) error {
	switch c.pause {
	case answered:
		c.pause, c.until = waiting, t
	case waiting:
		c.pause = none
	}
	return c.TCPConn.SetReadDeadline(t)
}

// ReadFrom is called by net/http for a body, when what is before it has been sent.
func (c *conn) ReadFrom(src io.Reader) (int64, error) {
	if body, ok := src.(*sending); ok {
		return body.sendTo(c.TCPConn)
	}
	return c.TCPConn.ReadFrom(src)
}

// Close implements net.Conn. What net/http closes of a connection that is back at the
// door lives on.
func (c *conn) Close() error {
	if c.ended.Swap(true) {
		return nil
	}
	c.door.listener.left()
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

// connState lets a connection know that a request was answered and no other has come.
func connState(c net.Conn, state http.ConnState) {
	if c, ok := c.(*conn); ok && state == http.StateIdle {
		c.pause = answered
	}
}
