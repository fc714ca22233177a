package parts

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// The real registry believes the tokens of either key and of either way to know
// it, for what was granted and for nothing else.
func TestTokenRegistry(t *testing.T) {
	t.Parallel()
	for _, alg := range []string{"RS256", "ES256"} {
		for _, jwks := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s jwks %t", alg, jwks), func(t *testing.T) {
				t.Parallel()
				checkTokenRegistry(t, alg, jwks)
			})
		}
	}
}

func checkTokenRegistry(t *testing.T, alg string, jwks bool) {
	t.Helper()
	bin, dir := workbench(t, "registry")
	seed(t, bin, dir, "team/app", "open/app")
	r, err := StartTokenRegistry(t.Context(), bin, dir, TokenOptions{
		Users: map[string]string{"ada": "pw1"}, Grants: map[string][]string{"ada": {"team/*"}, "": {"open/*"}},
		Algorithm: alg, JWKS: jwks,
	})
	if err != nil {
		t.Fatal(err)
	}
	ended(t, r.Close)

	a := manifestWith(t, r, "team/app", "")
	challenge := a.header.Get("Www-Authenticate")
	if want := fmt.Sprintf(`Bearer realm=%q,service=%q,scope="repository:team/app:pull"`, r.Tokens.Realm(), TokenService); a.status != 401 || challenge != want {
		t.Fatalf("without a token: got %d, challenge %q, want %q", a.status, challenge, want)
	}
	for _, tc := range []struct {
		name, repository string
		form             url.Values // POST, if not nil
		user, password   string
		token, registry  int
	}{
		{"nobody at what is open", "open/app", nil, "", "", 200, 200},
		{"nobody at what is not", "team/app", nil, "", "", 200, 401},
		{"basic", "team/app", nil, "ada", "pw1", 200, 200},
		{"basic, wrong", "team/app", nil, "ada", "pw2", 401, 0},
		{"basic, unknown user", "open/app", nil, "bob", "pw1", 401, 0},
		{"password", "team/app", url.Values{"grant_type": {"password"}, "username": {"ada"}, "password": {"pw1"}}, "", "", 200, 200},
		{"password, wrong", "team/app", url.Values{"grant_type": {"password"}, "username": {"ada"}, "password": {"pw2"}}, "", "", 401, 0},
		{"refresh token", "team/app", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {r.Tokens.Identity("ada")}}, "", "", 200, 200},
		{"refresh token, wrong", "team/app", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"x"}}, "", "", 401, 0},
	} {
		token, status := getToken(t, r, tc.repository, tc.form, tc.user, tc.password)
		if status != tc.token {
			t.Errorf("%s: token service says %d, want %d", tc.name, status, tc.token)
		}
		if tc.token == 200 {
			if a := manifestWith(t, r, tc.repository, token); a.status != tc.registry {
				t.Errorf("%s: registry says %d, want %d\n%s", tc.name, a.status, tc.registry, r.Log())
			}
		}
	}
	if got, want := r.Tokens.Count(), (TokenCount{Anonymous: 2, User: 3, Refused: 4}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}

	r.Tokens.SetLifetime(-2*time.Minute, time.Minute)
	token, _ := getToken(t, r, "team/app", nil, "ada", "pw1")
	if a := manifestWith(t, r, "team/app", token); a.status != 401 || !strings.Contains(a.header.Get("Www-Authenticate"), "invalid_token") {
		t.Errorf("expired token: got %d, %q, want 401 invalid_token", a.status, a.header.Get("Www-Authenticate"))
	}
}

func manifestWith(t *testing.T, r *TokenRegistry, repository, token string) reply {
	t.Helper()
	a, err := ask(t, nil, http.MethodGet, r.URL()+"/v2/"+repository+"/manifests/1", func(req *http.Request) {
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func getToken(t *testing.T, r *TokenRegistry, repository string, form url.Values, user, password string) (token string, status int) {
	t.Helper()
	q := url.Values{"service": {TokenService}, "scope": {"repository:" + repository + ":pull"}}
	var a reply
	var err error
	if form != nil {
		for k, v := range form {
			q[k] = v
		}
		q.Set("client_id", "test")
		a, err = post(t, r.Tokens.Realm(), q)
	} else {
		a, err = ask(t, nil, http.MethodGet, r.Tokens.Realm()+"?"+q.Encode(), func(req *http.Request) {
			if user != "" {
				req.SetBasicAuth(user, password)
			}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	var body struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(a.body), &body); err != nil && a.status == 200 {
		t.Fatalf("token service: %v in %q", err, a.body)
	}
	return body.AccessToken, a.status
}

func post(t *testing.T, to string, form url.Values) (reply, error) {
	t.Helper()
	return ask(t, nil, http.MethodPost, to, func(req *http.Request) {
		body, err := http.NewRequestWithContext(req.Context(), http.MethodPost, to, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Body, req.ContentLength = body.Body, body.ContentLength
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	})
}

func TestHtpasswdRegistry(t *testing.T) {
	t.Parallel()
	bin, dir := workbench(t, "registry")
	seed(t, bin, dir, "team/app")
	r, err := StartPrivateRegistry(t.Context(), bin, dir, map[string]string{"ada": "pw1"})
	if err != nil {
		t.Fatal(err)
	}
	ended(t, r.Close)
	for password, want := range map[string]int{"": 401, "pw2": 401, "pw1": 200} {
		a, err := ask(t, nil, http.MethodGet, r.URL+"/v2/team/app/manifests/1", func(req *http.Request) {
			if password != "" {
				req.SetBasicAuth("ada", password)
			}
		})
		if err != nil || a.status != want {
			t.Errorf("password %q: got %d, %v, want %d", password, a.status, err, want)
		}
	}
}
