package upstream

import (
	"net/http"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
)

// basic wants a password for everything.
func basic(username, secret string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if u, p, ok := r.BasicAuth(); !ok || u != username || p != secret {
			w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}
}

func TestPing(t *testing.T) {
	t.Parallel()
	right, wrong := Credential{Username: "alice", Secret: "opensesame"}, Credential{Username: "alice", Secret: "letmein"}
	for name, tc := range map[string]struct {
		url  string
		cred Credential
		kind error // nil: accepted
		text string
	}{
		"open registry":        {url: remotestest.New(t).URL()},
		"token for anyone":     {url: remotestest.New(t, remotestest.WithToken()).URL()},
		"basic":                {url: serve(t, basic("alice", "opensesame")), cred: right},
		"basic, wrong":         {url: serve(t, basic("alice", "opensesame")), cred: wrong, kind: errdefs.ErrPermissionDenied, text: "401"},
		"basic, no credential": {url: serve(t, basic("alice", "opensesame")), kind: errdefs.ErrPermissionDenied, text: "401"},
		"no registry": {
			url:  serve(t, http.NotFound),
			kind: errdefs.ErrNotFound, text: "404",
		},
		"web page": {
			url: serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/html; charset=utf-8")
				_, _ = w.Write([]byte("<html>please log in</html>"))
			}),
			kind: errdefs.ErrDataLoss, text: "web page",
		},
		"endless": {
			url: serve(t, func(w http.ResponseWriter, _ *http.Request) {
				_, _ = w.Write([]byte(strings.Repeat("x", maxPing+1)))
			}),
			kind: errdefs.ErrDataLoss, text: "longer than",
		},
		"broken": {
			url:  serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }),
			kind: errdefs.ErrUnavailable, text: "502",
		},
		"refused": {url: "http://127.0.0.1:1", kind: errdefs.ErrUnavailable, text: "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := named(t, tc.url).Client(endpoint(t, tc.url))
			if !tc.cred.IsZero() {
				c = c.As(tc.cred)
			}
			err := c.Ping(soon(t), "team/app")
			if tc.kind == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if failed(t, err, tc.kind); !strings.Contains(err.Error(), tc.text) || !strings.HasPrefix(err.Error(), "ping /v2/ at http://") {
				t.Errorf("got %v, want %q in it", err, tc.text)
			}
			if strings.Contains(err.Error(), wrong.Secret) {
				t.Errorf("the secret is in %v", err)
			}
		})
	}
}

// tokenService gives tokens as its handler says, and opens /v2/ for "good".
func tokenService(t *testing.T, give http.HandlerFunc) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/token", give)
	mux.HandleFunc("/v2/", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer good" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="registry"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	return serve(t, mux.ServeHTTP)
}

// TestPingAsksForAScope: some token services give nobody a token for nothing.
func TestPingAsksForAScope(t *testing.T) {
	t.Parallel()
	scopes := make(chan string, 10)
	url := tokenService(t, func(w http.ResponseWriter, r *http.Request) {
		scopes <- r.URL.Query().Get("scope")
		if r.URL.Query().Get("scope") == "" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = w.Write([]byte(`{"token":"good"}`))
	})
	if err := named(t, url).Client(endpoint(t, url+"/mirror")).Ping(soon(t), "team/app"); err != nil {
		t.Error(err)
	}
	close(scopes)
	if first, second := <-scopes, <-scopes; first != "" || second != "repository:mirror/team/app:pull" {
		t.Errorf("asked for %q, then %q", first, second)
	}
}

func TestPingTokenRefused(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		give http.HandlerFunc
		kind error
		text string
	}{
		"refused":   {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }, errdefs.ErrPermissionDenied, "no token"},
		"down":      {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, errdefs.ErrUnavailable, "no token"},
		"worthless": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"token":"bad"}`)) }, errdefs.ErrPermissionDenied, "401"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := tokenService(t, tc.give)
			err := named(t, url).Client(endpoint(t, url)).Ping(soon(t), "team/app")
			if failed(t, err, tc.kind); !strings.Contains(err.Error(), tc.text) {
				t.Errorf("got %v, want %q in it", err, tc.text)
			}
		})
	}
}

// TestPingGuarded: a rule cannot be used to look around in a private network.
func TestPingGuarded(t *testing.T) {
	t.Parallel()
	reg := remotestest.New(t)
	err := newPool(t, Options{}).Client(endpoint(t, reg.URL())).Ping(soon(t), "team/app")
	failed(t, err, errdefs.ErrUnavailable)
	if n := len(reg.Requests()); n != 0 {
		t.Errorf("%d requests reached it", n)
	}
}
