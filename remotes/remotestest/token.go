package remotestest

import (
	"fmt"
	"net/http"
	"strings"
)

// RevokeTokens makes every token given so far worthless, as if expired.
func (r *Registry) RevokeTokens() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.tokens)
}

// SetUser changes the user name and password that WithBasic and WithUser take.
// Tokens that were given stay good.
func (r *Registry) SetUser(username, password string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.user = [2]string{username, password}
}

// isUser tells whether these are the user's.
func (r *Registry) isUser(username, password string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.user == [2]string{username, password}
}

// authorized tells whether the request may pass the check of its token or
// password.
func (r *Registry) authorized(req *http.Request) bool {
	to := parse(req.URL.Path)
	if to.kind == kindToken {
		return true
	}
	if r.set.basic {
		username, password, ok := req.BasicAuth()
		return ok && r.isUser(username, password)
	}
	token, ok := bearer(req)
	if !ok {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	opens, ok := r.tokens[token]
	if !ok {
		return false
	}
	if to.repo == "" {
		return true
	}
	if _, exists := r.repos[to.repo]; !exists && r.set.denyUnknown {
		return false
	}
	return opens[to.repo]
}

// challenge answers 401 and says what is wanted, and where it is to be had.
func (r *Registry) challenge(w http.ResponseWriter, req *http.Request) {
	if r.set.forbidExpired && req.Header.Get("Authorization") != "" {
		ociError(w, http.StatusForbidden, "DENIED", "Your authorization token has expired. Reauthenticate and try again.")
		return
	}
	if r.set.basic {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf("Basic realm=%q,service=\"ecr.amazonaws.com\"", r.URL()+"/"))
		ociError(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
		return
	}
	value := fmt.Sprintf("Bearer realm=%q,service=%q", r.URL()+"/token", r.addr)
	if to := parse(req.URL.Path); to.repo != "" {
		value += fmt.Sprintf(",scope=%q", "repository:"+to.repo+":pull")
	}
	if token, ok := bearer(req); ok {
		reason := "invalid_token"
		r.mu.Lock()
		if _, known := r.tokens[token]; known {
			reason = "insufficient_scope"
		}
		r.mu.Unlock()
		value += fmt.Sprintf(",error=%q", reason)
	}
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	w.Header().Set("WWW-Authenticate", value)
	ociError(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
}

// bearer returns the token that the request carries.
func bearer(req *http.Request) (string, bool) {
	scheme, token, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	return token, strings.EqualFold(scheme, "Bearer") && token != ""
}

// knows tells whether a token request is the user's. ok is false if it shows
// something that is not.
func (r *Registry) knows(req *http.Request) (user, ok bool) {
	if req.Method == http.MethodPost {
		ok = req.PostFormValue("grant_type") == "refresh_token"
		r.mu.Lock()
		defer r.mu.Unlock()
		ok = ok && req.PostFormValue("refresh_token") == r.user[1]
		return ok, ok
	}
	username, password, shown := req.BasicAuth()
	if !shown || !r.set.users {
		return !r.set.users, true
	}
	ok = r.isUser(username, password)
	return ok, ok
}

// serveToken gives a token for the repositories in its scopes: to anyone, or
// to the user.
func (r *Registry) serveToken(w http.ResponseWriter, req *http.Request) {
	if !r.set.token {
		ociError(w, http.StatusNotFound, "UNSUPPORTED", "no such endpoint")
		return
	}
	user, ok := r.knows(req)
	if !ok {
		ociError(w, http.StatusUnauthorized, "UNAUTHORIZED", "incorrect username or password")
		return
	}
	scopes := append(req.URL.Query()["scope"], req.PostForm["scope"]...)
	if !user {
		scopes = nil
	}
	opens := map[string]bool{}
	for _, scope := range scopes {
		for one := range strings.FieldsSeq(scope) {
			name, ok := strings.CutPrefix(one, "repository:")
			if i := strings.LastIndexByte(name, ':'); ok && i > 0 {
				opens[name[:i]] = true
			}
		}
	}
	r.mu.Lock()
	r.issued++
	token := fmt.Sprintf("anonymous-%d", r.issued)
	if r.set.users && user {
		token = fmt.Sprintf("personal-%d", r.issued)
	}
	r.tokens[token] = opens
	r.mu.Unlock()
	answer := map[string]any{"token": token, "access_token": token, "expires_in": 300}
	if r.set.life != nil {
		answer["expires_in"] = *r.set.life
	}
	if answer["expires_in"] == 0 {
		delete(answer, "expires_in")
	}
	writeJSON(w, "application/json", encode(answer))
}
