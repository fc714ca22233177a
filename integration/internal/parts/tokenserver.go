package parts

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// tokenIssuer is who signs, as the registry is told.
const tokenIssuer = "larder-test-issuer"

// TokenOptions say whom a TokenServer knows and what its tokens are.
type TokenOptions struct {
	// Users are names with their passwords.
	Users map[string]string
	// Grants are the repositories that a user may pull, as patterns of
	// path.Match. The user "" is everybody.
	Grants map[string][]string
	// Lifetime of tokens; 5 minutes if zero. The registry believes them 60 s
	// longer, so less than -60 s makes tokens that it refuses.
	Lifetime time.Duration
	// ExpiresIn is what clients are told instead of Lifetime, if not zero.
	ExpiresIn time.Duration
	// Algorithm signs: ES256, or RS256 if empty.
	Algorithm string
	// JWKS names the key by kid instead of carrying its certificate in x5c.
	JWKS bool
}

// TokenCount is how often tokens were asked for, by how it ended.
type TokenCount struct {
	// Anonymous and User are the tokens given; Refused are wrong passwords.
	Anonymous, User, Refused int
}

// TokenServer is a token service in the test process: real JWTs for users with
// passwords, asked for by GET with Basic, or by POST as OAuth2 has it.
type TokenServer struct {
	*server
	opts   TokenOptions
	signer *tokenSigner

	mu       sync.Mutex // guards all below, and the maps and times in opts
	count    TokenCount
	issued   []string
	identity map[string]string // identity token to its user
}

// startTokenServer starts one whose key files are in dir.
func startTokenServer(dir string, opts TokenOptions) (*TokenServer, error) {
	if opts.Algorithm == "" {
		opts.Algorithm = string(jose.RS256)
	}
	signer, err := newTokenSigner(dir, jose.SignatureAlgorithm(opts.Algorithm), opts.JWKS)
	if err != nil {
		return nil, err
	}
	users := map[string]string{}
	for user, password := range opts.Users {
		users[user] = password
	}
	opts.Users = users
	t := &TokenServer{opts: opts, signer: signer, identity: map[string]string{}}
	t.server, err = serve(t, nil)
	return t, err
}

// Realm is the URL that a registry sends clients to.
func (t *TokenServer) Realm() string { return t.URL() + "/token" }

// Count is what happened so far.
func (t *TokenServer) Count() TokenCount {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count
}

// Issued are all tokens that were given, refresh tokens included.
func (t *TokenServer) Issued() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.issued)
}

// SetPassword changes a user's password. Tokens that were given stay good.
func (t *TokenServer) SetPassword(user, password string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.opts.Users[user] = password
}

// SetLifetime changes Lifetime and ExpiresIn for tokens yet to be given.
func (t *TokenServer) SetLifetime(lifetime, expiresIn time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.opts.Lifetime, t.opts.ExpiresIn = lifetime, expiresIn
}

// Identity gives an identity token, as docker login stores instead of a
// password.
func (t *TokenServer) Identity(user string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.newIdentity(user)
}

func (t *TokenServer) newIdentity(user string) string {
	token := rand.Text() + rand.Text()
	t.identity[token] = user
	t.issued = append(t.issued, token)
	return token
}

// ServeHTTP gives tokens. (docs/specs of docker's token authentication: the GET
// form; OAuth2 form for POST)
func (t *TokenServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/token" {
		http.NotFound(w, r)
		return
	}
	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	user, ok := "", false
	switch {
	case r.Method == http.MethodGet:
		user, ok = t.basic(r)
	case r.Method == http.MethodPost && r.PostForm.Get("client_id") != "":
		user, ok = t.grant(r)
	default:
		http.Error(w, `{"error":"invalid_request"}`, http.StatusBadRequest)
		return
	}
	if !ok {
		t.count.Refused++
		w.Header().Set("WWW-Authenticate", `Basic realm="token"`)
		writeJSON(w, http.StatusUnauthorized, map[string]any{"errors": []map[string]string{
			{"code": "UNAUTHORIZED", "message": "incorrect username or password"},
		}})
		return
	}
	if user == "" {
		t.count.Anonymous++
	} else {
		t.count.User++
	}
	t.answer(w, r, user)
}

// basic is who asks by GET; nobody is as good as somebody.
func (t *TokenServer) basic(r *http.Request) (user string, ok bool) {
	user, password, has := r.BasicAuth()
	if !has {
		return "", r.Header.Get("Authorization") == ""
	}
	return user, t.knows(user, password)
}

// grant is who asks by POST.
func (t *TokenServer) grant(r *http.Request) (user string, ok bool) {
	switch r.PostForm.Get("grant_type") {
	case "password":
		user = r.PostForm.Get("username")
		return user, t.knows(user, r.PostForm.Get("password"))
	case "refresh_token":
		user, ok = t.identity[r.PostForm.Get("refresh_token")]
		return user, ok
	}
	return "", false
}

func (t *TokenServer) knows(user, password string) bool {
	want, ok := t.opts.Users[user]
	return ok && user != "" && password == want
}

func (t *TokenServer) answer(w http.ResponseWriter, r *http.Request, user string) {
	lifetime := t.opts.Lifetime
	if lifetime == 0 {
		lifetime = 5 * time.Minute
	}
	expiresIn := t.opts.ExpiresIn
	if expiresIn == 0 {
		expiresIn = lifetime
	}
	now := time.Now()
	token, err := t.signer.sign(user, r.Form.Get("service"), t.allowed(user, r.Form["scope"]), now.Add(lifetime))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	t.issued = append(t.issued, token)
	body := map[string]any{
		"access_token": token, "expires_in": int(expiresIn.Seconds()), "issued_at": now.UTC().Format(time.RFC3339),
	}
	if r.Method == http.MethodGet {
		body["token"] = token
	}
	if user != "" && (r.Form.Get("access_type") == "offline" || r.Form.Get("offline_token") == "true") {
		body["refresh_token"] = t.newIdentity(user)
	}
	writeJSON(w, http.StatusOK, body)
}

// allowed is what a user gets of the scopes asked for: to pull, at most.
func (t *TokenServer) allowed(user string, scopes []string) []access {
	got := []access{}
	for _, scope := range strings.Fields(strings.Join(scopes, " ")) {
		kind, rest, _ := strings.Cut(scope, ":")
		i := strings.LastIndexByte(rest, ':')
		if kind != "repository" || i < 0 || !slices.Contains(strings.Split(rest[i+1:], ","), "pull") {
			continue
		}
		if t.granted(user, rest[:i]) || t.granted("", rest[:i]) {
			got = append(got, access{Type: kind, Name: rest[:i], Actions: []string{"pull"}})
		}
	}
	return got
}

func (t *TokenServer) granted(user, repository string) bool {
	return slices.ContainsFunc(t.opts.Grants[user], func(pattern string) bool {
		ok, err := path.Match(pattern, repository)
		return err == nil && ok
	})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		panic(fmt.Errorf("answer of %T: %w", body, err)) // a mistake in this package
	}
}
