package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
)

// TestTokenFlow asks in every way, with one token for all.
func TestTokenFlow(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t, remotestest.WithToken())
	c := clientOf(t, reg)
	for op, ask := range operations(t, img) {
		if err := ask(c); err != nil {
			t.Errorf("%s: %v", op, err)
		}
	}
	if n := reg.Count("GET", "/token"); n != 1 {
		t.Errorf("%d token requests, want 1", n)
	}
}

// TestTokenExpired is about a registry that says so, and one that does not.
func TestTokenExpired(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t, remotestest.WithToken())
	silentReg := newTokenRegistry(t)
	for op, ask := range operations(t, img) {
		c := clientOf(t, reg)
		for range 3 {
			if err := ask(c); err != nil {
				t.Errorf("%s: %v", op, err)
			}
			reg.RevokeTokens()
		}
		c = named(t, silentReg.url).Client(endpoint(t, silentReg.url))
		for range 3 {
			if err := ask(c); !errdefs.IsNotFound(err) {
				t.Errorf("%s, without a word on the token: %v, want not found", op, err)
			}
			silentReg.revoke()
		}
	}
}

// tokenRegistry holds nothing, and does not say why it refuses a token.
type tokenRegistry struct {
	url    string
	valid  atomic.Int64
	asked  atomic.Int64
	tokens atomic.Int64
	never  bool
}

func newTokenRegistry(t *testing.T) *tokenRegistry {
	t.Helper()
	r := &tokenRegistry{}
	r.url = serve(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/token" {
			r.tokens.Add(1)
			fmt.Fprintf(w, `{"token":"t%d"}`, r.valid.Load())
			return
		}
		r.asked.Add(1)
		if r.never || req.Header.Get("Authorization") != fmt.Sprintf("Bearer t%d", r.valid.Load()) {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=%q,service=test", r.url+"/token"))
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.WriteHeader(http.StatusNotFound)
	})
	return r
}

func (r *tokenRegistry) revoke() { r.valid.Add(1) }

// TestUnauthorizedForever counts how often a registry is asked that takes no
// token: without one, with one, and next time also with the one it had.
func TestUnauthorizedForever(t *testing.T) {
	t.Parallel()
	img := image(1)
	for op, ask := range operations(t, img) {
		reg := newTokenRegistry(t)
		reg.never = true
		c := named(t, reg.url).Client(endpoint(t, reg.url))
		for i := range 10 {
			e := failure(t, ask(c), errdefs.ErrPermissionDenied)
			if e.Status != http.StatusUnauthorized || e.Reason() != "UpstreamAccessDenied" {
				t.Errorf("%s: status %d, reason %s", op, e.Status, e.Reason())
			}
			asked, most := reg.asked.Swap(0), int64(2)
			if op == "referrers" {
				most = 4 // by its endpoint, and by tag
			}
			if tokens := reg.tokens.Swap(0); asked > most || tokens > 2 {
				t.Errorf("%s, call %d: %d requests and %d for tokens, want at most %d and 2", op, i, asked, tokens, most)
			}
		}
	}
}

