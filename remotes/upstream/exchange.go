package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
)

// MaxManifestSize bounds manifests and indexes: 4 MiB, the least that the
// distribution specification asks registries to take, and ECR's limit.
const MaxManifestSize = 4 << 20

// maxList bounds a page of a tag list.
const maxList = 4 << 20

// purpose is what an exchange is for.
type purpose struct {
	op, object string
	accept     string // sent with every request; "" leaves what containerd's client sends
	limit      int64  // of an answer's body, however redirected; 0: its reader bounds it
}

// manifestTypes is what larder stores, and so asks for, whatever the client
// said: a registry must not convert what it has (ECR would).
func manifestTypes() string {
	return strings.Join([]string{
		ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest,
		images.MediaTypeDockerSchema2ManifestList, images.MediaTypeDockerSchema2Manifest, "*/*",
	}, ", ")
}

// exchange is one conversation with an upstream by containerd's client, and
// the http.RoundTripper under it. It is not for concurrent use.
type exchange struct {
	purpose
	client   *Client
	session  *session
	http     *http.Client
	resolver remotes.Resolver

	failed  error        // of a request; nothing is asked after it
	refused *statusError // the last answer, if it was a refusal

	// Of the last answer; containerd's client hands on the body only.
	size        int64 // of the whole object, -1 if not told
	contentType string
	link        string // where a list goes on, "" if it does not
}

// exchange runs one conversation with the upstream through the breaker, and
// names what failed. Its errors are of type *Error.
func (c *Client) exchange(ctx context.Context, p purpose, talk func(context.Context, *exchange) error) error {
	// containerd's client logs to the logger in its context, headers and
	// all. Whoever gets the error logs it.
	ctx = log.WithLogger(ctx, logrus.NewEntry(&logrus.Logger{Out: io.Discard, Level: logrus.PanicLevel}))
	var failure *Error
	err := c.breaker.do(func() verdict {
		x := c.newExchange(p)
		err := talk(ctx, x)
		if err == nil {
			return alive
		}
		err = x.explain(err)
		failure = c.failure(p, err)
		return judge(ctx, failure, err)
	})
	if err != nil {
		failure = c.failure(p, err)
	}
	if failure == nil {
		return nil // and not a nil *Error in an interface
	}
	return failure
}

func (c *Client) failure(p purpose, err error) *Error {
	return newError(p.op, c.endpoint.String(), p.object, err)
}

func (c *Client) newExchange(p purpose) *exchange {
	x := &exchange{purpose: p, client: c, session: &session{tokens: c.tokens}, size: -1}
	x.http = &http.Client{Transport: x, CheckRedirect: checkRedirect}
	x.resolver = docker.NewResolver(docker.ResolverOptions{
		Hosts: func(string) ([]docker.RegistryHost, error) { return []docker.RegistryHost{x.host()}, nil },
	})
	return x
}

func (x *exchange) host() docker.RegistryHost {
	return docker.RegistryHost{
		Client:       x.http,
		Authorizer:   x.session,
		Host:         x.client.endpoint.Host,
		Scheme:       x.client.endpoint.Scheme,
		Path:         "/v2",
		Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve | docker.HostCapabilityReferrers,
	}
}

// fetch opens a descriptor. containerd's client connects at the first Read.
func (x *exchange) fetch(ctx context.Context, ref string, desc ocispec.Descriptor) (io.ReadCloser, error) {
	fetcher, err := x.resolver.Fetcher(ctx, ref)
	if err != nil {
		return nil, err
	}
	return fetcher.Fetch(ctx, desc)
}

// explain gives back the answer that containerd's client has replaced by a
// "not found" of its own.
func (x *exchange) explain(err error) error {
	if x.refused != nil && errors.Is(err, errdefs.ErrNotFound) {
		return x.refused
	}
	return err
}

// RoundTrip implements http.RoundTripper.
func (x *exchange) RoundTrip(req *http.Request) (*http.Response, error) {
	if x.failed != nil {
		// containerd's client would go on with another way to ask.
		return nil, x.failed
	}
	if x.accept != "" {
		req = req.Clone(req.Context())
		req.Header.Set("Accept", x.accept)
	}
	resp, err := x.client.guard.RoundTrip(req)
	if err != nil {
		se, ok := errors.AsType[*statusError](err)
		if ok && !strings.EqualFold(req.URL.Host, x.client.endpoint.Host) {
			se.by = req.URL.Host
		}
		if x.refused = se; !ok || !se.isRefusal() {
			x.failed = err
		}
		return nil, err
	}
	if resp.StatusCode >= 300 {
		return resp, nil
	}
	if x.limit > 0 {
		if resp.ContentLength > x.limit {
			_ = resp.Body.Close() // it is refused anyhow
			return nil, tooLong(x.limit)
		}
		resp.Body = boundBody(resp.Body, x.limit, x.client.guard.wait)
	}
	x.size, x.contentType = wholeSize(resp), contentType(resp.Header)
	x.link, x.refused = resp.Header.Get("Link"), nil
	return resp, nil
}
