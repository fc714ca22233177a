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

// authorized tells whether the request may pass the token check.
func (r *Registry) authorized(req *http.Request) bool {
	to := parse(req.URL.Path)
	if to.kind == kindToken {
		return true
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

// challenge answers 401 and says where a token is to be had.
func (r *Registry) challenge(w http.ResponseWriter, req *http.Request) {
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

// serveToken gives anyone a token for the repositories in its scopes.
func (r *Registry) serveToken(w http.ResponseWriter, req *http.Request) {
	if !r.set.token {
		ociError(w, http.StatusNotFound, "UNSUPPORTED", "no such endpoint")
		return
	}
	opens := map[string]bool{}
	for _, scope := range req.URL.Query()["scope"] {
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
	r.tokens[token] = opens
	r.mu.Unlock()
	writeJSON(w, "application/json", encode(map[string]any{
		"token": token, "access_token": token, "expires_in": 300,
	}))
}
