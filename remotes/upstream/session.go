package upstream

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
)

// session is the docker.Authorizer of one exchange: it decides what each
// request shows, and what a refusal means. Neither it nor its exchange is for
// concurrent use.
type session struct {
	client     *Client
	repository string    // at the upstream
	since      time.Time // a token that was asked for later is fresh
	failed     error     // nothing is tried twice

	asked      challenge // by the upstream, in this exchange
	credential Credential
	lookedUp   bool       // credential
	anew       bool       // after a refusal
	told       Credential // as refused
	withheld   string     // the token service that does not get it

	shown   proof // by the last request
	next    proof // made for the next one
	retried bool  // a request whose proof was refused
}

// proof is what a request shows.
type proof struct {
	value      string     // of the Authorization header, "" for nothing
	credential Credential // itself, or behind the token; zero: nobody's
	challenge  challenge  // that it answers
	token      token      // if that asked for one
	scopes     []string
	key        string
}

func (c *Client) newSession(repository string) *session {
	return &session{client: c, repository: repository, since: time.Now()}
}

// Authorize implements docker.Authorizer. An upstream that never asked is
// shown nothing.
func (s *session) Authorize(ctx context.Context, req *http.Request) error {
	if !s.client.endpoint.isOriginOf(req.URL) {
		return nil
	}
	if s.next.value == "" {
		var err error
		if s.next, err = s.prove(ctx); err != nil {
			return err
		}
	}
	s.shown, s.next = s.next, proof{}
	if s.shown.value != "" {
		req.Header.Set("Authorization", s.shown.value)
	}
	return nil
}

// AddResponses implements docker.Authorizer, for a 401 of the upstream's origin.
func (s *session) AddResponses(ctx context.Context, responses []*http.Response) error {
	last := responses[len(responses)-1]
	refused := refusal(last)
	again, err := s.again(ctx, parseChallenge(last.Header))
	if err == nil && !again {
		refused.note = s.note(s.shown.credential)
		err = refused
	}
	return err
}

// again takes note of a 401 or 403, and reports whether the request may be
// sent once more.
func (s *session) again(ctx context.Context, asked challenge) (bool, error) {
	if !asked.isZero() {
		s.asked = asked
		s.client.tokens.learn(asked)
	}
	ok, err := !asked.isZero(), error(nil) // a challenge to who showed nothing
	if s.shown.value != "" {
		ok, err = s.mayRetry(ctx, asked)
	}
	if !ok {
		return false, err
	}
	s.next, err = s.prove(ctx)
	return s.next.value != "", err
}

// mayRetry reports whether there is something else to show than what was
// refused. Many registries do not say that a token has expired, and some
// answer with 403 then.
func (s *session) mayRetry(ctx context.Context, asked challenge) (ok bool, err error) {
	shown := s.shown
	s.client.tokens.drop(shown.key, shown.token.value)
	switch {
	case s.retried:
		if shown.challenge.isBasic() {
			s.refuse(shown.credential)
		}
		return false, nil
	case !asked.isZero() && !asked.isAnswer(shown.challenge, shown.scopes):
		ok = true
	case shown.challenge.isBasic():
		ok, err = s.another(ctx, shown.credential)
	default:
		ok = shown.token.fetched.Before(s.since)
	}
	s.retried = ok
	return ok, err
}

// accepted takes note of an answer that was none of these: a body that is
// continued later may find its token refused.
func (s *session) accepted() { s.since = time.Now() }

// prove makes what the next request is to show.
func (s *session) prove(ctx context.Context) (proof, error) {
	asked := s.asked
	if asked.isZero() {
		asked = s.client.tokens.challenge()
	}
	if asked.isZero() || s.failed != nil {
		return proof{}, s.failed
	}
	if err := s.lookUp(ctx); err != nil {
		return proof{}, err
	}
	p, err := s.answer(ctx, asked)
	if err == nil {
		return p, nil
	}
	if refusesCredential(err, p.credential) {
		ok, failed := s.another(ctx, p.credential)
		if failed != nil {
			return proof{}, failed
		}
		if ok {
			if p, err = s.answer(ctx, asked); err == nil {
				return p, nil
			}
			if refusesCredential(err, p.credential) {
				s.refuse(p.credential)
			}
		}
	}
	if isDenial(err.status()) || refusesCredential(err, p.credential) {
		err.note = s.note(p.credential)
	}
	s.failed = err
	s.shown = proof{credential: p.credential} // to the token service, which answered for its account
	return proof{}, err
}

