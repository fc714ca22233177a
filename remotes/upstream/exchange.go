package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

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
	repository string // in larder's words, without the endpoint's prefix
	accept     string // sent with every request; "" leaves what containerd's client sends
	limit      int64  // of an answer's body, however redirected; 0: its reader bounds it
	stream     bool   // a blob's body, which may take long
	span       *span  // a part of the body; nil: all of it, or all from an offset on
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
	release func()       // gives back the exchange's place; nil once a body has taken it over

	relinked bool // since the last good answer a new link was asked for

	// Of the last answer; containerd's client hands on the body only.
	at          *url.URL
	proto       int // HTTP's major version
	etag        string
	part        contentRange // if it is one
	size        int64        // of the whole object, -1 if not told
	contentType string
	link        string // where a list goes on, "" if it does not
}

// exchange runs one conversation with the upstream, in a place of its own and
// through the breaker, and names what failed. Its errors are of type *Error.
func (c *Client) exchange(ctx context.Context, p purpose, talk func(context.Context, *exchange) error) error {
	// containerd's client logs to the logger in its context, headers and
	// all. Whoever gets the error logs it.
	ctx = log.WithLogger(ctx, logrus.NewEntry(&logrus.Logger{Out: io.Discard, Level: logrus.PanicLevel}))
	release, err := c.admit(ctx, p)
	if err != nil {
		return c.failure(p, err)
	}
	x := c.newExchange(p)
	x.release = release
	defer func() {
		if x.release != nil {
			x.release()
		}
	}()
	var failure *Error
	err = c.breaker.do(func() verdict {
		err := talk(ctx, x)
		if err == nil {
			x.noteEnd(nil)
			return alive
		}
		err = x.explain(err)
		failure = c.failure(p, err)
		v := judge(ctx, failure, err)
		if v != unknown {
			x.noteEnd(failure)
		}
		if p.span.isAhead() && v != alive {
			// Larder could have done without it: no reason to leave the upstream
			// alone. What is needed will be asked for.
			return unknown
		}
		if v == failing && c.caller && !x.session.shown.credential.IsZero() {
			// A header that is too long, or a text that a token service trips
			// over, can be the reason: one caller must not close the upstream
			// for all. Silence costs too much to be borne.
			return unknown
		}
		return v
	})
	if err != nil {
		failure = c.failure(p, err)
	}
	if failure == nil {
		return nil // and not a nil *Error in an interface
	}
	return failure
}

// admit waits for a place, and sees to it that the upstream may be asked, both
// before and after: much can be said meanwhile. That comes before the breaker,
// which is about the upstream's failures and not our own limits.
func (c *Client) admit(ctx context.Context, p purpose) (release func(), err error) {
	if limit := c.forbids(p, time.Now()); limit != nil {
		return nil, limit
	}
	if p.span.hasPlace() {
		return func() {}, nil
	}
	release, err = c.site.places.take(ctx, p.stream)
	if err != nil {
		return nil, err
	}
	if limit := c.forbids(p, time.Now()); limit != nil {
		release()
		return nil, limit
	}
	return release, nil
}

func (c *Client) failure(p purpose, err error) *Error {
	return newError(p.op, c.endpoint.String(), p.object, err)
}

func (c *Client) newExchange(p purpose) *exchange {
	x := &exchange{purpose: p, client: c, session: c.newSession(c.path(p.repository)), size: -1}
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
		Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
	}
}

// account is whose allowance the exchange spends: the one place that says so.
func (x *exchange) account() string { return x.client.accountOf(x.session.shown.credential) }

// noteEnd takes note of how the exchange ended, nil for well.
func (x *exchange) noteEnd(failure *Error) {
	name := x.account()
	x.client.shown.Store(&name)
	x.client.site.noteEnd(name, failure, time.Now())
}

// noteHeaders takes note of what the upstream's own answers say of limits. A
// challenge is not counted for who answers it.
func (x *exchange) noteHeaders(req *http.Request, status int, h http.Header) {
	if strings.EqualFold(req.URL.Host, x.client.endpoint.Host) && status != http.StatusUnauthorized {
		x.client.site.noteHeaders(x.account(), h, time.Now())
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
	if limit := x.client.site.resting(x.account(), time.Now()); limit != nil {
		x.failed = limit
		return nil, limit
	}
	if x.accept != "" {
		req = req.Clone(req.Context())
		req.Header.Set("Accept", x.accept)
	}
	if x.span != nil {
		req = x.span.bound(req)
	}
	began := time.Now()
	resp, err := x.sendSpan(req)
	if err == nil {
		x.client.site.pace.answered(time.Since(began))
	}
	if err != nil {
		se, ok := errors.AsType[*statusError](err)
		if ok {
			x.noteHeaders(req, se.status, se.header)
		}
		if x.refused = se; !ok || !se.isRefusal() {
			x.failed = err
		}
		if x.isLinkRefused(se) {
			if !x.relinked {
				return x.relink(req)
			}
			se.note = "it refused the link that upstream redirected to, and a new one, too"
		}
		return nil, err
	}
	x.noteHeaders(req, resp.StatusCode, resp.Header)
	if resp.StatusCode >= 300 {
		return resp, nil
	}
	if err := x.span.check(resp); err != nil {
		_ = resp.Body.Close() // it is refused anyhow
		x.failed = err
		return nil, err
	}
	if x.limit > 0 {
		if resp.ContentLength > x.limit {
			_ = resp.Body.Close() // it is refused anyhow
			return nil, tooLong(x.limit)
		}
		resp.Body = boundBody(resp.Body, x.limit, x.client.guard.wait)
	}
	resp.Body = x.client.site.meter(req.Context(), x.account(), x.stream, resp.Body)
	x.size, x.contentType = wholeSize(resp), contentType(resp.Header)
	x.link, x.refused, x.relinked = resp.Header.Get("Link"), nil, false
	x.at, x.part, x.proto, x.etag = req.URL, partOf(resp), resp.ProtoMajor, resp.Header.Get("Etag")
	if resp.Request != nil { // not by way of the upstream
		x.at = resp.Request.URL
	}
	return resp, nil
}

// send sends a request, and once more if it is refused with 403 and the
// session has something else to show: containerd's client asks it after a 401
// only.
func (x *exchange) send(req *http.Request) (*http.Response, error) {
	if !x.client.endpoint.isOriginOf(req.URL) {
		return x.sendElsewhere(req)
	}
	ctx := req.Context()
	if old := req.Header.Get("Authorization"); old != "" && old != x.session.shown.value {
		// A redirect within the origin, of a request that was sent again.
		req = req.Clone(ctx)
		req.Header.Set("Authorization", x.session.shown.value)
	}
	for {
		resp, err := x.guard().RoundTrip(req)
		if err == nil && resp.StatusCode != http.StatusUnauthorized {
			x.session.accepted()
		}
		refused, ok := errors.AsType[*statusError](err)
		if !ok || refused.status != http.StatusForbidden {
			return resp, err
		}
		again, err := x.session.again(ctx, challenge{})
		if err != nil {
			return nil, err
		}
		if !again {
			refused.note = x.session.note(x.session.shown.credential)
			return nil, refused
		}
		req = req.Clone(ctx)
		if err := x.session.Authorize(ctx, req); err != nil {
			return nil, err
		}
	}
}
