package remotestest

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
)

// token asks for an anonymous token with these scopes.
func token(t *testing.T, r *Registry, scopes ...string) string {
	t.Helper()
	a := ask(t, "GET", r.URL()+"/token?"+url.Values{"service": {r.Host()}, "scope": scopes}.Encode())
	var got struct {
		Token   string `json:"token"`
		Expires int    `json:"expires_in"`
	}
	if err := json.Unmarshal(a.body, &got); err != nil || got.Token == "" || got.Expires == 0 {
		t.Fatalf("got %d %s, %v", a.status, a.body, err)
	}
	return "Bearer " + got.Token
}

func TestTokenFlow(t *testing.T) {
	t.Parallel()
	r := New(t, WithToken())
	for _, repo := range []string{"a/b", "c"} {
		r.PutManifest(repo, "v1", "application/x", []byte("1"))
	}
	both := token(t, r, "repository:a/b:pull repository:c:pull,push")
	tests := []struct {
		name, path, auth string
		status           int
		reason           string // of the challenge's error parameter
	}{
		{"none", "/v2/a/b/manifests/v1", "", 401, ""},
		{"none for base", "/v2/", "", 401, ""},
		{"basic", "/v2/a/b/manifests/v1", "Basic Zm9v", 401, ""},
		{"unknown", "/v2/a/b/manifests/v1", "Bearer x", 401, "invalid_token"},
		{"right", "/v2/a/b/manifests/v1", token(t, r, "repository:a/b:pull"), 200, ""},
		{"other repository", "/v2/c/manifests/v1", token(t, r, "repository:a/b:pull"), 401, "insufficient_scope"},
		{"one of two", "/v2/a/b/manifests/v1", both, 200, ""},
		{"two of two", "/v2/c/manifests/v1", both, 200, ""},
		{"two scopes", "/v2/c/manifests/v1", token(t, r, "repository:a/b:pull", "repository:c:pull"), 200, ""},
		{"no scope for base", "/v2/", token(t, r), 200, ""},
		{"unknown repository", "/v2/d/manifests/v1", token(t, r, "repository:d:pull"), 404, ""},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			a := ask(t, "GET", r.URL()+tc.path, "Authorization", tc.auth)
			challenge := a.header.Get("WWW-Authenticate")
			if a.status != tc.status || (challenge != "") != (tc.status == 401) {
				t.Fatalf("got %d, challenge %q", a.status, challenge)
			}
			if tc.status != 401 {
				return
			}
			want := fmt.Sprintf("Bearer realm=%q,service=%q", r.URL()+"/token", r.Host())
			if to := parse(tc.path); to.repo != "" {
				want += fmt.Sprintf(",scope=%q", "repository:"+to.repo+":pull")
			}
			if tc.reason != "" {
				want += fmt.Sprintf(",error=%q", tc.reason)
			}
			if challenge != want || !strings.Contains(string(a.body), "UNAUTHORIZED") {
				t.Errorf("got %q %s, want %q", challenge, a.body, want)
			}
		})
	}
}

func TestRevokeTokens(t *testing.T) {
	t.Parallel()
	r := New(t, WithToken())
	old := token(t, r)
	r.RevokeTokens()
	if a := ask(t, "GET", r.URL()+"/v2/", "Authorization", old); a.status != 401 {
		t.Errorf("revoked: got %d", a.status)
	}
	if a := ask(t, "GET", r.URL()+"/v2/", "Authorization", token(t, r)); a.status != 200 {
		t.Errorf("new: got %d", a.status)
	}
}

func TestDeniedUnknown(t *testing.T) {
	t.Parallel()
	r := New(t, WithDeniedUnknown())
	r.PutManifest("a", "v1", "application/x", []byte("1"))
	auth := token(t, r, "repository:a:pull")
	if a := ask(t, "GET", r.URL()+"/v2/a/manifests/v1", "Authorization", auth); a.status != 200 {
		t.Errorf("got %d", a.status)
	}
	r.DeleteRepository("a")
	a := ask(t, "GET", r.URL()+"/v2/a/manifests/v1", "Authorization", auth)
	if a.status != 401 || !strings.Contains(a.header.Get("WWW-Authenticate"), "insufficient_scope") {
		t.Errorf("deleted: got %d %v", a.status, a.header)
	}
}

func TestFaultsSeeAuthorizedOnly(t *testing.T) {
	t.Parallel()
	r := New(t, WithToken())
	r.PutManifest("a", "v1", "application/x", []byte("1"))
	r.Fault(Manifests(), Times(1, Status(500, nil, "")))
	r.Fault(Tokens(), After(1, Status(503, nil, "")))
	auth := token(t, r, "repository:a:pull")
	for i, step := range []struct {
		path, auth string
		want       int
	}{
		{"/v2/a/manifests/v1", "", 401},
		{"/v2/a/manifests/v1", auth, 500},
		{"/v2/a/manifests/v1", auth, 200},
		{"/token", "", 503},
	} {
		if a := ask(t, "GET", r.URL()+step.path, "Authorization", step.auth); a.status != step.want {
			t.Errorf("step %d: got %d, want %d", i, a.status, step.want)
		}
	}
}

func TestBasic(t *testing.T) {
	t.Parallel()
	for _, expired := range []int{401, 403} {
		opts := []Option{WithBasic("AWS", "pw")}
		if expired == 403 {
			opts = append(opts, WithForbiddenExpired())
		}
		r := New(t, opts...)
		a := ask(t, "GET", r.URL()+"/v2/")
		if got := a.header.Get("WWW-Authenticate"); a.status != 401 || !strings.HasPrefix(got, "Basic realm=") {
			t.Errorf("none: got %d %q", a.status, got)
		}
		if a := ask(t, "GET", r.URL()+"/v2/", "Authorization", "Basic QVdTOnB3"); a.status != 200 {
			t.Errorf("right: got %d", a.status)
		}
		r.SetUser("AWS", "other")
		if a := ask(t, "GET", r.URL()+"/v2/", "Authorization", "Basic QVdTOnB3"); a.status != expired {
			t.Errorf("expired: got %d, want %d", a.status, expired)
		}
	}
}

func TestUserToken(t *testing.T) {
	t.Parallel()
	r := New(t, WithUser("bob", "pw"), WithTokenLife(0))
	r.PutManifest("a", "v1", "application/x", []byte("1"))
	at := r.URL() + "/token?scope=repository:a:pull"
	for auth, want := range map[string]struct{ token, read int }{
		"":                {200, 401},
		"Basic Ym9iOnB3":  {200, 200}, // bob:pw
		"Basic Ym9iOnB4":  {401, 401},
		"Bearer whatever": {200, 401},
	} {
		a := ask(t, "GET", at, "Authorization", auth)
		var got struct {
			Token   string `json:"token"`
			Expires *int   `json:"expires_in"`
		}
		err := json.Unmarshal(a.body, &got)
		if a.status != want.token || err != nil || got.Expires != nil {
			t.Errorf("%q: got %d %s, want %d without expires_in", auth, a.status, a.body, want.token)
		}
		if a := ask(t, "GET", r.URL()+"/v2/a/manifests/v1", "Authorization", "Bearer "+got.Token); a.status != want.read {
			t.Errorf("%q: read: got %d, want %d", auth, a.status, want.read)
		}
	}
}
