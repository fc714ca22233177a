package load

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// maxHeader bounds the header of an answer.
const maxHeader = 16 << 10

// conn is one connection, with at most one request under way.
type conn struct {
	fd    int
	began time.Time
	left  int64  // requests that it may still send; less than 0: any number
	head  []byte // what is read of a header that is not whole
	body  int64  // what is still to come of the body
	busy  bool   // a request is under way
}

func dial(to netip.AddrPort) (*conn, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("load: socket: %w", err)
	}
	for _, err := range []error{
		unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetNonblock(fd, true),
	} {
		if err != nil {
			_ = unix.Close(fd)
			return nil, fmt.Errorf("load: connect to %s: %w", to, err)
		}
	}
	return &conn{fd: fd, head: make([]byte, 0, 1<<10)}, nil
}

// send begins a request. Requests are small, and nothing else is in the socket's
// buffer: the kernel takes all of it.
func (c *conn) send(request []byte, now time.Time) error {
	n, err := unix.Write(c.fd, request)
	if err != nil || n < len(request) {
		return fmt.Errorf("load: send: %d of %d bytes: %w", n, len(request), err)
	}
	c.began, c.busy, c.left = now, true, c.left-1
	return nil
}

// read takes what has come. done says that the answer is whole, n is how many bytes
// of its body came, and more that there may be more to read at once.
func (c *conn) read(buf []byte, p Plan) (n int64, done, more bool, err error) {
	got, err := unix.Read(c.fd, buf)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return 0, false, false, nil
	case err != nil:
		return 0, false, false, fmt.Errorf("load: read: %w", err)
	case got == 0:
		return 0, false, false, fmt.Errorf("load: the server closed the connection: %w", io.ErrUnexpectedEOF)
	case !c.busy:
		return 0, false, false, fmt.Errorf("load: %d bytes that nobody asked for: %.100q", got, buf[:got])
	}
	data := buf[:got]
	if c.body == 0 {
		rest, whole, err := c.header(data, p)
		if err != nil || !whole {
			return 0, false, false, err
		}
		c.body, data = p.body(), rest
	}
	if int64(len(data)) > c.body {
		return 0, false, false, fmt.Errorf("load: %d bytes more than Content-Length says", int64(len(data))-c.body)
	}
	c.body -= int64(len(data))
	if c.body == 0 {
		c.busy = false
		return int64(len(data)), true, false, nil
	}
	return int64(len(data)), false, got == len(buf), nil
}

// header looks for the end of the header in what has come so far, and checks it. rest
// is what comes behind it.
func (c *conn) header(data []byte, p Plan) (rest []byte, whole bool, err error) {
	text := data
	if len(c.head) > 0 {
		text = append(c.head, data...)
	}
	end := bytes.Index(text, []byte("\r\n\r\n"))
	if end < 0 {
		if len(text) > maxHeader {
			return nil, false, fmt.Errorf("load: a header of more than %d bytes", maxHeader)
		}
		c.head = append(c.head[:0], text...)
		return nil, false, nil
	}
	c.head = c.head[:0]
	return text[end+4:], true, checkHeader(text[:end], p.Size)
}

// checkHeader takes 200 with the right length.
func checkHeader(header []byte, size int64) error {
	line, fields, _ := bytes.Cut(header, []byte("\r\n"))
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200")) {
		return fmt.Errorf("load: answer %.300q, want 200", header)
	}
	for len(fields) > 0 {
		var field []byte
		field, fields, _ = bytes.Cut(fields, []byte("\r\n"))
		const name = "content-length:"
		if len(field) < len(name) || !bytes.EqualFold(field[:len(name)], []byte(name)) {
			continue
		}
		if got, err := strconv.ParseInt(string(bytes.TrimSpace(field[len(name):])), 10, 64); err != nil || got != size {
			return fmt.Errorf("load: answer with %q, want %d bytes", field, size)
		}
		return nil
	}
	return fmt.Errorf("load: answer without Content-Length: %.300q", header)
}