// TestUnauthorizedWithoutBearer asks registries that want what larder cannot
// give, or do not say what they want.
func TestUnauthorizedWithoutBearer(t *testing.T) {
	t.Parallel()
	img := image(1)
	for _, challenge := range []string{
		"", `Basic realm="x"`, "Bearer", `Bearer realm=""`, `Bearer realm="http://[::1/%zz?sig=hunter2"`, "Negotiate",
		`Bearer realm="https://user:hunter2@127.0.0.1:1/token?sig=hunter2"`,
	} {
		url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", challenge)
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`)
		})
		for op, ask := range operations(t, img) {
			err := ask(named(t, url).Client(endpoint(t, url)))
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Status != 0 && e.Status != http.StatusUnauthorized || errdefs.IsNotFound(err) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s, %q: %v", op, challenge, err)
			}
			if !strings.Contains(challenge, "Bearer") && !errdefs.IsPermissionDenied(err) {
				t.Errorf("%s, %q: %v, want permission denied", op, challenge, err)
			}
		}
	}
}

// TestDeniedUnknown is Docker Hub's way to say that a repository is gone.
func TestDeniedUnknown(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t, remotestest.WithDeniedUnknown())
	c := clientOf(t, reg)
	for op, ask := range operations(t, img) {
		if err := ask(c); err != nil {
			t.Errorf("%s: %v", op, err)
		}
	}
	reg.DeleteRepository("team/app")
	reg.PutImage("team/other", "v1", img)
	for op, ask := range operations(t, img) {
		e := failure(t, ask(c), errdefs.ErrPermissionDenied)
		if e.Status != http.StatusUnauthorized || e.Reason() != "UpstreamAccessDenied" || errdefs.IsNotFound(e) {
			t.Errorf("%s: status %d, reason %s: %v", op, e.Status, e.Reason(), e)
		}
		if op != "resolve" && !strings.Contains(e.Error(), "authentication required") && !strings.Contains(e.Error(), "insufficient_scope") {
			t.Errorf("%s: %v, want upstream's words", op, e)
		}
	}
	if _, err := c.Resolve(soon(t), "team/other", "v1"); err != nil {
		t.Errorf("another repository: %v", err)
	}
	reg.PutImage("team/app", "v1", img)
	for op, ask := range operations(t, img) {
		if err := ask(c); err != nil {
			t.Errorf("%s, when it is back: %v", op, err)
		}
	}
}

// TestTokenServiceDownThenBack fails the token service in many ways, and
// wants the next call to succeed: containerd's authorizer alone would answer
// with the old failure for ever.
func TestTokenServiceDownThenBack(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		fault  remotestest.FaultFunc
		kind   error
		status int
	}{
		"unavailable":   {remotestest.Error(503, "UNAVAILABLE", "later"), errdefs.ErrUnavailable, 503},
		"not found":     {remotestest.Error(404, "NOT_FOUND", "no"), errdefs.ErrUnavailable, 404},
		"rate limit":    {remotestest.TooManyRequests(0), errdefs.ErrResourceExhausted, 429},
		"forbidden":     {remotestest.Error(403, "DENIED", "no"), errdefs.ErrPermissionDenied, 403},
		"unauthorized":  {remotestest.Error(401, "DENIED", "no"), errdefs.ErrPermissionDenied, 401},
		"cut":           {remotestest.Abort(), errdefs.ErrUnavailable, 0},
		"cut in body":   {remotestest.CutBody(5), errdefs.ErrUnavailable, 0},
		"no JSON":       {remotestest.Status(200, nil, "<html>"), errdefs.ErrUnavailable, 0},
		"no token":      {remotestest.Status(200, nil, "{}"), errdefs.ErrUnavailable, 0},
		"coded":         {remotestest.SetHeader("Content-Encoding", "gzip"), errdefs.ErrUnavailable, 0},
		"loop":          {remotestest.RedirectTo("/token"), errdefs.ErrUnavailable, 0},
		"no such place": {remotestest.RedirectTo("http://127.0.0.1:1/token"), errdefs.ErrUnavailable, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg, img := withImage(t, remotestest.WithToken())
			for op, ask := range operations(t, img) {
				c := clientOf(t, reg)
				remove := reg.Fault(remotestest.Tokens(), tc.fault)
				for range 2 {
					e := failure(t, ask(c), tc.kind)
					if e.Status != tc.status || !strings.Contains(e.Error(), "no token") || errdefs.IsNotFound(e) {
						t.Errorf("%s: status %d: %v", op, e.Status, e)
					}
				}
				remove()
				if err := ask(c); err != nil {
					t.Errorf("%s, when the token service is back: %v", op, err)
				}
			}
		})
	}
}

// TestTokenTooLarge bounds a token wherever its URL or a redirect points: a
// path that looks like a blob's is no way around it.
func TestTokenTooLarge(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/token", "/v2/x/blobs/token", "/redirect"} {
		var url string
		var sent atomic.Int64
		url = serve(t, func(w http.ResponseWriter, req *http.Request) {
			switch req.URL.Path {
			case path:
				if path == "/redirect" {
					http.Redirect(w, req, "/v2/x/blobs/elsewhere", http.StatusFound)
					return
				}
				endless(w, req, `{"token":"`, &sent)
			case "/v2/x/blobs/elsewhere":
				endless(w, req, `{"token":"`, &sent)
			default:
				w.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=%q", url+path))
				w.WriteHeader(http.StatusUnauthorized)
			}
		})
		_, err := named(t, url).Client(endpoint(t, url)).Resolve(soon(t), "team/app", "v1")
		if e := failure(t, err, errdefs.ErrUnavailable); !strings.Contains(e.Error(), "longer than") {
			t.Errorf("%s: %v, want that it is too long", path, e)
		}
		if n := sent.Load(); n > 16*maxToken {
			t.Errorf("%s: %d bytes were taken", path, n)
		}
	}
}

// endless sends until the client has enough.
func endless(w http.ResponseWriter, req *http.Request, begin string, sent *atomic.Int64) {
	chunk := []byte(strings.Repeat("x", 64<<10))
	_, err := w.Write([]byte(begin))
	for err == nil && req.Context().Err() == nil {
		var n int
		n, err = w.Write(chunk)
		sent.Add(int64(n))
	}
}

// TestRealmAtPrivateAddress names a token service where the configuration
// does not point.
func TestRealmAtPrivateAddress(t *testing.T) {
	t.Parallel()
	port, accepted := listener(t)
	img := image(1)
	for realm, want := range map[string]string{
		"https://127.0.0.1:" + port + "/token": "is not a public address",
		"https://localhost:" + port + "/token": "is not a public address",
		"http://127.0.0.1:" + port + "/token":  "is not https",
		"https://169.254.169.254/latest":       "is not a public address",
	} {
		url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=%q", realm))
			w.WriteHeader(http.StatusUnauthorized)
		})
		for op, ask := range operations(t, img) {
			e := failure(t, ask(named(t, url).Client(endpoint(t, url))), errdefs.ErrUnavailable)
			if !strings.Contains(e.Error(), want) {
				t.Errorf("%s, %s: %v, want %q", op, realm, e, want)
			}
		}
	}
	if n := accepted(); n != 0 {
		t.Errorf("%d connections were made", n)
	}
}
