package mirror

import (
	"errors"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// room is how much net/http reads at a time.
const room = 16

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
	c := &conn{TCPConn: tcp, door: &door{}, room: room}
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
			if n, err := c.Read(make([]byte, room)); !errors.Is(err, want) {
				t.Errorf("%q, read %d: got %d bytes, %v, want %v", text, i, n, err, want)
			}
		}
	}
}

// What comes behind a request, and is no whole one, is not lost with net/http's buffer:
// here a blank line, which net/http does not take for the start of a request.
func TestNothingIsLostBehindARequest(t *testing.T) {
	t.Parallel()
	g := newGuard(t, 0, 0)
	for _, first := range []string{
		get(inner),
		"POST " + inner + " HTTP/1.1\r\nHost: larder\r\nContent-Length: 4\r\n\r\n\r\n\r\n" + get(inner),
	} {
		c := g.talker()
		err := c.say(first + "\r\n")
		for range strings.Count(first, "HTTP/1.1") {
			err = errors.Join(err, c.hear(inner))
		}
		if err = errors.Join(err, c.say(get("/v2/door"))); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(c.answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("a blank line before a request: got %s, want 400", resp.Status)
		}
	}
}
