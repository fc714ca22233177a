package mirror

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// talker is a client with one connection that it keeps.
type talker struct {
	net.Conn
	answers *bufio.Reader
}

func (b *bench) talker() *talker {
	b.t.Helper()
	c := b.connect(1)[0]
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		b.t.Fatal(err)
	}
	return &talker{Conn: c, answers: bufio.NewReader(c)}
}

const ping = "GET /v2/ HTTP/1.1\r\nHost: larder\r\n\r\n"

func (c *talker) say(text string) error {
	_, err := io.WriteString(c, text)
	return err
}

// hear reads the answer to a ping.
func (c *talker) hear() error {
	resp, err := http.ReadResponse(c.answers, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || resp.Close || string(body) != "{}") {
		err = fmt.Errorf("got %s with %q", resp.Status, body)
	}
	return err
}

func (c *talker) ask() error { return errors.Join(c.say(ping), c.hear()) }

func (p *parking) count() (waiting, parked int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.idle.n, len(p.parked)
}

// settled waits until so many connections wait in net/http, and so many are parked.
func (b *bench) settled(waiting, parked int) {
	b.t.Helper()
	eventually(b.t, fmt.Sprintf("%d wait and %d are parked", waiting, parked), func() bool {
		w, p := b.listener.parking.count()
		return w == waiting && p == parked
	})
}

// Of many idle connections few are in net/http. The others are parked, are open, and
// are served when they say something; who leaves is counted out.
func TestParkedConnectionIsServed(t *testing.T) {
	t.Parallel()
	const clients, waiting = 10, 3
	b := newBench(t, func(s *setup) { s.waiting = waiting })
	var all []*talker
	for range clients {
		all = append(all, b.talker())
	}
	for range 3 {
		for i, c := range all {
			if err := c.ask(); err != nil {
				t.Fatalf("client %d: %v", i, err)
			}
		}
		b.settled(waiting, clients-waiting)
	}
	if n := b.listener.open.Load(); n != clients {
		t.Errorf("%d connections are counted, want %d", n, clients)
	}
	for _, c := range all {
		c.Close()
	}
	eventually(t, "none is counted", func() bool { return b.listener.open.Load() == 0 })
	b.settled(0, 0)
}

// What is called away is the connection that was idle for longest.
func TestLongestIdleIsParked(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(s *setup) { s.waiting = 2 })
	clients := []*talker{b.talker(), b.talker(), b.talker()}
	for i, next := range []int{0, 1, 0, 2} { // 1 is idle for longest then
		if err := clients[next].ask(); err != nil {
			t.Fatal(err)
		}
		b.settled(min(i+1, 2), i/3)
	}
	b.listener.parking.mu.Lock()
	defer b.listener.parking.mu.Unlock()
	for c := range b.listener.parking.parked {
		if got, want := c.RemoteAddr().String(), clients[1].LocalAddr().String(); got != want {
			t.Errorf("%s is parked, want %s", got, want)
		}
	}
}

// A client that has begun its next request is not parked, whatever of it has come:
// what net/http has read would be lost.
func TestBegunRequestIsNotParked(t *testing.T) {
	t.Parallel()
	for _, begun := range []string{"G", "GET", "GET /v2/ HTTP/1.1\r\nHost: larder\r\n"} {
		b := newBench(t, func(s *setup) { s.waiting = 1 })
		slow, others := b.talker(), []*talker{b.talker(), b.talker()}
		if err := errors.Join(slow.say(ping+begun), slow.hear()); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			for _, c := range others {
				if err := c.ask(); err != nil {
					t.Fatal(err)
				}
			}
		}
		b.settled(1, 1) // the others
		if err := errors.Join(slow.say(ping[len(begun):]), slow.hear()); err != nil {
			t.Errorf("begun with %q: %v", begun, err)
		}
	}
}

// Clients that speak just when they are called away get their answers.
func TestParkingUnderLoad(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(s *setup) { s.waiting = 1 })
	var all sync.WaitGroup
	for range 8 {
		c := b.talker()
		all.Go(func() {
			for i := range 200 {
				if err := c.ask(); err != nil {
					t.Errorf("request %d: %v", i, err)
					return
				}
			}
		})
	}
	all.Wait()
	b.settled(1, 7)
}

// accepted makes a connection to a listener of its own.
func accepted(t *testing.T) (*conn, net.Conn) {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1:0", Bounds{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l.parking.waiting = 1
	client, err := (&net.Dialer{}).DialContext(soon(t), "tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(client.Close(), c.Close(), l.Close(), l.parking.Close()); err != nil {
			t.Error(err)
		}
	})
	return c.(*conn), client
}

// A client that spoke before it was called away may go on: the deadline by which it
// was called does not hold for it.
func TestCalledTooLate(t *testing.T) {
	t.Parallel()
	c, client := accepted(t)
	other, _ := accepted(t)
	p := c.listener.parking
	p.enter(c)
	p.enter(other)
	if n, err := p.leave(c, 2, nil); n != 2 || err != nil || len(p.parked) > 0 {
		t.Errorf("left with %d, %v, and %d are parked", n, err, len(p.parked))
	}
	if _, err := io.WriteString(client, "more"); err != nil {
		t.Fatal(err)
	}
	if n, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Errorf("read %d, %v", n, err)
	}
}

// A parked connection is closed when its time to be idle is over, and all are when
// the server ends.
func TestParkedConnectionEnds(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		deadline time.Time
		end      func(p *parking) error
	}{
		"idle for too long": {time.Unix(1, 0), func(*parking) error { return nil }},
		"server ends":       {time.Time{}, (*parking).Close},
	} {
		c, client := accepted(t)
		l := c.listener
		c.deadline = tc.deadline
		if !l.parking.park(c) {
			t.Errorf("%s: it is not parked", name)
		}
		if err := c.Close(); err != nil || l.open.Load() > 1 { // as net/http does
			t.Errorf("%s: close: %v", name, err)
		}
		if err := tc.end(l.parking); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if n, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%s: the client reads %d, %v, want the end", name, n, err)
		}
		eventually(t, "it is counted out", func() bool { return l.open.Load() == 0 })
		if err := l.parking.Close(); err != nil || l.parking.park(c) {
			t.Errorf("%s: parked when all has ended, %v", name, err)
		}
	}
}
