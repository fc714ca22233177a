package parts

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"
)

// Seen is one request as it reached a server of the test.
type Seen struct {
	Method, Host, Path, Query string
	Header                    http.Header
	// Status of the answer, 0 while there is none.
	Status int
}

// server is an HTTP server on a free loopback port that notes each request.
type server struct {
	addr   string
	scheme string
	http   *http.Server
	served chan struct{} // closed when Serve has returned
	ctx    context.Context
	cancel context.CancelFunc

	mu   sync.Mutex // guards seen
	seen []*Seen
}

// serve starts h. cfg is nil for plain HTTP.
func serve(h http.Handler, cfg *tls.Config) (*server, error) {
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	s := &server{addr: ln.Addr().String(), scheme: "http", served: make(chan struct{})}
	if cfg != nil {
		s.scheme = "https"
		ln = tls.NewListener(ln, cfg)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.http = &http.Server{
		Handler: s.record(h), ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0),
		BaseContext: func(net.Listener) context.Context { return s.ctx },
	}
	go func() {
		defer close(s.served)
		_ = s.http.Serve(ln) // ends with Close
	}()
	return s, nil
}

// URL is the server's base.
func (s *server) URL() string { return s.scheme + "://" + s.addr }

// Addr is the server's address, as host:port.
func (s *server) Addr() string { return s.addr }

// Close ends the server and its connections, and what hangs.
func (s *server) Close() error {
	s.cancel()
	err := s.http.Close()
	<-s.served
	return err
}

func (s *server) record(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := &Seen{Method: r.Method, Host: r.Host, Path: r.URL.Path, Query: r.URL.RawQuery, Header: r.Header.Clone()}
		s.mu.Lock()
		s.seen = append(s.seen, seen)
		s.mu.Unlock()
		h.ServeHTTP(&statusWriter{ResponseWriter: w, status: func(code int) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if seen.Status == 0 {
				seen.Status = code
			}
		}}, r)
	})
}

// Seen are copies of all requests so far, in the order they came.
func (s *server) Seen() []Seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Seen, len(s.seen))
	for i, seen := range s.seen {
		all[i] = *seen
	}
	return all
}

// statusWriter tells the status when the header goes out.
type statusWriter struct {
	http.ResponseWriter
	status func(int)
}

func (w *statusWriter) WriteHeader(code int) {
	w.status(code)
	w.ResponseWriter.WriteHeader(code)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	w.status(http.StatusOK)
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController find the flusher.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// passTo hands requests on to a registry at base, without who asks. change may
// alter the request.
func passTo(base string, change func(*http.Request), answer func(*http.Response) error) (*httputil.ReverseProxy, error) {
	target, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("backend %q: %w", base, err)
	}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Header.Del("Authorization")
			if change != nil {
				change(r.Out)
			}
		},
		ModifyResponse: answer,
		FlushInterval:  -1,
		ErrorHandler:   func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
		Transport:      &http.Transport{DisableCompression: true, DisableKeepAlives: true},
		ErrorLog:       log.New(io.Discard, "", 0),
	}, nil
}
