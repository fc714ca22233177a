package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
	"github.com/containerd/errdefs"
	"golang.org/x/sync/singleflight"
)

// maxToken bounds the answer of a token service.
const maxToken = 1 << 20

// tokenWaits is how many times the wait for headers a token request may take:
// two redirects and a slow body.
const tokenWaits = 3

// tokens are what one upstream's token services gave. containerd's authorizer
// keeps them, and would keep a failure for ever: then its keyring is replaced.
type tokens struct {
	client     *http.Client
	timeout    time.Duration
	credential Credential

	mu   sync.Mutex
	ring *keyring // nil until it is needed
}

// keyring is an authorizer of containerd's, and the requests of it that run,
// one for each scope. The authorizer alone would share them too, but not
// free of data races.
type keyring struct {
	docker.Authorizer
	running singleflight.Group
}

func newTokens(g *guard, cred Credential) *tokens {
	return &tokens{
		client:     &http.Client{Transport: tokenTransport{guard: g}, CheckRedirect: checkRedirect},
		timeout:    tokenWaits * g.wait,
		credential: cred,
	}
}

func (t *tokens) current() *keyring {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.locked()
}

func (t *tokens) locked() *keyring {
	if t.ring == nil {
		opts := []docker.AuthorizerOpt{docker.WithAuthClient(t.client)}
		if !t.credential.IsZero() {
			opts = append(opts, docker.WithAuthCreds(func(string) (string, string, error) {
				return t.credential.Username, t.credential.Secret, nil
			}))
		}
		t.ring = &keyring{Authorizer: docker.NewDockerAuthorizer(opts...)}
	}
	return t.ring
}

// drop replaces a keyring, unless that has happened.
func (t *tokens) drop(old *keyring) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ring == old {
		t.ring = nil
	}
}

// answer takes note of a challenge. refused is the keyring whose token was
// refused with it, nil if none was sent.
func (t *tokens) answer(ctx context.Context, refused *keyring, responses []*http.Response) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if refused != nil && t.ring == refused {
		t.ring = nil // many registries do not say that a token is expired
	}
	return t.locked().AddResponses(ctx, responses)
}

// authorize asks a keyring for what a request is to send, "" for nothing. It
// goes on when ctx ends, for all others who wait for it.
func (t *tokens) authorize(ctx context.Context, ring *keyring, req *http.Request) (string, error) {
	key := strings.Join(append(docker.GetTokenScopes(ctx, nil), req.URL.Host), " ")
	own := req.Clone(context.WithoutCancel(ctx))
	result := ring.running.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(own.Context(), t.timeout)
		defer cancel()
		own.Header.Del("Authorization")
		err := ring.Authorize(ctx, own)
		if err != nil {
			t.drop(ring)
		}
		return own.Header.Get("Authorization"), err
	})
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case r := <-result:
		if r.Err != nil {
			return "", &tokenError{err: r.Err}
		}
		return r.Val.(string), nil
	}
}

// session is the docker.Authorizer of one exchange.
type session struct {
	tokens     *tokens
	used       *keyring // of the last request
	challenged bool     // so that a token sent now was made for this exchange
}

// Authorize implements docker.Authorizer. containerd's own would have all who
// want a token wait for the first of them, whatever their contexts say, and
// would fail them all when the first one leaves.
func (s *session) Authorize(ctx context.Context, req *http.Request) error {
	s.used = s.tokens.current()
	value, err := s.tokens.authorize(ctx, s.used, req)
	if err == nil && value != "" {
		req.Header.Set("Authorization", value)
	}
	return err
}

// AddResponses implements docker.Authorizer.
func (s *session) AddResponses(ctx context.Context, responses []*http.Response) error {
	last := responses[len(responses)-1]
	var refused *keyring
	if last.Request.Header.Get("Authorization") != "" {
		if s.challenged {
			return refusal(last)
		}
		refused = s.used
	}
	s.challenged = true
	err := s.tokens.answer(ctx, refused, responses)
	if err != nil && !errdefs.IsNotImplemented(err) {
		return fmt.Errorf("%w: %w", refusal(last), err)
	}
	return err
}

// refusal is a 401 that no token changes.
func refusal(resp *http.Response) error {
	body, err := io.ReadAll(resp.Body) // the guard has it in memory
	message := ociMessage(body)
	if err != nil || message == "" {
		for _, c := range auth.ParseAuthHeader(resp.Header) {
			message = oneLine(c.Parameters["error"])
			break
		}
	}
	return &statusError{status: resp.StatusCode, message: message}
}

// tokenError says that there is no token. It hides its cause from
// containerd's client, which would take a 404 of the token service for one of
// the registry.
type tokenError struct{ err error }

func (e *tokenError) Error() string { return e.err.Error() }

// Is finds the context's errors only.
func (e *tokenError) Is(target error) bool {
	return (target == context.Canceled || target == context.DeadlineExceeded) && errors.Is(e.err, target)
}

// tokenTransport is the way to token services.
type tokenTransport struct{ guard *guard }

// RoundTrip implements http.RoundTripper.
func (t tokenTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.guard.RoundTrip(req)
	if err != nil {
		if se, ok := errors.AsType[*statusError](err); ok {
			se.by = req.URL.Host
		}
		return nil, err
	}
	resp.Body = boundBody(resp.Body, maxToken, t.guard.wait)
	return resp, nil
}
