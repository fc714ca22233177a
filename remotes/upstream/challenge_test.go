package upstream

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
	"github.com/containerd/errdefs"
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

// TestChallengeChanges has an upstream ask for something else than before.
func TestChallengeChanges(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t)
	var basic atomic.Bool
	var url string
	url = serve(t, func(w http.ResponseWriter, req *http.Request) {
		challenge, good := fmt.Sprintf("Bearer realm=%q", url+"/token"), "Bearer t"
		if basic.Load() {
			challenge, good = `Basic realm="x"`, "Basic YWxpY2U6aHVudGVyMi1maXJzdA=="
		}
		switch {
		case req.URL.Path == "/token":
			fmt.Fprint(w, `{"token":"t"}`)
		case req.Header.Get("Authorization") != good:
			w.Header().Set("WWW-Authenticate", challenge)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			http.Redirect(w, req, reg.URL()+req.URL.Path, http.StatusTemporaryRedirect)
		}
	})
	for op, ask := range operations(t, img) {
		k := keys(alice())
		c := newPool(t, Options{Named: endpoints(t, url, reg.URL()), Credentials: k}).Client(endpoint(t, url))
		for range 4 {
			if err := ask(c); err != nil {
				t.Errorf("%s, basic %t: %v", op, basic.Load(), err)
			}
			basic.Store(!basic.Load())
		}
		if got := k.refusals(); len(got) != 0 {
			t.Errorf("%s: refused %v, want that it was not at fault", op, got)
		}
	}
}

// TestChallengeChangesForever has an upstream ask for something else each
// time, with a 401 to begin with, and for nothing at all, with a 403.
func TestChallengeChangesForever(t *testing.T) {
	t.Parallel()
	for op, ask := range operations(t, image(1)) {
		var url string
		var asked, tokens atomic.Int64
		url = serve(t, func(w http.ResponseWriter, req *http.Request) {
			if strings.HasPrefix(req.URL.Path, "/token") {
				tokens.Add(1)
				fmt.Fprint(w, `{"token":"t"}`)
				return
			}
			n := asked.Add(1)
			w.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=%q", fmt.Sprint(url, "/token", n)))
			w.WriteHeader(http.StatusUnauthorized)
		})
		c := with(t, keys(alice()), url)
		for range 3 {
			failed(t, ask(c), errdefs.ErrPermissionDenied)
			most := int64(3)
			if op == "referrers" {
				most = 4 // by its endpoint, and by tag
			}
			if n, m := asked.Swap(0), tokens.Swap(0); n > most || m > most {
				t.Errorf("%s: %d requests and %d for tokens, want at most %d", op, n, m, most)
			}
		}
	}
}

// TestChallengePerRepository has an upstream whose repositories have token
// services of their own, and scopes of another name than their own.
func TestChallengePerRepository(t *testing.T) {
	t.Parallel()
	for _, scoped := range []bool{true, false} {
		challengePerRepository(t, scoped)
	}
}

func challengePerRepository(t *testing.T, scoped bool) {
	t.Helper()
	var url string
	url = serve(t, func(w http.ResponseWriter, req *http.Request) {
		name := strings.Split(req.URL.Path, "/")[2]
		if strings.HasPrefix(req.URL.Path, "/token/") {
			name := strings.TrimPrefix(req.URL.Path, "/token/")
			good := slices.Contains(req.URL.Query()["scope"], "repository:mirror/"+name+":pull")
			fmt.Fprintf(w, `{"token":"%s-%t"}`, name, good == scoped)
			return
		}
		if req.Header.Get("Authorization") != fmt.Sprintf("Bearer %s-true", name) {
			challenge := fmt.Sprintf(`Bearer realm="%s/token/%s"`, url, name)
			if scoped {
				challenge += fmt.Sprintf(`,scope="repository:mirror/%s:pull"`, name)
			}
			w.Header().Set("WWW-Authenticate", challenge)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.WriteHeader(http.StatusNotFound)
	})
	c := with(t, keys(alice()), url)
	for _, name := range []string{"a", "a", "b", "a", "b", "c", "a"} {
		if _, err := c.Resolve(soon(t), name+"/app", "v1"); !errdefs.IsNotFound(err) {
			t.Errorf("scoped %t, %s: %v, want not found", scoped, name, err)
		}
	}
}
