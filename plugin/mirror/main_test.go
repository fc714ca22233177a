package mirror

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/larder-project/larder/remotes/upstream"
	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon bounds what must happen by itself.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// bench is a mirror on a real server, over a real store and a real pool. The
// test registry up stands behind docker.io.
type bench struct {
	t        *testing.T
	up       *remotestest.Registry
	store    *cache.Store
	root     string // of the store
	addr     string // host:port of the mirror
	listener *Listener
	server   *Server
	log      *lockedBuffer
}

// setup is what a bench is made of.
type setup struct {
	upstream    []remotestest.Option
	secret      string
	wait        time.Duration
	header      time.Duration // how long the pool waits for a header
	attempts    int           // of a fill
	policies    remotes.Policies
	listed      map[string]bool
	first       []upstream.Endpoint // in docker.io's route before up
	self        bool                // the mirror itself is first in that route
	disk        cache.Disk          // under the store
	bounds      Bounds
	maxOpen     int
	seeder      Seeder
	prefetcher  Prefetcher
	sharedStore bool
}

func newBench(t *testing.T, change ...func(*setup)) *bench {
	t.Helper()
	s := setup{wait: 10 * time.Second, header: 10 * time.Second, attempts: 2, disk: cache.OSDisk()}
	for _, c := range change {
		c(&s)
	}
	b := &bench{t: t, up: remotestest.New(t, s.upstream...), root: t.TempDir(), log: &lockedBuffer{}}
	logger := slog.New(slog.NewJSONHandler(b.log, nil))
	listener, err := Listen(t.Context(), "127.0.0.1:0", s.bounds, logger)
	if err != nil {
		t.Fatal(err)
	}
	b.listener, b.addr = listener, listener.Addr().String()
	if s.self {
		s.first = append(s.first, upstream.Endpoint{Scheme: "http", Host: b.addr})
	}
	ep, err := upstream.ParseEndpoint(b.up.URL())
	if err != nil {
		t.Fatal(err)
	}
	route := append(s.first, ep)
	pool, err := upstream.NewPool(upstream.Options{Named: route, HeaderTimeout: s.header, Pause: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	b.store, err = cache.Open(b.root, cache.WithLogger(slog.New(slog.DiscardHandler)), cache.WithDisk(s.disk),
		cache.WithFillPolicy(cache.FillPolicy{Attempts: s.attempts, Pause: time.Millisecond}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.store.Close(); err != nil {
			t.Errorf("close store: %v", err)
		}
	})
	b.server = New(b.registry(pool, route, s), Options{
		Map: b.names(s.listed).Map, Secret: s.secret, ID: pool.ID(), Wait: s.wait, MaxOpen: s.maxOpen, Seeder: s.seeder, Prefetcher: s.prefetcher, SharedStore: s.sharedStore, Logger: logger,
	})
	b.serve(listener, b.server)
	return b
}

func (b *bench) names(listed map[string]bool) remotes.Names {
	b.t.Helper()
	rules, err := remotes.NewRules(nil, true)
	if err != nil {
		b.t.Fatal(err)
	}
	return remotes.Names{Rules: rules, Own: map[string]bool{b.addr: true}, Listed: listed}
}

func (b *bench) registry(pool *upstream.Pool, route []upstream.Endpoint, s setup) *remotes.Registry {
	b.t.Helper()
	routes, err := remotes.NewRoutes(map[string][]upstream.Endpoint{remotes.DockerHub: route})
	if err != nil {
		b.t.Fatal(err)
	}
	return remotes.NewRegistry(remotes.Config{
		Store: b.store, Pool: pool, Names: b.names(s.listed), Routes: routes,
		Freshness: remotes.DefaultFreshness(), Policies: s.policies, Logger: slog.New(slog.DiscardHandler),
	})
}

// serve runs the handler as the daemon does, until the test ends.
func (b *bench) serve(listener *Listener, handler http.Handler) {
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	done := make(chan error, 1)
	go func() { done <- Serve(srv, listener) }()
	b.t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			b.t.Errorf("close server: %v", err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			b.t.Errorf("serve: %v", err)
		}
	})
}

// answer is what a client saw.
type answer struct {
	status int
	header http.Header
	length int64 // Content-Length, -1 if none
	body   []byte
	err    error // of reading the body
}

// code and reason are those of an error body, "" if it is none.
func (a answer) entry() errorEntry {
	var doc errorBody
	if json.Unmarshal(a.body, &doc) != nil || len(doc.Errors) != 1 {
		return errorEntry{}
	}
	return doc.Errors[0]
}

// ask sends one request on a connection of its own; header holds pairs of key
// and value.
func (b *bench) ask(method, path string, header ...string) answer {
	b.t.Helper()
	a, err := b.try(soon(b.t), method, path, header...)
	if err != nil {
		b.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

func (b *bench) try(ctx context.Context, method, path string, header ...string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+b.addr+path, nil)
	if err != nil {
		return answer{}, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req) // follows no redirect
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, header: resp.Header, length: resp.ContentLength}
	a.body, a.err = io.ReadAll(resp.Body)
	return a, nil
}

// get is a GET that has to end well.
func (b *bench) get(path string, header ...string) answer {
	b.t.Helper()
	a := b.ask(http.MethodGet, path, header...)
	if a.status >= 300 || a.err != nil {
		b.t.Fatalf("GET %s: status %d, %v: %.300s", path, a.status, a.err, a.body)
	}
	return a
}

const hub = "?ns=docker.io"

// blobPath and manifestPath are paths on the mirror for docker.io/library/app.
func blobPath(dgst digest.Digest) string { return "/v2/library/app/blobs/" + dgst.String() + hub }

func manifestPath(object string) string { return "/v2/library/app/manifests/" + object + hub }

// eventually polls for what happens behind the client's back.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	ctx := soon(t)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		}
	}
}

// settle waits until a blob is published with its facts. A client has all of
// its bytes a moment before.
func (b *bench) settle(dgst digest.Digest) {
	b.t.Helper()
	eventually(b.t, "blob is published", func() bool {
		fill, _, err := b.store.Fill(b.t.Context(), dgst, -1, nothing{})
		if err == nil {
			err = fill.Wait(soon(b.t))
		}
		return err == nil || errdefs.IsAlreadyExists(err)
	})
}

// nothing is a source for who only waits.
type nothing struct{}

func (nothing) Open(context.Context, int64) (cache.Stream, error) {
	return cache.Stream{}, errdefs.ErrNotFound
}

// lockedBuffer is a log that tests read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// requests are the log lines of requests.
func (l *lockedBuffer) requests(t *testing.T) (lines []map[string]any) {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader([]byte(l.String())))
	for {
		var line map[string]any
		if err := dec.Decode(&line); errors.Is(err, io.EOF) {
			return lines
		} else if err != nil {
			t.Fatal(err)
		}
		if line["msg"] == "request" {
			lines = append(lines, line)
		}
	}
}
