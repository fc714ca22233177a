package upstream

import (
	"net/http"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
)

// TestParseChallenge is the table of what is answered.
func TestParseChallenge(t *testing.T) {
	t.Parallel()
	bearer := `Bearer realm="https://auth.example/token",service="s",scope="repository:a:pull,push aws"`
	for _, tc := range []struct {
		name   string
		header []string
		scheme auth.AuthenticationScheme
	}{
		{"none", nil, 0},
		{"basic", []string{`Basic realm="x"`}, auth.BasicAuth},
		{"bearer", []string{bearer}, auth.BearerAuth},
		{"the stronger one", []string{`Basic realm="x"`, bearer}, auth.BearerAuth},
		{"the one that is possible", []string{`Basic realm="x"`, `Bearer realm="ftp://x/y"`}, auth.BasicAuth},
		{"unknown", []string{"Negotiate", `Digest realm="x"`}, 0},
		{"no realm", []string{"Bearer"}, 0},
		{"empty realm", []string{`Bearer realm=""`}, 0},
		{"no host", []string{`Bearer realm="https:///token"`}, 0},
		{"no URL", []string{`Bearer realm="http://[::1/%zz"`}, 0},
		{"no scheme", []string{`Bearer realm="auth.example/token"`}, 0},
		{"file", []string{`Bearer realm="file:///etc/passwd"`}, 0},
		{"long", []string{`Bearer realm="https://auth.example/token",scope="` + strings.Repeat("x ", maxChallenge) + `"`}, 0},
	} {
		if got := parseChallenge(http.Header{"Www-Authenticate": tc.header}); got.scheme != tc.scheme {
			t.Errorf("%s: got %+v, want scheme %d", tc.name, got, tc.scheme)
		}
	}
	got := parseChallenge(http.Header{"Www-Authenticate": {bearer}})
	if got.realm.String() != "https://auth.example/token" || got.service != "s" || strings.Join(got.scopes, "|") != "repository:a:pull,push|aws" {
		t.Errorf("got %+v", got)
	}
	if all := got.common().scopes; strings.Join(all, "|") != "aws" || len(got.scopes) != 2 {
		t.Errorf("common scopes are %v, want what is of no repository", all)
	}
}

// TestOriginOf is the table of what an endpoint's own requests are.
func TestOriginOf(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		endpoint, url string
		want          bool
	}{
		{"https://a.example", "https://a.example/v2/", true},
		{"https://a.example", "https://A.example:443/v2/", true},
		{"https://a.example:5000", "https://a.example:5000/v2/", true},
		{"https://a.example:5000", "http://a.example:5000/v2/", false},
		{"http://a.example:5000", "https://a.example:5000/v2/", false},
		{"https://a.example", "https://a.example:5000/v2/", false},
		{"https://a.example", "https://b.a.example/v2/", false},
	} {
		if got := endpoint(t, tc.endpoint).isOriginOf(request(t, tc.url).URL); got != tc.want {
			t.Errorf("%s, %s: %t, want %t", tc.endpoint, tc.url, got, tc.want)
		}
	}
}
