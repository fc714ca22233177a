package mirror

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// talker is a client with one connection that it keeps.
type talker struct {
	net.Conn
	answers *bufio.Reader
}

func (c *talker) say(text string) error {
	_, err := io.WriteString(c, text)
	return err
}

// hear reads an answer that is good, and leaves the connection open.
func (c *talker) hear(want string) error {
	resp, err := http.ReadResponse(c.answers, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || resp.Close || string(body) != want) {
		err = fmt.Errorf("got %s with %.100q, want %.100q", resp.Status, body, want)
	}
	return err
}

// ask has its path answered.
func (c *talker) ask(path string) error { return errors.Join(c.say(get(path)), c.hear(bodyOf(path))) }

// guests is how many connections are at a door, of those that are meant.
func guests(d *door, meant func(*guest) bool) (n int) {
	for _, p := range d.porters {
		p.mu.Lock()
		for _, g := range p.guests {
			if meant(g) {
				n++
			}
		}
		p.mu.Unlock()
	}
	return n
}

// atDoor is how many connections wait at a door.
func atDoor(d *door) int { return guests(d, func(g *guest) bool { return g.waits }) }

// doorman is a handler that answers each request with bodyOf its path. Only what is
// plain and does not begin with inner is answered at the door.
type doorman struct {
	inside atomic.Int64  // requests that net/http had
	hang   chan struct{} // what /v2/hang waits for at the door
	hung   atomic.Int64  // those that have waited for it
}

const inner, big = "/v2/in", "/v2/large"

func bodyOf(path string) string {
	if path == big {
		return path + strings.Repeat("x", maxPrompt)
	}
	return path
}

func (d *doorman) answerPlain(_ context.Context, dst []byte, p plain) ([]byte, bool) {
	if strings.HasPrefix(p.path, inner) {
		return nil, false
	}
	if p.path == "/v2/hang" {
		d.hung.Add(1)
		<-d.hang
	}
	if p.path == "/v2/panic" {
		panic("at the door")
	}
	body := bodyOf(p.path)
	return append(fmt.Appendf(dst, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(body)), body...), true
}

func (d *doorman) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.inside.Add(1)
	if r.URL.Path == "/v2/panic" {
		panic(http.ErrAbortHandler)
	}
	_, _ = io.WriteString(w, bodyOf(r.URL.Path)) // the client says what is wrong
}

// guard is a server with a door.
type guard struct {
	*doorman
	t        *testing.T
	srv      *http.Server
	door     *door
	listener *Listener
}

