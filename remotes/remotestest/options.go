package remotestest

// Option changes how a Registry answers.
type Option func(*settings)

// settings are fixed when New returns, so that handlers read them unlocked.
type settings struct {
	token          bool
	denyUnknown    bool
	tls            bool
	noRange        bool
	noDigestHeader bool
	noReferrers    bool
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
