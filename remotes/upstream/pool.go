package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// maxClients bounds how many upstreams are remembered: clients can name any
// host in ns.
const maxClients = 512

// Options of a Pool. The zero value of a field means its default.
type Options struct {
	// UserAgent is sent with every request. Default "larder".
	UserAgent string
	// Named are the endpoints that the configuration names: only these may
	// be spoken to without TLS, or at private addresses.
	Named []Endpoint
	// DialTimeout bounds making a connection, TLS apart. Default 2 s.
	DialTimeout time.Duration
	// HeaderTimeout bounds the wait for the headers of an answer. Default
	// 10 s.
	HeaderTimeout time.Duration
	// Pause is how long an upstream is left alone after it did not answer.
	// Default 10 s.
	Pause time.Duration
}

func (o Options) withDefaults() Options {
	if o.UserAgent == "" {
		o.UserAgent = "larder"
	}
	if o.DialTimeout == 0 {
		o.DialTimeout = 2 * time.Second
	}
	if o.HeaderTimeout == 0 {
		o.HeaderTimeout = 10 * time.Second
	}
	if o.Pause == 0 {
		o.Pause = 10 * time.Second
	}
	return o
}

// Pool has a Client for each endpoint that is asked for. All share one
// guarded transport with its connections. It is safe for concurrent use.
type Pool struct {
	options   Options
	transport *http.Transport
	guard     *guard
	clients   *lru.Cache[Endpoint, *Client]
}

// NewPool makes a Pool. Close it.
func NewPool(options Options) (*Pool, error) {
	options = options.withDefaults()
	named, plain := map[string]bool{}, map[string]bool{}
	for _, ep := range options.Named {
		named[ep.hostPort()] = true
		if ep.Scheme == "http" {
			plain[ep.hostPort()] = true
		}
	}
	for _, hp := range proxyHosts() {
		named[hp] = true
	}
	clients, err := lru.New[Endpoint, *Client](maxClients)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            newDialer(options.DialTimeout, named).dial,
		TLSHandshakeTimeout:    options.HeaderTimeout,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		ResponseHeaderTimeout:  options.HeaderTimeout,
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxIdleConns:           100,
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        60 * time.Second,
		ReadBufferSize:         64 << 10,
	}
	return &Pool{
		options:   options,
		transport: transport,
		guard:     &guard{base: transport, plain: plain, userAgent: options.UserAgent},
		clients:   clients,
	}, nil
}

// Client returns the client of an endpoint. It makes no connection.
func (p *Pool) Client(ep Endpoint) *Client {
	if c, ok := p.clients.Get(ep); ok {
		return c
	}
	c := &Client{endpoint: ep, guard: p.guard, breaker: newBreaker(p.options.Pause)}
	if old, ok, _ := p.clients.PeekOrAdd(ep, c); ok {
		return old
	}
	return c
}

// Close closes idle connections. Running exchanges end by their contexts.
func (p *Pool) Close() { p.transport.CloseIdleConnections() }

// timedOut reports whether an exchange ended because upstream was silent, and
// not because the caller left.
func timedOut(ctx context.Context, err error) bool {
	if context.Cause(ctx) == context.Canceled {
		return false
	}
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}