// answer answers a challenge with the credential.
func (s *session) answer(ctx context.Context, c challenge) (proof, *tokenError) {
	cred := s.credential
	s.withheld = ""
	if c.isBasic() {
		if cred.Username == "" {
			return proof{}, nil // an identity token is no password
		}
		pair := base64.StdEncoding.EncodeToString([]byte(cred.Username + ":" + cred.Secret))
		return proof{value: "Basic " + pair, credential: cred, challenge: c}, nil
	}
	if !cred.IsZero() && !s.client.tokens.realms.trusts(c.realm) {
		cred, s.withheld = Credential{}, c.realm.Host
	}
	r := tokenRequest{challenge: c, scopes: docker.GetTokenScopes(ctx, c.scopes), credential: cred}
	p := proof{credential: cred, challenge: c, scopes: r.scopes, key: r.key()}
	var err error
	if p.token, err = s.client.tokens.get(ctx, r); err != nil {
		return p, &tokenError{err: err}
	}
	p.value = "Bearer " + p.token.value
	return p, nil
}

// lookUp finds the credential, once.
func (s *session) lookUp(ctx context.Context) error {
	if s.lookedUp {
		return nil
	}
	host := s.client.endpoint.Host
	cred, err := s.client.credentials.Credential(ctx, host, s.repository)
	if err != nil {
		s.failed = &credentialError{host: host, err: err}
		return s.failed
	}
	s.credential, s.lookedUp = cred, true
	return nil
}

// refuse says that a credential was the reason of a refusal.
func (s *session) refuse(cred Credential) {
	if cred == s.told {
		return
	}
	s.told = cred
	s.client.credentials.Refuse(s.client.endpoint.Host, s.repository, cred)
}

// another looks for another credential than the one that was refused, once.
func (s *session) another(ctx context.Context, refused Credential) (bool, error) {
	s.refuse(refused)
	if s.anew {
		return false, nil
	}
	s.anew, s.lookedUp = true, false
	if err := s.lookUp(ctx); err != nil {
		return false, err
	}
	if s.credential.IsZero() {
		s.credential = refused // that it was refused says more
	}
	return s.credential != refused, nil
}

// note says of a refusal what the credential has to do with it.
func (s *session) note(shown Credential) string {
	host := s.client.endpoint.Host
	switch {
	case s.withheld != "":
		return fmt.Sprintf("the credential was withheld from %s, which does not belong to %s: if it may have it, "+
			"name it in realms of [[upstream.hosts]]", s.withheld, host)
	case !shown.IsZero():
		return oneLine(shown.String()) + " was refused"
	case !s.lookedUp:
		return ""
	case s.credential.IsZero():
		return fmt.Sprintf("no credential is known for %s, see docs/credentials.md", host)
	}
	return fmt.Sprintf("%s wants a user name and a password, and an identity token is known: see docs/credentials.md", host)
}

// refusesCredential reports whether a token service refused this credential.
// For an identity token it says so with 400 (RFC 6749, invalid_grant).
func refusesCredential(err *tokenError, cred Credential) bool {
	if cred.IsZero() {
		return false
	}
	status := err.status()
	return isDenial(status) || cred.Username == "" && status == http.StatusBadRequest
}

func isDenial(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusForbidden
}

// refusal is a 401 as an error.
func refusal(resp *http.Response) *statusError {
	body, err := io.ReadAll(resp.Body) // the guard has it in memory
	message := ociMessage(body)
	if err != nil || message == "" {
		for _, c := range auth.ParseAuthHeader(resp.Header) {
			message = oneLine(string(hideShown(resp.Request, []byte(c.Parameters["error"]))))
			break
		}
	}
	return &statusError{status: resp.StatusCode, message: message}
}
