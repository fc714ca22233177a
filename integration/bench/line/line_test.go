package line

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// piped is a line without sockets, so that it can be in a synctest bubble. Each call of
// connect is a client's end of a connection whose other end serve has.
type piped struct {
	*Line
	serve   func(net.Conn)
	serving sync.WaitGroup
}

func newPiped(shape Shape, serve func(net.Conn)) *piped {
	return &piped{Line: &Line{shape: shape, shared: &pace{rate: shape.Rate}}, serve: serve}
}

func (p *piped) connect(ctx context.Context) net.Conn {
	client, here := net.Pipe()
	there, server := net.Pipe()
	began := time.Now()
	p.serving.Go(func() { p.relay(ctx, here, there, began) })
	p.serving.Go(func() {
		defer server.Close()
		p.serve(server)
	})
	return client
}

// echo answers each byte with itself.
func echo(conn net.Conn) { _, _ = io.Copy(conn, conn) }

func TestRoundTrips(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPiped(Shape{RTT: 50 * time.Millisecond}, echo)
		conn := p.connect(t.Context())
		began := time.Now()
		for i, want := range []time.Duration{100 * time.Millisecond, 150 * time.Millisecond, 200 * time.Millisecond} {
			if _, err := conn.Write([]byte{1}); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			if got := time.Since(began); got != want {
				t.Errorf("answer %d after %v, want %v", i, got, want)
			}
		}
		_ = conn.Close()
		p.serving.Wait()
	})
}

// send has the server send n bytes.
func send(n int) func(net.Conn) {
	return func(conn net.Conn) { _, _ = conn.Write(make([]byte, n)) }
}

// within tells whether a time is what it should be, but for slack and one chunk more
// or less for each of the connections.
func within(t *testing.T, what string, got, want time.Duration, rate int64, conns int) {
	t.Helper()
	off := 2*slack + time.Duration(conns*chunk)*time.Second/time.Duration(rate)
	if got < want-off || got > want+off {
		t.Errorf("%s: took %v, want %v, %v more or less", what, got, want, off)
	}
}

func TestRatePerConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rate = 20 << 20
		p := newPiped(Shape{PerConn: rate}, send(2*rate))
		began := time.Now()
		var clients sync.WaitGroup
		for range 3 {
			clients.Go(func() {
				conn := p.connect(t.Context())
				n, err := io.Copy(io.Discard, conn)
				if n != 2*rate || err != nil {
					t.Errorf("got %d bytes, %v, want %d", n, err, 2*rate)
				}
				within(t, "two seconds' worth, beside two others", time.Since(began), 2*time.Second, rate, 1)
				_ = conn.Close()
			})
		}
		clients.Wait()
		p.serving.Wait()
	})
}

// Three share a line: they have a third each, until one has all that it wants.
func TestSharedRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rate = 25 << 20
		sizes := make(chan int, 3)
		p := newPiped(Shape{Rate: rate}, func(conn net.Conn) { send(<-sizes)(conn) })
		began := time.Now()
		var clients sync.WaitGroup
		for _, size := range []int{rate / 3, rate, rate + 1} {
			clients.Go(func() {
				sizes <- size
				conn := p.connect(t.Context())
				n, err := io.Copy(io.Discard, conn)
				if err != nil {
					t.Error(err)
				}
				want := time.Second
				if n > rate/2 { // another one's size, it may be
					want = 7 * time.Second / 3
				}
				within(t, "a part of the line", time.Since(began), want, rate, 3)
				_ = conn.Close()
			})
		}
		clients.Wait()
		p.serving.Wait()
	})
}

// A client that goes away in the middle ends the server's side, and the other way
// round; a half that ends leaves the other.
func TestBytesAndEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gone := make(chan error, 1)
		p := newPiped(Shape{RTT: time.Second, Rate: 1 << 30}, func(conn net.Conn) {
			for {
				if _, err := conn.Write(make([]byte, chunk)); err != nil {
					gone <- err
					return
				}
			}
		})
		conn := p.connect(t.Context())
		if _, err := io.ReadFull(conn, make([]byte, 3*chunk)); err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		if err := <-gone; !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("the server after the client has gone: %v, want %v", err, io.ErrClosedPipe)
		}
		p.serving.Wait()

		q := newPiped(Shape{RTT: time.Second}, func(conn net.Conn) { _, _ = conn.Write([]byte("last words")) })
		conn = q.connect(t.Context())
		if got, err := io.ReadAll(conn); string(got) != "last words" || err != nil {
			t.Errorf("got %q, %v, want all that the server has said", got, err)
		}
		_ = conn.Close()
		q.serving.Wait()
	})
}

func TestOverTCP(t *testing.T) {
	t.Parallel()
	data := make([]byte, 5<<20+3)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) }))
	defer server.Close()
	l, err := Start(strings.TrimPrefix(server.URL, "http://"), Shape{RTT: time.Millisecond, Rate: 1 << 40, PerConn: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	for range 3 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.Addr(), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		if err != nil || sha256.Sum256(got) != sha256.Sum256(data) {
			t.Errorf("%d bytes, %v, that are not the server's %d", len(got), err, len(data))
		}
		resp.Body.Close()
	}
	idle, err := net.Dial("tcp4", l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if n, err := idle.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("a connection outlives the line: %d bytes, %v", n, err)
	}
	if conn, err := net.Dial("tcp4", l.Addr()); err == nil {
		_ = conn.Close()
		t.Error("a closed line takes connections")
	}
}

// Where nobody listens behind it, the client's connection ends.
func TestNobodyBehind(t *testing.T) {
	t.Parallel()
	l, err := Start("127.0.0.1:0", Shape{}) // no port that anyone can have
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp4", l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := io.ReadAll(conn); len(bytes.TrimSpace(got)) > 0 {
		t.Errorf("got %q, %v, want an end", got, err)
	}
}