// newGuard has a door that waits so long for the first request, and the next ones.
func newGuard(t *testing.T, first, next time.Duration) *guard {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1:0", Bounds{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	g := &guard{doorman: &doorman{hang: make(chan struct{})}, t: t, listener: l}
	if g.door, err = newDoor(l, g.doorman, first, next); err != nil {
		t.Fatal(err)
	}
	g.srv = &http.Server{Handler: g, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	done := make(chan error, 1)
	go func() { done <- g.door.serve(g.srv) }()
	t.Cleanup(func() {
		if err := g.srv.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return g
}

func (g *guard) talker() *talker {
	g.t.Helper()
	c, err := (&net.Dialer{}).DialContext(soon(g.t), "tcp4", g.listener.Addr().String())
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		g.t.Fatal(err)
	}
	return &talker{Conn: c, answers: bufio.NewReader(c)}
}

func get(path string, header ...string) string  { return "GET " + rest(path, header) }
func head(path string, header ...string) string { return "HEAD " + rest(path, header) }

func rest(path string, header []string) string {
	return path + " HTTP/1.1\r\n" + strings.Join(append([]string{"Host: larder"}, header...), "\r\n") + "\r\n\r\n"
}

// settled waits until so many connections wait, and no porter has help.
func (g *guard) settled(n int) {
	g.t.Helper()
	eventually(g.t, fmt.Sprintf("%d wait at the door", n), func() bool {
		for _, p := range g.door.porters {
			p.mu.Lock()
			workers := p.workers
			p.mu.Unlock()
			if workers != 1 {
				return false
			}
		}
		return atDoor(g.door) == n
	})
}

// Connections wait at the door between requests, whoever answers these, and none is
// lost. Who leaves is counted out.
func TestIdleConnectionsWaitAtTheDoor(t *testing.T) {
	t.Parallel()
	const clients = 20
	g := newGuard(t, 0, 0)
	var all []*talker
	for range clients {
		all = append(all, g.talker())
	}
	g.settled(clients) // those that have said nothing yet, too
	for range 3 {
		for i, c := range all {
			if err := errors.Join(c.ask("/v2/door"), c.ask(inner+"/1"), c.ask(inner+"/2")); err != nil {
				t.Fatalf("client %d: %v", i, err)
			}
		}
		g.settled(clients)
	}
	if n := g.inside.Load(); n != 2*3*clients {
		t.Errorf("net/http had %d requests, want %d", n, 2*3*clients)
	}
	if n := g.listener.open.Load(); n != clients {
		t.Errorf("%d connections are counted, want %d", n, clients)
	}
	for _, c := range all {
		c.Close()
	}
	eventually(t, "none is counted", func() bool { return g.listener.open.Load() == 0 })
	g.settled(0)
}

// What comes in pieces, or with the next request, is served as a whole and in order.
func TestRequestsInPieces(t *testing.T) {
	t.Parallel()
	g := newGuard(t, 0, 0)
	paths := []string{"/v2/a", inner, "/v2/b", "/v2/c"}
	var all string
	for _, path := range paths {
		all += get(path)
	}
	for cut := range len(all) {
		c := g.talker()
		err := c.say(all[:cut])
		// What is whole is answered, whatever of the next one has come.
		heard, whole := 0, 0
		for _, path := range paths {
			if whole += len(get(path)); whole <= cut {
				err = errors.Join(err, c.hear(path))
				heard++
			}
		}
		err = errors.Join(err, c.say(all[cut:]))
		for _, path := range paths[heard:] {
			err = errors.Join(err, c.hear(path))
		}
		if err = errors.Join(err, c.ask("/v2/d")); err != nil {
			t.Errorf("cut at %d: %v", cut, err)
		}
		c.Close()
	}
}

// Who asks for much and takes nothing for a while gets all of it, and holds up nobody.
func TestSlowTaker(t *testing.T) {
	t.Parallel()
	// A porter reads whole requests: so it is for what it owes that it lets the client in.
	const batch, batches = 64, 20
	request := strings.Replace(get(big), "\r\n\r\n", "\r\nAccept: ", 1)
	request += strings.Repeat("a", 4096/batch-len(request)-4) + "\r\n\r\n"
	const requests = batch * batches
	g := newGuard(t, 0, 0)
	c := g.talker()
	said := make(chan error, 1)
	go func() {
		var errs []error
		for range batches {
			errs = append(errs, c.say(strings.Repeat(request, batch)))
		}
		said <- errors.Join(errs...)
	}()
	eventually(t, "it is let in", func() bool {
		return guests(g.door, func(*guest) bool { return true }) == 0 && g.listener.open.Load() == 1
	})
	other := g.talker()
	for range 100 {
		if err := other.ask("/v2/door"); err != nil {
			t.Fatal(err)
		}
	}
	for i := range requests {
		if err := c.hear(bodyOf(big)); err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
	}
	if err := errors.Join(<-said, c.ask("/v2/door")); err != nil {
		t.Error(err)
	}
	if n := g.inside.Load(); n == 0 || n == requests {
		t.Errorf("net/http had %d of %d requests: the test proves nothing", n, requests)
	}
}

// Answers that hang, one for each porter and one more, hold up nobody else. When they
// are given nobody is left over.
func TestHangingAnswers(t *testing.T) {
	t.Parallel()
	g := newGuard(t, 0, 0)
	var hanging []*talker
	for range len(g.door.porters) + 1 {
		c := g.talker()
		if err := c.say(get("/v2/hang") + get("/v2/door")); err != nil {
			t.Fatal(err)
		}
		hanging = append(hanging, c)
	}
	for range 4 * len(g.door.porters) {
		c := g.talker()
		if err := errors.Join(c.ask("/v2/door"), c.ask(inner), c.ask("/v2/door")); err != nil {
			t.Fatal(err)
		}
	}
	// One that says more is not looked at all the time meanwhile.
	if err := hanging[0].say(get("/v2/more")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is not listened to", func() bool { return guests(g.door, func(g *guest) bool { return g.muted }) == 1 })
	close(g.hang)
	for i, c := range hanging {
		if err := errors.Join(c.hear("/v2/hang"), c.hear("/v2/door")); err != nil {
			t.Errorf("client %d: %v", i, err)
		}
	}
	if err := hanging[0].hear("/v2/more"); err != nil {
		t.Error(err)
	}
	g.settled(len(hanging) + 4*len(g.door.porters))
}

// A request that nobody knows what to do with ends its connection, and nothing else.
func TestPanicAtTheDoor(t *testing.T) {
	t.Parallel()
	g := newGuard(t, 0, 0)
	for range 3 * len(g.door.porters) {
		bad := g.talker()
		if err := bad.ask("/v2/panic"); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("it hears %v, want the end", err)
		}
		if err := g.talker().ask("/v2/door"); err != nil {
			t.Error(err)
		}
	}
}

// A connection is closed that says nothing for too long, whether or not it has said
// something before.
func TestSilentConnectionsAreClosed(t *testing.T) {
	t.Parallel()
	const short, long = 50 * time.Millisecond, time.Hour
	for name, c := range map[string]struct {
		first, next time.Duration
		said        string
	}{
		"says nothing":             {short, long, ""},
		"says no more":             {long, short, "/v2/door"},
		"says no more to net/http": {long, short, inner},
	} {
		g := newGuard(t, c.first, c.next)
		talker := g.talker()
		if c.said != "" {
			if err := talker.say(get(c.said)); err != nil {
				t.Fatal(err)
			}
			if _, err := http.ReadResponse(talker.answers, nil); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := io.Copy(io.Discard, talker.answers); err != nil {
			t.Errorf("%s: %v, want the end", name, err)
		}
		eventually(t, "it is counted out", func() bool { return g.listener.open.Load() == 0 })
	}
	// The others stay.
	g := newGuard(t, long, long)
	stays := g.talker()
	g.settled(1)
	for _, p := range g.door.porters {
		p.sweep()
	}
	if err := stays.ask("/v2/door"); err != nil {
		t.Error(err)
	}
}

// When the server is shut down who waits is told by the end of the connection, and
// who is being answered gets the answer.
func TestDoorCloses(t *testing.T) {
	t.Parallel()
	g := newGuard(t, 0, 0)
	waits, hangs := g.talker(), g.talker()
	if err := errors.Join(waits.ask(inner), hangs.say(get("/v2/hang"))); err != nil {
		t.Fatal(err)
	}
	eventually(t, "one waits and one hangs", func() bool { return atDoor(g.door) == 1 && g.hung.Load() == 1 })
	if err := errors.Join(g.srv.Shutdown(soon(t)), g.door.Close()); err != nil {
		t.Error(err)
	}
	if n, err := waits.answers.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("who waits reads %d, %v, want the end", n, err)
	}
	close(g.hang)
	if err := hangs.hear("/v2/hang"); err != nil {
		t.Error(err)
	}
	if n, err := hangs.answers.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("who was answered reads %d, %v, want the end", n, err)
	}
	eventually(t, "nobody is left", func() bool {
		for _, p := range g.door.porters {
			p.mu.Lock()
			left := p.workers + len(p.guests)
			p.mu.Unlock()
			if left > 0 {
				return false
			}
		}
		return g.listener.open.Load() == 0
	})
	if late, err := (&net.Dialer{}).DialContext(soon(t), "tcp4", g.listener.Addr().String()); err == nil {
		late.Close()
		t.Error("somebody listens")
	}
}

// Clients that go in and out all the time, and some that are gone amid it, get what
// they asked for.
func TestDoorUnderLoad(t *testing.T) {
	t.Parallel()
	g := newGuard(t, time.Second, time.Second)
	var all sync.WaitGroup
	for i := range 16 {
		c := g.talker()
		all.Go(func() {
			for j := range 200 {
				path := "/v2/door"
				if (i+j)%3 == 0 {
					path = inner
				}
				if err := c.ask(path); err != nil {
					t.Errorf("client %d, request %d: %v", i, j, err)
					return
				}
				if i%4 == 0 && j%20 == 19 {
					_ = c.say(get(path)) // and leaves
					c.Close()
					c = g.talker()
				}
			}
		})
	}
	all.Wait()
}
