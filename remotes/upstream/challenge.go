package upstream

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
)

// maxChallenge bounds, in bytes, what of a challenge is remembered.
const maxChallenge = 4 << 10

// challenge is what a registry wants of who asks. The zero challenge wants
// nothing.
type challenge struct {
	scheme  auth.AuthenticationScheme // Bearer or Basic
	realm   *url.URL                  // of the token service; nil if Basic
	service string
	scopes  []string // what the token must open
}

// parseChallenge returns the strongest challenge that larder can answer, the
// zero challenge if there is none.
func parseChallenge(h http.Header) challenge {
	for _, c := range auth.ParseAuthHeader(h) {
		switch c.Scheme {
		case auth.BasicAuth:
			return challenge{scheme: auth.BasicAuth}
		case auth.BearerAuth:
			text, service, scope := c.Parameters["realm"], c.Parameters["service"], c.Parameters["scope"]
			realm, ok := parseRealm(text)
			if ok && len(text)+len(service)+len(scope) <= maxChallenge {
				return challenge{scheme: auth.BearerAuth, realm: realm, service: service, scopes: strings.Fields(scope)}
			}
		}
	}
	return challenge{}
}

// parseRealm reads the URL of a token service. A password in it is nobody's
// that larder knows, and would end up in errors.
func parseRealm(text string) (*url.URL, bool) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return nil, false
	}
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	return u, true
}

func (c challenge) isZero() bool { return c.scheme == 0 }

// isBasic reports whether the credential itself is wanted.
func (c challenge) isBasic() bool { return c.scheme == auth.BasicAuth }

// common is what the challenges of all repositories of a registry share.
func (c challenge) common() challenge {
	c.scopes = slices.DeleteFunc(slices.Clone(c.scopes), func(s string) bool {
		return strings.HasPrefix(s, "repository:")
	})
	return c
}

// isAnswer reports whether what was shown for another challenge, with these
// scopes, was meant to answer c too.
func (c challenge) isAnswer(other challenge, scopes []string) bool {
	if c.isBasic() || other.isBasic() {
		return c.scheme == other.scheme
	}
	return c.realm.String() == other.realm.String() && c.service == other.service &&
		!slices.ContainsFunc(c.scopes, func(s string) bool { return !slices.Contains(scopes, s) })
}
