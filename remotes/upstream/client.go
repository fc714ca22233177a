package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"sync"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
)

// Client talks to one upstream through containerd's registry client. Get one
// from a Pool. It is safe for concurrent use.
type Client struct {
	endpoint Endpoint
	guard    *guard
	breaker  *breaker

	mu   sync.Mutex
	auth docker.Authorizer // tokens; nil until the first exchange
}

// Endpoint returns where the client sends its requests.
func (c *Client) Endpoint() Endpoint { return c.endpoint }

// Resolve asks what a tag points to, by HEAD. The descriptor is upstream's
// word, its size at most MaxManifestSize.
func (c *Client) Resolve(ctx context.Context, repository, tag string) (ocispec.Descriptor, error) {
	var desc ocispec.Descriptor
	err := c.exchange(ctx, "resolve", repository+":"+tag, func(ctx context.Context, x *exchange) (err error) {
		_, desc, err = x.resolver.Resolve(ctx, c.name(repository)+":"+tag)
		return err
	})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if desc.Size > MaxManifestSize {
		return ocispec.Descriptor{}, newError("resolve", c.endpoint.String(), repository+":"+tag,
			fmt.Errorf("manifest of %d bytes, at most %d are taken: %w", desc.Size, MaxManifestSize, errdefs.ErrDataLoss))
	}
	return desc, nil
}

// Manifest fetches a manifest or index by digest and checks it. contentType
// is what upstream called it.
func (c *Client) Manifest(ctx context.Context, repository string, dgst digest.Digest) (data []byte, contentType string, err error) {
	err = c.exchange(ctx, "fetch manifest", repository+"@"+dgst.String(), func(ctx context.Context, x *exchange) error {
		// The media type only tells containerd's client which endpoint to
		// ask; the guard sends Accept for all of them.
		desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: dgst, Size: MaxManifestSize}
		body, err := x.fetch(ctx, c.name(repository), desc)
		if err != nil {
			return err
		}
		defer body.Close()
		data, err = io.ReadAll(body)
		contentType = x.seen.contentType
		return err
	})
	if err != nil {
		return nil, "", err
	}
	if got := dgst.Algorithm().FromBytes(data); got != dgst {
		return nil, "", newError("fetch manifest", c.endpoint.String(), repository+"@"+dgst.String(),
			fmt.Errorf("%d bytes with digest %s: %w", len(data), got, errdefs.ErrDataLoss))
	}
	return data, contentType, nil
}

// Blob opens a blob at an offset. size is the whole blob's, -1 if upstream
// did not tell. The bytes are not checked: the fill does that. The context
// ends with the body.
func (c *Client) Blob(ctx context.Context, repository string, dgst digest.Digest, offset int64) (body io.ReadCloser, size int64, err error) {
	err = c.exchange(ctx, "fetch blob", repository+"@"+dgst.String(), func(ctx context.Context, x *exchange) error {
		// The size is not known, or not to be relied on: none is less than
		// this one. The observer learns what upstream says it is.
		desc := ocispec.Descriptor{MediaType: "application/octet-stream", Digest: dgst, Size: math.MaxInt64}
		raw, err := x.fetch(ctx, c.name(repository), desc)
		if err != nil {
			return err
		}
		if _, err := raw.(io.Seeker).Seek(offset, io.SeekStart); err != nil {
			return errors.Join(err, raw.Close())
		}
		// containerd's client connects at the first Read. Do that now, so
		// that a refusal is this call's error.
		br := bufio.NewReaderSize(raw, 64<<10)
		if _, err := br.Peek(1); err != nil && !errors.Is(err, io.EOF) {
			return errors.Join(err, raw.Close())
		}
		body, size = &bufferedBody{Reader: br, Closer: raw}, x.seen.size
		return nil
	})
	return body, size, err
}

type bufferedBody struct {
	*bufio.Reader
	io.Closer
}

// name is a repository as containerd's client wants it: with the host that
// it is to ask, so that it adds no ns parameter.
func (c *Client) name(repository string) string {
	if c.endpoint.Prefix != "" {
		repository = c.endpoint.Prefix + "/" + repository
	}
	return c.endpoint.Host + "/" + repository
}

// exchange is one conversation by containerd's client.
type exchange struct {
	resolver remotes.Resolver
	fetch    func(ctx context.Context, ref string, desc ocispec.Descriptor) (io.ReadCloser, error)
	host     docker.RegistryHost
	seen     *observer
}

// exchange runs one conversation with the upstream through the breaker, and
// names what failed.
func (c *Client) exchange(ctx context.Context, op, object string, talk func(context.Context, *exchange) error) error {
	auth := c.authorizer()
	x := c.newExchange(auth)
	// containerd's client logs to the logger in its context, headers and
	// all. Whoever gets the error logs it.
	ctx = log.WithLogger(ctx, logrus.NewEntry(&logrus.Logger{Out: io.Discard, Level: logrus.PanicLevel}))
	err := c.breaker.do(ctx, func() error { return talk(ctx, x) })
	if err == nil {
		return nil
	}
	e := newError(op, c.endpoint.String(), object, err)
	if errors.Is(e.kind, errdefs.ErrPermissionDenied) || e.Status == 0 {
		// containerd's authorizer remembers a failed token request for ever.
		c.forget(auth)
	}
	return e
}

func (c *Client) newExchange(auth docker.Authorizer) *exchange {
	seen := &observer{base: c.guard, size: -1}
	host := docker.RegistryHost{
		Client:       &http.Client{Transport: seen, CheckRedirect: checkRedirect},
		Authorizer:   auth,
		Host:         c.endpoint.Host,
		Scheme:       c.endpoint.Scheme,
		Path:         "/v2",
		Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve | docker.HostCapabilityReferrers,
	}
	resolver := docker.NewResolver(docker.ResolverOptions{
		Hosts: func(string) ([]docker.RegistryHost, error) { return []docker.RegistryHost{host}, nil },
	})
	return &exchange{
		resolver: resolver,
		host:     host,
		seen:     seen,
		fetch: func(ctx context.Context, ref string, desc ocispec.Descriptor) (io.ReadCloser, error) {
			fetcher, err := resolver.Fetcher(ctx, ref)
			if err != nil {
				return nil, err
			}
			return fetcher.Fetch(ctx, desc)
		},
	}
}

func (c *Client) authorizer() docker.Authorizer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.auth == nil {
		client := &http.Client{Transport: c.guard, CheckRedirect: checkRedirect}
		c.auth = docker.NewDockerAuthorizer(docker.WithAuthClient(client))
	}
	return c.auth
}

func (c *Client) forget(auth docker.Authorizer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.auth == auth {
		c.auth = nil
	}
}
