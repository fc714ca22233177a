package remotestest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
)

// Registry is an in-memory OCI registry on a loopback port. It is made by New
// and stopped when its test ends.
type Registry struct {
	t     testing.TB
	set   settings
	addr  string
	cert  *tls.Certificate // nil: plain http
	roots *x509.CertPool   // nil: plain http
	log   journal

	mu     sync.Mutex // guards what follows; held for map access only
	repos  map[string]*repository
	faults []*fault
	tokens map[string]map[string]bool // token to the repositories it opens
	issued int                        // tokens ever given, to keep them distinct
	user   [2]string                  // name and password

	run sync.Mutex // serialises Start and Stop; taken before mu
	cur *running   // nil while stopped; guarded by run
}

// New starts a registry on 127.0.0.1 with a port chosen by the kernel. It
// stops, with all its connections, at the end of the test. It fails the test
// if it cannot listen, and must be called on the test's goroutine.
func New(t testing.TB, opts ...Option) *Registry {
	t.Helper()
	r := &Registry{
		t:      t,
		repos:  map[string]*repository{},
		tokens: map[string]map[string]bool{},
	}
	for _, o := range opts {
		o(&r.set)
	}
	r.user = [2]string{r.set.username, r.set.password}
	addr, release, err := reservePort()
	if err != nil {
		t.Fatalf("remotestest: reserve a port: %v", err)
	}
	r.addr = addr
	if r.set.tls {
		r.cert, r.roots = selfSigned()
	}
	t.Cleanup(func() {
		r.Stop()
		release()
	})
	r.Start()
	return r
}

// selfSigned borrows the certificate that net/http/httptest carries.
func selfSigned() (*tls.Certificate, *x509.CertPool) {
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return &s.TLS.Certificates[0], pool
}

// Host returns host and port, as in "127.0.0.1:43210". It stays the same over
// Stop and Start.
func (r *Registry) Host() string { return r.addr }

// URL returns scheme, host and port, as in "http://127.0.0.1:43210".
func (r *Registry) URL() string {
	if r.cert != nil {
		return "https://" + r.addr
	}
	return "http://" + r.addr
}

// CertPool returns the roots that trust the registry; nil without WithTLS.
func (r *Registry) CertPool() *x509.CertPool { return r.roots }

// TLSClientConfig returns a new client configuration that trusts the registry;
// nil without WithTLS.
func (r *Registry) TLSClientConfig() *tls.Config {
	if r.roots == nil {
		return nil
	}
	return &tls.Config{RootCAs: r.roots}
}

// running is one period between Start and Stop.
type running struct {
	srv    *http.Server
	cancel context.CancelFunc // ends the context of every request
	served chan struct{}      // closed when Serve has returned

	mu       sync.Mutex // guards stopped, and orders handlers.Add before Wait
	stopped  bool
	handlers sync.WaitGroup
}

// enter counts a handler in; false means the registry is stopping.
func (p *running) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return false
	}
	p.handlers.Add(1)
	return true
}

// Start listens again on the same port after Stop; it does nothing on a
// registry that runs. Content, faults, tokens and recorded requests are kept.
// It fails the test if the port cannot be taken, and must be called on the
// test's goroutine.
func (r *Registry) Start() {
	r.t.Helper()
	r.run.Lock()
	defer r.run.Unlock()
	if r.cur != nil {
		return
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(context.Background(), "tcp4", r.addr)
	if err != nil {
		r.t.Fatalf("remotestest: %s: listen: %v", r.addr, err)
	}
	if r.cert != nil {
		ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{*r.cert}})
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &running{cancel: cancel, served: make(chan struct{})}
	p.srv = &http.Server{
		Handler:     r.handler(p),
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    log.New(io.Discard, "", 0), // panics are reported by handler
	}
	go func() {
		defer close(p.served)
		if err := p.srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			r.t.Errorf("remotestest: %s: serve: %v", r.addr, err)
		}
	}()
	r.cur = p
}

// Stop closes the listener and every connection, running bodies included, and
// returns when all handlers have ended. From then on connections are refused
// until Start. Calling it from inside a FaultFunc is a deadlock.
func (r *Registry) Stop() {
	r.run.Lock()
	defer r.run.Unlock()
	p := r.cur
	if p == nil {
		return
	}
	r.cur = nil
	p.mu.Lock()
	p.stopped = true
	p.mu.Unlock()
	p.cancel()
	_ = p.srv.Close() // only the listener's close error, of no use to a test
	<-p.served
	p.handlers.Wait()
}

// handler is the way of every request: record, authorize, faults, content.
func (r *Registry) handler(p *running) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !p.enter() {
			panic(http.ErrAbortHandler)
		}
		defer p.handlers.Done()
		rec := r.log.begin(w, req)
		defer rec.end()
		defer r.report(req)
		if (r.set.token || r.set.basic) && !r.authorized(req) {
			r.challenge(rec, req)
			return
		}
		r.faulty(http.HandlerFunc(r.serve)).ServeHTTP(rec, req)
	})
}

// report turns a panic of a fault or of this package into a test failure.
// Stop waits for handlers, so the test is still running here.
func (r *Registry) report(req *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if err, ok := v.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
		r.t.Errorf("remotestest: %s %s: panic: %v", req.Method, req.URL, v)
	}
	panic(http.ErrAbortHandler)
}

// repository is one repository's content. Byte slices are never written after
// they were put.
type repository struct {
	blobs     map[digest.Digest][]byte
	manifests map[digest.Digest]manifest
	tags      map[string]digest.Digest
}
