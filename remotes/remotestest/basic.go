package remotestest

import "net/http"

// RequireBasic lets through who shows a name and password that accept takes, by
// the Basic scheme, and answers 401 with a challenge to all others. It is a
// fault like any other, so that only some repositories ask for it.
func RequireBasic(accept func(username, password string) bool) FaultFunc {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if user, password, ok := r.BasicAuth(); ok && accept(user, password) {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="remotestest"`)
		ociError(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
	}
}
