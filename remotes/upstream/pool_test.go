package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
)

// TestPoolForgets has more upstreams than are remembered.
func TestPoolForgets(t *testing.T) {
	t.Parallel()
	p := newPool(t, Options{})
	used := p.Client(Endpoint{Scheme: "https", Host: "used.example"})
	for i := range 2 * maxClients {
		p.Client(Endpoint{Scheme: "https", Host: fmt.Sprintf("h%d.example", i)})
		if p.Client(used.Endpoint()) != used {
			t.Fatalf("a client that is in use was forgotten after %d others", i)
		}
		if n := p.clients.Len(); n > maxClients {
			t.Fatalf("%d clients, want at most %d", n, maxClients)
		}
	}
}

// TestPoolOneClient asks for one endpoint from many goroutines at once.
func TestPoolOneClient(t *testing.T) {
	t.Parallel()
	p := newPool(t, Options{})
	for i := range 50 {
		ep := Endpoint{Scheme: "https", Host: fmt.Sprintf("h%d.example", i)}
		var all sync.Map
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { all.Store(p.Client(ep), true) })
		}
		wg.Wait()
		n := 0
		all.Range(func(any, any) bool { n++; return true })
		if n != 1 {
			t.Fatalf("%d clients of one endpoint", n)
		}
	}
}

// TestViaOnEveryRequest looks at all that is sent, to registries, token
// services and where they redirect to.
func TestViaOnEveryRequest(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t, remotestest.WithToken())
	cdn, _ := withImage(t)
	reg.Fault(remotestest.Blobs(), remotestest.RedirectHost(cdn.URL()))
	p := newPool(t, Options{Named: endpoints(t, reg.URL(), cdn.URL()), UserAgent: "larder/test"})
	for op, ask := range operations(t, img) {
		if err := ask(p.Client(endpoint(t, reg.URL()))); err != nil {
			t.Errorf("%s: %v", op, err)
		}
	}
	if cdn.Count("", "") == 0 || reg.Count("", "/token") == 0 {
		t.Error("not all was asked: the test proves nothing")
	}
	for _, q := range append(reg.Requests(), cdn.Requests()...) {
		if got, want := q.Header.Get("Via"), "1.1 "+p.ID(); got != want {
			t.Errorf("%s: Via is %q, want %q", q.Path, got, want)
		}
		if got := q.Header.Get("User-Agent"); got != "larder/test" {
			t.Errorf("%s: User-Agent is %q", q.Path, got)
		}
	}
	if !regexp.MustCompile(`^larder-[a-z0-9]{20,}$`).MatchString(p.ID()) {
		t.Errorf("ID is %q", p.ID())
	}
	if other := newPool(t, Options{}); other.ID() == p.ID() {
		t.Errorf("two pools have the ID %s", p.ID())
	}
}

// TestConnectionReuse counts the connections of many exchanges, of which some
// are refused.
func TestConnectionReuse(t *testing.T) {
	t.Parallel()
	img := image(1)
	behind, _ := withImage(t, remotestest.WithToken())
	var conns atomic.Int64
	var url string
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/token" {
			fmt.Fprint(w, `{"token":"t"}`)
			return
		}
		if req.Header.Get("Authorization") == "" {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=%q", url+"/token"))
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`)
			return
		}
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"errors":[{"code":"NAME_UNKNOWN"}]}`)
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	url = s.URL
	p := named(t, url, behind.URL())
	for range 5 {
		for op, ask := range operations(t, img) {
			if err := ask(p.Client(endpoint(t, url))); !errdefs.IsNotFound(err) && op != "referrers" {
				t.Errorf("%s: %v, want not found", op, err)
			}
		}
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// relay forwards connections until it is frozen: from then on, those that
// exist are silent, and new ones are forwarded.
type relay struct {
	addr string
	mu   sync.Mutex
	cur  *atomic.Bool
	made int
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{addr: ln.Addr().String(), cur: new(atomic.Bool)}
	var wg sync.WaitGroup
	var conns sync.Map
	t.Cleanup(func() {
		ln.Close()
		conns.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
		wg.Wait()
	})
	wg.Go(func() {
		for {
			a, err := ln.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", to)
			if err != nil {
				a.Close()
				continue
			}
			conns.Store(a, true)
			conns.Store(b, true)
			r.mu.Lock()
			frozen := r.cur
			r.made++
			r.mu.Unlock()
			for _, pair := range [][2]net.Conn{{a, b}, {b, a}} {
				wg.Go(func() {
					_, _ = io.Copy(freezing{pair[0], frozen}, pair[1])
					if !frozen.Load() {
						pair[0].Close()
					}
				})
			}
		}
	})
	return r
}

func (r *relay) freeze() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cur.Store(true)
	r.cur = new(atomic.Bool)
}

type freezing struct {
	net.Conn
	frozen *atomic.Bool
}

func (f freezing) Write(p []byte) (int, error) {
	if f.frozen.Load() {
		return len(p), nil
	}
	return f.Conn.Write(p)
}

// TestDeadHTTP2Connection loses the one connection that all exchanges share,
// without a word. The client must make a new one.
func TestDeadHTTP2Connection(t *testing.T) {
	t.Parallel()
	var protos sync.Map
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		protos.Store(req.Proto, true)
		w.WriteHeader(http.StatusNotFound)
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	r := newRelay(t, s.Listener.Addr().String())
	url := "https://" + r.addr
	p := newPool(t, Options{Named: endpoints(t, url), HeaderTimeout: 300 * time.Millisecond, Pause: time.Millisecond})
	p.transport.TLSClientConfig.RootCAs = s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	c := p.Client(endpoint(t, url))
	for range 3 {
		_, err := c.Resolve(soon(t), "team/app", "v1")
		failed(t, err, errdefs.ErrNotFound)
	}
	if _, ok := protos.Load("HTTP/2.0"); !ok || r.made != 1 {
		t.Fatalf("%d connections, HTTP/2 %t: the test proves nothing", r.made, ok)
	}
	r.freeze()
	ctx := soon(t)
	for errdefs.IsUnavailable(resolve(ctx, c)) {
		if ctx.Err() != nil {
			t.Fatal("the dead connection is used for ever")
		}
	}
}

func resolve(ctx context.Context, c *Client) error {
	_, err := c.Resolve(ctx, "team/app", "v1")
	return err
}

// TestPoolsAreIndependent closes one of two.
func TestPoolsAreIndependent(t *testing.T) {
	t.Parallel()
	reg, _ := withImage(t)
	a, b := named(t, reg.URL()), named(t, reg.URL())
	a.Close()
	for _, p := range []*Pool{a, b} {
		if err := resolve(soon(t), p.Client(endpoint(t, reg.URL()))); err != nil {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := resolve(ctx, a.Client(endpoint(t, reg.URL()))); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v, want canceled", err)
	}
}
