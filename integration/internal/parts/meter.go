package parts

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Exchange is one request that went through a Meter.
type Exchange struct {
	Method, Path, Query string
	// Range is the request's Range header, empty when it had none.
	Range string
	// Authorization tells whether the request carried credentials.
	Authorization bool
	// Header is the request's, as it came.
	Header http.Header
	Status int
	// Cache is the response's X-Larder-Cache, when larder is what is metered.
	Cache string
	// Bytes of body sent back; headers are not counted.
	Bytes int64
}

// Meter is an HTTP proxy in front of one upstream. It counts what passes, and
// it can be cut, after which its address refuses connections until Restore.
type Meter struct {
	addr  string
	proxy *httputil.ReverseProxy

	mu        sync.Mutex // guards all below
	exchanges []*Exchange
	server    *http.Server
}

// NewMeter starts a meter on a free loopback port in front of upstream, a base
// URL.
func NewMeter(upstream string) (*Meter, error) {
	target, err := url.Parse(upstream)
	if err != nil {
		return nil, fmt.Errorf("meter: upstream %q: %w", upstream, err)
	}
	m := &Meter{addr: "127.0.0.1:0"}
	m.proxy = &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		FlushInterval: -1,
		// A client that goes away in mid-body is the subject of several tests and no news.
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
		Transport:    &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16},
		ErrorLog:     log.New(io.Discard, "", 0),
	}
	return m, m.Restore()
}

// URL is the meter's base, to be used in the upstream's place.
func (m *Meter) URL() string { return "http://" + m.addr }

// Host is the meter's host and port.
func (m *Meter) Host() string { return m.addr }

// Cut drops all connections and refuses new ones. A cut meter may be cut again.
func (m *Meter) Cut() error {
	m.mu.Lock()
	server := m.server
	m.server = nil
	m.mu.Unlock()
	if server == nil {
		return nil
	}
	return server.Close()
}

// Restore listens again, on the same port as before.
func (m *Meter) Restore() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.server != nil {
		return nil
	}
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", m.addr)
	if err != nil {
		return fmt.Errorf("meter: %w", err)
	}
	m.addr = ln.Addr().String()
	server := &http.Server{Handler: m, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	m.server = server
	go func() { _ = server.Serve(ln) }()
	return nil
}

// Close ends the meter for good.
func (m *Meter) Close() error {
	err := m.Cut()
	if t, ok := m.proxy.Transport.(*http.Transport); ok {
		t.CloseIdleConnections()
	}
	return err
}

// ServeHTTP passes one request on and notes it.
func (m *Meter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e := &Exchange{
		Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery,
		Range: r.Header.Get("Range"), Authorization: r.Header.Get("Authorization") != "", Header: r.Header.Clone(),
	}
	m.mu.Lock()
	m.exchanges = append(m.exchanges, e)
	m.mu.Unlock()
	m.proxy.ServeHTTP(&countingWriter{ResponseWriter: w, m: m, e: e}, r)
}

// Exchanges are copies of all requests so far, in the order they came.
func (m *Meter) Exchanges() []Exchange {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]Exchange, len(m.exchanges))
	for i, e := range m.exchanges {
		all[i] = *e
	}
	return all
}

// Traffic is a number of requests and the bytes of their response bodies.
type Traffic struct {
	Requests int
	Bytes    int64
}

// Sub is the traffic since earlier.
func (t Traffic) Sub(earlier Traffic) Traffic {
	return Traffic{Requests: t.Requests - earlier.Requests, Bytes: t.Bytes - earlier.Bytes}
}

// Total is all traffic so far.
func (m *Meter) Total() Traffic { return m.Count("", "") }

// Count is the traffic of requests with that method ("" is any) whose path
// contains sub.
func (m *Meter) Count(method, sub string) Traffic {
	var t Traffic
	for _, e := range m.Exchanges() {
		if (method == "" || e.Method == method) && strings.Contains(e.Path, sub) {
			t.Requests++
			t.Bytes += e.Bytes
		}
	}
	return t
}

// countingWriter notes status and body bytes while they pass, so that a request
// still running is counted too.
type countingWriter struct {
	http.ResponseWriter
	m *Meter
	e *Exchange
}

func (w *countingWriter) WriteHeader(status int) {
	w.m.mu.Lock()
	w.e.Status, w.e.Cache = status, w.Header().Get("X-Larder-Cache")
	w.m.mu.Unlock()
	w.ResponseWriter.WriteHeader(status)
}

func (w *countingWriter) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	w.m.mu.Lock()
	w.e.Bytes += int64(n)
	w.m.mu.Unlock()
	return n, err
}

// Unwrap lets http.ResponseController find the flusher.
func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
