package upstream

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/upstream/ranged"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
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

// Resolve asks what a tag points to, by HEAD. The descriptor is upstream's
// word, its size at most MaxManifestSize.
func (c *Client) Resolve(ctx context.Context, repository, tag string) (ocispec.Descriptor, error) {
	p := purpose{op: "resolve", object: repository + ":" + tag, repository: repository, accept: manifestTypes(), limit: MaxManifestSize}
	var desc ocispec.Descriptor
	err := c.exchange(ctx, p, func(ctx context.Context, x *exchange) (err error) {
		_, desc, err = x.resolver.Resolve(ctx, c.name(repository)+":"+tag)
		return err
	})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return desc, nil
}

// Manifest fetches a manifest or index by digest and checks it. contentType
// is what upstream called it, in lower case and without parameters.
func (c *Client) Manifest(ctx context.Context, repository string, dgst digest.Digest) (data []byte, contentType string, err error) {
	p := purpose{op: "fetch manifest", object: repository + "@" + dgst.String(), repository: repository, accept: manifestTypes(), limit: MaxManifestSize}
	if err := c.checkDigest(p, dgst); err != nil {
		return nil, "", err
	}
	err = c.exchange(ctx, p, func(ctx context.Context, x *exchange) error {
		// The media type only tells containerd's client which endpoint to
		// ask; the exchange sends Accept for all of them.
		desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: dgst, Size: MaxManifestSize}
		body, err := x.fetch(ctx, c.name(repository), desc)
		if err != nil {
			return err
		}
		defer body.Close()
		data, err = io.ReadAll(body)
		contentType = x.contentType
		if err != nil {
			return err
		}
		if got := dgst.Algorithm().FromBytes(data); got != dgst {
			return fmt.Errorf("%d bytes with digest %s: %w", len(data), got, errdefs.ErrDataLoss)
		}
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	return data, contentType, nil
}

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
