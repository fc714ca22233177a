package remotestest

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

// Request is one request that reached the registry, the token endpoint
// included. Query and Header are copies made on arrival, shared by all
// snapshots: read them only.
type Request struct {
	Method string
	Host   string // the Host header
	Path   string // unescaped, as in "/v2/library/nginx/manifests/latest"
	Query  url.Values
	Header http.Header

	Status int   // 0 until the header is written
	Bytes  int64 // body bytes written so far: never fewer than the client has read, maybe more
	Done   bool  // the handler has ended, well or by an abort; a client may have all of the body before
}

// journal keeps all requests in order of arrival.
type journal struct {
	mu       sync.Mutex // guards what follows
	requests []*Request
	changed  chan struct{} // closed at the next change; nil when nobody waits
}

// change runs f under the lock and wakes those who wait.
func (j *journal) change(f func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f()
	if j.changed != nil {
		close(j.changed)
		j.changed = nil
	}
}

// snapshot returns the requests so far, and a channel closed at the next change.
func (j *journal) snapshot() ([]Request, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := make([]Request, len(j.requests))
	for i, q := range j.requests {
		out[i] = *q
	}
	if j.changed == nil {
		j.changed = make(chan struct{})
	}
	return out, j.changed
}

// begin records the arrival and returns the writer that records the rest.
func (j *journal) begin(w http.ResponseWriter, req *http.Request) *recorder {
	q := &Request{
		Method: req.Method,
		Host:   req.Host,
		Path:   req.URL.Path,
		Query:  req.URL.Query(),
		Header: req.Header.Clone(),
	}
	j.change(func() { j.requests = append(j.requests, q) })
	return &recorder{ResponseWriter: w, log: j, req: q}
}

// recorder is a ResponseWriter that keeps its Request up to date.
type recorder struct {
	http.ResponseWriter
	log *journal
	req *Request
}

func (w *recorder) WriteHeader(status int) {
	if status >= http.StatusOK {
		w.log.change(func() {
			if w.req.Status == 0 {
				w.req.Status = status
			}
		})
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write counts before it writes: a test that has read a body must find all of
// it in the journal.
func (w *recorder) Write(p []byte) (int, error) {
	w.log.change(func() {
		if w.req.Status == 0 {
			w.req.Status = http.StatusOK
		}
	})
	w.count(len(p))
	n, err := w.ResponseWriter.Write(p)
	if n < len(p) {
		w.count(n - len(p))
	}
	return n, err
}

// count adds n body bytes, except on HEAD, where net/http drops them.
func (w *recorder) count(n int) {
	if w.req.Method != http.MethodHead {
		w.log.change(func() { w.req.Bytes += int64(n) })
	}
}

// Unwrap lets http.ResponseController flush.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *recorder) end() { w.log.change(func() { w.req.Done = true }) }

// Requests returns every request so far in order of arrival, running ones
// included.
func (r *Registry) Requests() []Request {
	all, _ := r.log.snapshot()
	return all
}

// ResetRequests forgets the requests so far. One that still runs is not
// listed again.
func (r *Registry) ResetRequests() { r.log.change(func() { r.log.requests = nil }) }

// Count returns how many requests so far have the method ("" is any) and
// contain pathContains in their path ("" is any).
func (r *Registry) Count(method, pathContains string) int {
	n := 0
	for _, q := range r.Requests() {
		if (method == "" || q.Method == method) && strings.Contains(q.Path, pathContains) {
			n++
		}
	}
	return n
}

// Await returns when cond is true of the requests so far; it is asked again on
// every arrival, header, body write and end. When ctx ends first, the error
// wraps the context's and lists what had arrived.
func (r *Registry) Await(ctx context.Context, cond func([]Request) bool) error {
	for {
		all, changed := r.log.snapshot()
		if cond(all) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s: await requests: got %s: %w", r.addr, summary(all), context.Cause(ctx))
		}
	}
}

// summary lists requests in one line for an error.
func summary(all []Request) string {
	parts := make([]string, len(all))
	for i, q := range all {
		parts[i] = fmt.Sprintf("%s %s %d (%d bytes, done %t)", q.Method, q.Path, q.Status, q.Bytes, q.Done)
	}
	return "[" + strings.Join(parts, ", ") + "]"
}
