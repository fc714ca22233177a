package remotestest

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

// FaultFunc answers a matched request. next is the rest of the way: the faults
// set after this one, then the content. A fault may answer by itself, call
// next with a ResponseWriter of its own, or call next plainly and so do
// nothing. It must return when the request's context ends, which happens when
// the client goes or the registry stops; panic(http.ErrAbortHandler) cuts the
// connection.
type FaultFunc func(w http.ResponseWriter, r *http.Request, next http.Handler)

// fault is one entry of the script; its address is its identity.
type fault struct {
	match Match
	do    FaultFunc
}

// Fault bends the answers to requests that match, from now until remove is
// called; remove may be called more than once and does not wait for running
// requests. Faults are tried in the order they were set. Under WithToken they
// see only the requests that the token check let through, and those to the
// token endpoint: a 401 is never counted by Times.
func (r *Registry) Fault(match Match, h FaultFunc) (remove func()) {
	f := &fault{match: match, do: h}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(slices.Clip(r.faults), f)
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.faults = slices.DeleteFunc(slices.Clone(r.faults), func(g *fault) bool { return g == f })
	}
}

// faulty puts the faults set now in front of h.
func (r *Registry) faulty(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		faults := r.faults // never written in place
		r.mu.Unlock()
		chain := h
		for _, f := range slices.Backward(faults) {
			if f.match(req) {
				next := chain
				chain = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { f.do(w, req, next) })
			}
		}
		chain.ServeHTTP(w, req)
	})
}

// Times lets f act on the first n requests only.
func Times(n int, f FaultFunc) FaultFunc {
	var seen atomic.Int64
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if seen.Add(1) > int64(n) {
			next.ServeHTTP(w, r)
			return
		}
		f(w, r, next)
	}
}

// After lets f act on all but the first n requests.
func After(n int, f FaultFunc) FaultFunc {
	var seen atomic.Int64
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if seen.Add(1) <= int64(n) {
			next.ServeHTTP(w, r)
			return
		}
		f(w, r, next)
	}
}

// Status answers with this status, these header fields (nil for none) and this
// body, and nothing of the content.
func Status(code int, header http.Header, body string) FaultFunc {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		for k, v := range header {
			w.Header()[http.CanonicalHeaderKey(k)] = slices.Clone(v)
		}
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body)) // 204 and 304 take no body
	}
}

// Error answers with this status and an OCI error body of this code, as in
// Error(403, "DENIED", "requested access to the resource is denied").
func Error(status int, code, message string) FaultFunc {
	return Status(status, http.Header{"Content-Type": {"application/json"}}, string(errorBody(code, message)))
}

// TooManyRequests answers 429 with TOOMANYREQUESTS and, unless it is zero,
// Retry-After in whole seconds, rounded up.
func TooManyRequests(retryAfter time.Duration) FaultFunc {
	h := http.Header{"Content-Type": {"application/json"}}
	if retryAfter > 0 {
		seconds := int64((retryAfter + time.Second - 1) / time.Second)
		h.Set("Retry-After", strconv.FormatInt(seconds, 10))
	}
	return Status(http.StatusTooManyRequests, h, string(errorBody("TOOMANYREQUESTS", "you have reached your pull rate limit")))
}

// RedirectTo answers 307 to exactly this URL.
func RedirectTo(url string) FaultFunc {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Location", url)
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
}

// RedirectHost answers 307 to the same path and query on another base, as in
// "http://127.0.0.1:43210".
func RedirectHost(base string) FaultFunc {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		w.Header().Set("Location", fmt.Sprint(base, r.URL.RequestURI()))
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
}

// Hang answers nothing until the client goes or the registry stops.
func Hang() FaultFunc {
	return func(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}
}

// Abort cuts the connection without an answer. On a connection that had served
// before, Go's http.Transport sends a GET or HEAD again by itself, so that one
// call of a client may be two requests here.
func Abort() FaultFunc {
	return func(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }
}
