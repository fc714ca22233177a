package mirror

import (
	"errors"
	"net"
	"net/http"
	"os"
	"testing"
	"time"
)

// connOver is a connection whose last request was answered, and its client.
func connOver(t *testing.T) (*conn, net.Conn) {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := (&net.Dialer{}).DialContext(soon(t), "tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	tcp, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tcp.Close() })
	c := &conn{TCPConn: tcp, door: &door{}}
	c.keepEnd([]byte("\r\n\r\n"))
	connState(c, http.StateIdle)
	return c, client
}

// A client that has begun with its next request has the time for it that net/http gives,
// and not what a connection lingers.
func TestNextRequestBegins(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"G", "\r\n"} {
		c, client := connOver(t)
		// What net/http sets has passed: nothing more is read under it, whatever is there.
		if err := c.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
			t.Fatal(err)
		}
		for i, want := range []error{nil, os.ErrDeadlineExceeded} {
			if _, err := client.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
			if n, err := c.Read(make([]byte, 16)); !errors.Is(err, want) {
				t.Errorf("%q, read %d: got %d bytes, %v, want %v", text, i, n, err, want)
			}
		}
	}
}
