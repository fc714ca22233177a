package upstream

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"
)

const (
	// maxToken bounds the answer of a token service.
	maxToken = 1 << 20
	// maxTokenValue bounds a token: no registry takes a longer header.
	maxTokenValue = 64 << 10
	// maxTokens bounds how many tokens of an upstream are kept.
	maxTokens = 256
	// tokenWaits is how many times the wait for headers a token request may
	// take: two redirects and a slow body.
	tokenWaits = 3
	// defaultTokenLife is that of a token without expires_in (distribution
	// specification, token authentication).
	defaultTokenLife = time.Minute
	// maxTokenLife bounds what a token service can say.
	maxTokenLife = 24 * time.Hour
)

// token opens some repositories of an upstream for a while.
type token struct {
	value   string
	fetched time.Time // when it was asked for
	renew   time.Time // from then on another one is asked for
	ends    time.Time
}

func newToken(value string, seconds int, fetched time.Time) token {
	life := defaultTokenLife
	if seconds > 0 {
		life = time.Duration(min(seconds, int(maxTokenLife/time.Second))) * time.Second
	}
	return token{value: value, fetched: fetched, renew: fetched.Add(life / 2), ends: fetched.Add(life)}
}

// tokenRequest is all that a token depends on.
type tokenRequest struct {
	challenge
	scopes     []string
	credential Credential // zero: the token is nobody's
}

// key tells requests apart, by everything. It holds a hash of the credential,
// so that a long-lived map does not hold the secret.
func (r tokenRequest) key() string {
	return fmt.Sprintf("%s %q %q %q", hashOf(r.credential), r.realm.String(), r.service, r.scopes)
}

// hashOf tells credentials apart and tells nothing of them.
func hashOf(cred Credential) string {
	who := sha256.Sum256([]byte(strconv.Quote(cred.Username) + cred.Secret))
	return hex.EncodeToString(who[:])
}

// tokens are what one upstream's token services gave, each for one credential,
// and what the upstream asked for last. It is safe for concurrent use.
type tokens struct {
	realms    realms
	transport tokenTransport
	timeout   time.Duration
	running   singleflight.Group

	mu   sync.Mutex // guards what follows, and makes a look and a change of kept one step
	last challenge
	kept *lru.Cache[string, token]
}

func newTokens(g *guard, r realms) *tokens {
	kept, _ := lru.New[string, token](maxTokens) // fails only for a size below 1
	return &tokens{realms: r, transport: tokenTransport{guard: g}, timeout: tokenWaits * g.wait, kept: kept}
}

// learn keeps a challenge for the exchanges to come.
func (t *tokens) learn(c challenge) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = c.common()
}

// challenge is what the upstream asked for last, zero if it never asked.
func (t *tokens) challenge() challenge {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}

// get returns a token: the one that is kept, or a new one. In the second half
// of a token's life it asks for the next one meanwhile. A request is shared by
// all who want its token, and goes on when ctx ends.
func (t *tokens) get(ctx context.Context, r tokenRequest) (token, error) {
	key := r.key()
	t.mu.Lock()
	old, ok := t.kept.Get(key)
	t.mu.Unlock()
	if ok && time.Now().Before(old.renew) {
		return old, nil
	}
	next := t.running.DoChan(key, func() (any, error) { return t.refresh(context.WithoutCancel(ctx), key, r) })
	if ok && time.Now().Before(old.ends) {
		return old, nil
	}
	select {
	case <-ctx.Done():
		return token{}, ctx.Err()
	case got := <-next:
		return got.Val.(token), got.Err
	}
}

// refresh fetches a token and keeps it. A failure leaves the old one alone,
// and is forgotten: the next attempt is due at half of what is left.
func (t *tokens) refresh(ctx context.Context, key string, r tokenRequest) (token, error) {
	t.mu.Lock()
	old, ok := t.kept.Get(key)
	t.mu.Unlock()
	if ok && time.Now().Before(old.renew) {
		return old, nil // of a request that ended just now
	}
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	got, err := t.fetch(ctx, r)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		t.kept.Add(key, got)
		return got, nil
	}
	if old, ok := t.kept.Get(key); ok {
		now := time.Now()
		old.renew = now.Add(old.ends.Sub(now) / 2)
		t.kept.Add(key, old)
	}
	return token{}, err
}

// drop forgets a token that was refused, unless it has been replaced.
func (t *tokens) drop(key, value string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if kept, ok := t.kept.Peek(key); ok && kept.value == value {
		t.kept.Remove(key)
	}
}

// fetch asks the token service. A password goes into the header of a GET, as
// docker sends it, and an identity token into the form of a POST. It returns
// *statusError if the service refuses.
func (t *tokens) fetch(ctx context.Context, r tokenRequest) (token, error) {
	client := &http.Client{Transport: t.transport, CheckRedirect: checkRedirect}
	if !r.credential.IsZero() {
		client.CheckRedirect = keepOrigin
	}
	options := auth.TokenOptions{
		Realm: r.realm.String(), Service: r.service, Scopes: r.scopes,
		Username: r.credential.Username, Secret: r.credential.Secret,
	}
	begun := time.Now()
	value, seconds := "", 0
	var err error
	if r.credential.Username == "" && r.credential.Secret != "" {
		var got *auth.OAuthTokenResponse
		if got, err = auth.FetchTokenWithOAuth(ctx, client, nil, "larder", options); err == nil {
			value, seconds = got.AccessToken, got.ExpiresInSeconds
		}
	} else {
		var got *auth.FetchTokenResponse
		if got, err = auth.FetchToken(ctx, client, nil, options); err == nil {
			value, seconds = got.Token, got.ExpiresInSeconds
		}
	}
	if ue, ok := errors.AsType[remoteerrors.ErrUnexpectedStatus](err); ok {
		// Its text carries the URL.
		err = &statusError{status: ue.StatusCode, message: ociMessage(ue.Body), by: r.realm.Host}
	}
	if err == nil && len(value) > maxTokenValue {
		err = fmt.Errorf("token is longer than %d bytes: %w", maxTokenValue, errdefs.ErrDataLoss)
	}
	if err != nil {
		return token{}, err
	}
	return newToken(value, seconds, begun), nil
}

// tokenError says that there is no token. It hides its cause from
// containerd's client, which would take a 404 of the token service for one of
// the registry.
type tokenError struct {
	err  error  // may be shared by several exchanges
	note string // what the credential has to do with it, if anything
}

func (e *tokenError) Error() string { return e.err.Error() }

// status is the token service's answer, 0 if there was none.
func (e *tokenError) status() int {
	if se, ok := errors.AsType[*statusError](e.err); ok {
		return se.status
	}
	return 0
}

// Is finds the context's errors only.
func (e *tokenError) Is(target error) bool { return isContextError(e.err, target) }

// isContextError reports whether target is an error of a context, and the
// cause of err.
func isContextError(err, target error) bool {
	known := target == context.Canceled || target == context.DeadlineExceeded //nolint:errorlint // sentinels themselves
	return known && errors.Is(err, target)
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
