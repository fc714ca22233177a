package upstream

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"net/http"
	"net/url"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/larder-project/larder/remotes/upstream/ranged"
	"golang.org/x/net/http/httpproxy"
)

// maxClients bounds how many upstreams are remembered: clients can name any
// host in ns.
const maxClients = 512

// defaultAhead is room for sixteen parts, which is what a line of 20 MB/s a
// connection takes beside the layers' own connections.
const defaultAhead = 32 << 20

// Options of a Pool. The zero value of a field means its default.
type Options struct {
	// UserAgent is sent with every request. Default "larder".
	UserAgent string
	// Credentials finds what to show to upstreams that ask for it. Nil: larder
	// asks anonymously.
	Credentials Credentials
	// Realms are hosts (host[:port]) of token services that may see the
	// credential for a registry host, by that host. A token service in the
	// registry's own registrable domain may see it anyhow. Default none.
	Realms map[string][]string
	// Named are the endpoints that the configuration names: only these may
	// be spoken to without TLS, or at private addresses.
	Named []Endpoint
	// DialTimeout bounds making a connection, TLS apart. Default 2 s.
	DialTimeout time.Duration
	// HeaderTimeout bounds the wait for the headers of an answer, and then
	// for each part of its body, blobs excepted. Default 10 s.
	HeaderTimeout time.Duration
	// Pause is how long an upstream is left alone after it did not answer.
	// Default 10 s.
	Pause time.Duration
	// Reserve is how many pulls of an upstream's allowance are left for what is
	// not stored; see Client.Spare. 0: none.
	Reserve int64
	// MaxConnections bounds how many exchanges with one upstream host run at
	// once; a blob's lasts until its body is closed. A quarter of them is not
	// for blobs. At least 2; 0 is no bound.
	MaxConnections int
	// MaxSpeed bounds, in bytes a second, all blob bodies of one upstream host
	// together. 0 is no bound.
	MaxSpeed int64
	// Parallel is how many connections one blob has at most, where that is faster
	// than one. Default 1. It has no more than one at a host with MaxSpeed.
	Parallel int
	// Ahead bounds, over all blobs, the bytes that came before their turn. Default
	// 32 MiB.
	Ahead int64
	// Hosts are settings of single upstreams, by host[:port] as in an Endpoint.
	Hosts map[string]Host
	// Waits, if set, is called when larder makes a caller wait by its own
	// bounds, with the caller's context; and what it returns, when that is
	// over. cache.Hold is meant.
	Waits func(context.Context) (done func())
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
	if o.Parallel == 0 {
		o.Parallel = 1
	}
	if o.Ahead == 0 {
		o.Ahead = defaultAhead
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
	id        string
	transport *http.Transport // for hosts without certificates of their own
	all       *transports
	guard     *guard
	apart     *guard // its connections are HTTP/1.1: see transports.apart
	memory    *ranged.Memory
	hosts     map[string]Host // by host:port
	clients   *lru.Cache[Endpoint, *Client]
	sites     *lru.Cache[string, *site] // by host:port
}

// NewPool makes a Pool. Close it. Proxies are taken from the environment, and
// the hosts' certificates from their files, as they are now.
func NewPool(options Options) (*Pool, error) {
	options = options.withDefaults()
	named, plain := map[string]bool{}, map[string]bool{}
	for _, ep := range options.Named {
		named[ep.hostPort()] = true
		if ep.Scheme == "http" {
			plain[ep.hostPort()] = true
		}
	}
	proxies := httpproxy.FromEnvironment()
	reachable := map[string]bool{}
	for hp := range named {
		reachable[hp] = true
	}
	for _, hp := range proxyHosts(proxies) {
		reachable[hp] = true
	}
	clients, _ := lru.New[Endpoint, *Client](maxClients) // fails only for a size below 1
	sites, _ := lru.New[string, *site](maxClients)
	id := idPrefix + strings.ToLower(rand.Text())
	dialer := newDialer(options.DialTimeout, reachable)
	build := func(cfg *tls.Config) *http.Transport { return newTransport(options, dialer, proxies, cfg) }
	transport := build(&tls.Config{MinVersion: tls.VersionTLS12})
	all, err := newTransports(options.Hosts, transport, build)
	if err != nil {
		return nil, err
	}
	g := &guard{
		base: all, named: named, plain: plain, wait: options.HeaderTimeout,
		userAgent: options.UserAgent, via: "1.1 " + id,
	}
	apart := *g
	apart.base = all.apart
	return &Pool{
		options:   options,
		id:        id,
		transport: transport,
		all:       all,
		guard:     g,
		apart:     &apart,
		memory:    ranged.NewMemory(options.Ahead),
		hosts:     byHostPort(options.Hosts),
		clients:   clients,
		sites:     sites,
	}, nil
}

// byHostPort spells out the default ports: those of https and of http, since a
// host's settings hold for either.
func byHostPort(hosts map[string]Host) map[string]Host {
	all := map[string]Host{}
	for name, h := range hosts {
		all[hostPort("http", name)], all[hostPort("https", name)] = h, h
	}
	return all
}

func newTransport(options Options, d *dialer, proxies *httpproxy.Config, cfg *tls.Config) *http.Transport {
	proxyFor := proxies.ProxyFunc()
	return &http.Transport{
		Proxy:                  func(req *http.Request) (*url.URL, error) { return proxyFor(req.URL) },
		DialContext:            d.dial,
		TLSHandshakeTimeout:    options.HeaderTimeout,
		TLSClientConfig:        cfg,
		ResponseHeaderTimeout:  options.HeaderTimeout,
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
		// All requests to a host share one HTTP/2 connection. Without pings,
		// one whose peer is gone would swallow them for a quarter of an hour.
		HTTP2:               &http.HTTP2Config{SendPingTimeout: options.HeaderTimeout, PingTimeout: options.HeaderTimeout},
		DisableCompression:  true,
		MaxIdleConns:        100,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     60 * time.Second,
	}
}

// ID names this Pool in the Via header of its requests ("1.1 ID"), so that a
// mirror that is asked by itself can tell. It is random, and new for each
// Pool.
func (p *Pool) ID() string { return p.id }

// Client returns the client of an endpoint. It makes no connection. Of many
// endpoints the least recently used are forgotten.
func (p *Pool) Client(ep Endpoint) *Client {
	s := p.site(ep) // also if the client is there: both are in use then
	if c, ok := p.clients.Get(ep); ok {
		return c
	}
	c := newClient(ep, p, s)
	if old, ok, _ := p.clients.PeekOrAdd(ep, c); ok {
		return old
	}
	return c
}

// Close closes idle connections. Running exchanges end by their contexts, and
// token requests by their timeouts.
func (p *Pool) Close() { p.all.close() }

// site returns what the clients of an endpoint's host share.
func (p *Pool) site(ep Endpoint) *site {
	if s, ok := p.sites.Get(ep.hostPort()); ok {
		return s
	}
	s := newSite(ep.Host, p.hosts[ep.hostPort()], p.options)
	if old, ok, _ := p.sites.PeekOrAdd(ep.hostPort(), s); ok {
		return old
	}
	return s
}
