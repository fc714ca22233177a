package remotestest

// Option changes how a Registry answers.
type Option func(*settings)

// settings are fixed when New returns, so that handlers read them unlocked.
type settings struct {
	token          bool
	basic          bool
	users          bool
	life           *int // expires_in of tokens, 0 to leave it out; nil: 300
	forbidExpired  bool
	denyUnknown    bool
	tls            bool
	noRange        bool
	noDigestHeader bool

	username, password string // at the start
	noReferrers        bool
}

// WithToken asks every request under /v2/ for a Bearer token, which GET /token
// gives to anyone for the repositories named in its scope parameters. A token
// for one repository opens no other.
func WithToken() Option { return func(s *settings) { s.token = true } }

// WithDeniedUnknown answers 401 UNAUTHORIZED and "insufficient_scope", as
// Docker Hub does, where the repository does not exist or was deleted. It
// includes WithToken.
func WithDeniedUnknown() Option {
	return func(s *settings) { s.token, s.denyUnknown = true, true }
}

// WithBasic asks every request under /v2/ for a user name and password (Basic),
// as private ECR does. [Registry.SetUser] changes them.
func WithBasic(username, password string) Option {
	return func(s *settings) { s.basic, s.username, s.password = true, username, password }
}

// WithUser is WithToken for one user: only with this user name and password
// (Basic, GET), or with the password as an identity token (grant_type
// refresh_token, POST), /token gives a token that opens repositories. Without
// any it gives one that opens none, and with others 401. [Registry.SetUser]
// changes them.
func WithUser(username, password string) Option {
	return func(s *settings) { s.token, s.users, s.username, s.password = true, true, username, password }
}

// WithTokenLife sets expires_in of tokens, in seconds; 0 leaves it out. The
// registry itself forgets tokens with RevokeTokens only.
func WithTokenLife(seconds int) Option { return func(s *settings) { s.life = &seconds } }

// WithForbiddenExpired answers a token or password that it does not take with
// 403 DENIED and no challenge, as ECR does when a token has expired, and not
// with 401. Requests without any are challenged.
func WithForbiddenExpired() Option { return func(s *settings) { s.forbidExpired = true } }

// WithTLS serves https with a self-signed certificate for 127.0.0.1, which
// [Registry.CertPool] trusts.
func WithTLS() Option { return func(s *settings) { s.tls = true } }

// WithoutRange ignores Range: every answer is 200 with the whole body and
// without Accept-Ranges.
func WithoutRange() Option { return func(s *settings) { s.noRange = true } }

// WithoutDigestHeader leaves Docker-Content-Digest and ETag out of every answer.
func WithoutDigestHeader() Option { return func(s *settings) { s.noDigestHeader = true } }

// WithoutReferrers has no referrers endpoint: PutReferrer keeps the list under
// a tag, sha256-<hex> of the subject, as clients do for such registries (the
// tag schema of the distribution spec).
func WithoutReferrers() Option { return func(s *settings) { s.noReferrers = true } }
