package upstream

import (
	"fmt"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/upstream/ranged"
	"github.com/opencontainers/go-digest"
)

// Client talks to one upstream through containerd's registry client. Get one
// from a Pool. It is safe for concurrent use.
type Client struct {
	endpoint Endpoint
	guard    *guard
	apart    *guard // for parts of a blob: see transports.apart
	memory   *ranged.Memory
	breaker  *breaker
	site     *site
	tokens   *tokens
	shown    *atomic.Pointer[string] // account of the last exchange
	caller   bool                    // made by As

	credentials Credentials
}

func newClient(ep Endpoint, p *Pool, s *site) *Client {
	o := p.options
	c := &Client{
		endpoint: ep, guard: p.guard, apart: p.apart, memory: p.memory,
		breaker: newBreaker(o.Pause), site: s, tokens: newTokens(p.guard, newRealms(ep, o.Realms)),
		shown: new(atomic.Pointer[string]), credentials: o.Credentials,
	}
	if c.credentials == nil {
		c.credentials = onlyThis(Credential{})
	}
	return c
}

// As returns a client of the same upstream that shows one credential, and
// nobody else's. It shares connections, limits, breaker and what the upstream
// asks for with c, and tokens and an account only with those who show the same
// credential.
func (c *Client) As(cred Credential) *Client {
	own := *c
	own.credentials, own.caller = onlyThis(cred), true
	own.shown = new(atomic.Pointer[string])
	account := own.accountOf(cred)
	own.shown.Store(&account)
	return &own
}

// Endpoint returns where the client sends its requests.
func (c *Client) Endpoint() Endpoint { return c.endpoint }

// checkDigest refuses text that is no digest: it goes into a URL, and its
// algorithm is asked to hash.
func (c *Client) checkDigest(p purpose, dgst digest.Digest) error {
	if err := dgst.Validate(); err != nil {
		return c.failure(p, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument))
	}
	return nil
}

// name is a repository as containerd's client wants it: with the host that
// it is to ask, so that it adds no ns parameter.
func (c *Client) name(repository string) string {
	return c.endpoint.Host + "/" + c.path(repository)
}

// path is a repository at the upstream.
func (c *Client) path(repository string) string {
	if c.endpoint.Prefix != "" {
		return c.endpoint.Prefix + "/" + repository
	}
	return repository
}
