package upstream

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/log"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/sirupsen/logrus"
)

// canary records all that arrives, and gives a token for anything.
type canary struct {
	url string
	mu  sync.Mutex
	got []string
}

func newCanary(t *testing.T) *canary {
	t.Helper()
	c := &canary{}
	c.url = serve(t, func(w http.ResponseWriter, req *http.Request) {
		dump, err := httputil.DumpRequest(req, true)
		if err != nil {
			t.Error(err)
		}
		c.mu.Lock()
		c.got = append(c.got, string(dump))
		c.mu.Unlock()
		fmt.Fprint(w, `{"token":"canary","access_token":"canary"}`)
	})
	return c
}

// check fails if a request shows anything.
func (c *canary) check(t *testing.T, name string) (requests int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, dump := range c.got {
		low := strings.ToLower(dump)
		for _, bad := range []string{
			"authorization:", "cookie:", "referer:", "password", "refresh_token", "alice", "personal-", secretA,
			strings.ToLower(base64.StdEncoding.EncodeToString([]byte("alice:" + secretA))),
		} {
			if strings.Contains(low, strings.ToLower(bad)) {
				t.Errorf("%s: %q arrived:\n%s", name, bad, dump)
			}
		}
	}
	return len(c.got)
}

// redirecting answers with a status and a Location, and sets a cookie.
func redirecting(status int, location string) remotestest.FaultFunc {
	return remotestest.Status(status, http.Header{"Location": {location}, "Set-Cookie": {"c=" + secretA}}, "")
}

// TestBlobRedirectLeaksNothing redirects everything that a registry has to
// another origin, with a password and with a token.
func TestBlobRedirectLeaksNothing(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]remotestest.Option{
		"basic": remotestest.WithBasic("alice", secretA), "bearer": remotestest.WithUser("alice", secretA),
	} {
		for _, status := range []int{301, 302, 303, 307, 308} {
			can := newCanary(t)
			reg, img := withImage(t, opt)
			reg.Fault(remotestest.Not(remotestest.Tokens()), redirecting(status, can.url+"/x"))
			c := newPool(t, Options{Named: endpoints(t, reg.URL(), can.url), Credentials: keys(alice())}).Client(endpoint(t, reg.URL()))
			for _, ask := range operations(t, img) {
				_ = ask(c) // the canary has nothing of use
			}
			if n := can.check(t, fmt.Sprintf("%s, %d", name, status)); n == 0 {
				t.Errorf("%s, %d: nothing arrived: the test proves nothing", name, status)
			}
		}
	}
}

// TestTokenRedirectLeaksNothing redirects token requests with a password in
// their header, and with an identity token in their form.
func TestTokenRedirectLeaksNothing(t *testing.T) {
	t.Parallel()
	for _, cred := range []Credential{alice(), {Secret: secretA}} {
		for _, status := range []int{301, 302, 303, 307, 308} {
			name := fmt.Sprintf("%v, %d", cred, status)
			can := newCanary(t)
			reg, img := withImage(t, remotestest.WithUser("alice", secretA))
			remove := reg.Fault(remotestest.Tokens(), redirecting(status, can.url+"/token"))
			k := keys(cred)
			c := newPool(t, Options{Named: endpoints(t, reg.URL(), can.url), Credentials: k}).Client(endpoint(t, reg.URL()))
			for op, ask := range operations(t, img) {
				err := ask(c)
				if want := "redirects to " + can.url; err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s, %s: %v, want %q", name, op, err, want)
				}
			}
			if n := can.check(t, name); n != 0 {
				t.Errorf("%s: %d requests arrived, want none", name, n)
			}
			remove()

			// Within its origin, a redirect is followed with what it takes.
			if status == 307 || status == 308 || status != 303 && cred == alice() {
				reg.Fault(remotestest.And(remotestest.Tokens(), func(r *http.Request) bool { return !r.URL.Query().Has("moved") }),
					func(w http.ResponseWriter, r *http.Request, next http.Handler) {
						redirecting(status, "/token?moved=1&"+r.URL.RawQuery)(w, r, next)
					})
				if err := resolve(soon(t), c); err != nil {
					t.Errorf("%s: within the origin: %v", name, err)
				}
			}
		}
	}
}

// TestAnonymousTokenRedirect is followed: there is nothing to lose.
func TestAnonymousTokenRedirect(t *testing.T) {
	t.Parallel()
	can := newCanary(t)
	reg, img := withImage(t, remotestest.WithToken())
	reg.Fault(remotestest.Tokens(), remotestest.RedirectTo(can.url+"/token"))
	c := newPool(t, Options{Named: endpoints(t, reg.URL(), can.url)}).Client(endpoint(t, reg.URL()))
	for _, ask := range operations(t, img) {
		_ = ask(c) // the canary's token opens nothing
	}
	if n := can.check(t, "anonymous"); n == 0 {
		t.Error("nothing arrived")
	}
}

// TestForeignRealmLeaksNothing has a registry name the canary as its realm.
func TestForeignRealmLeaksNothing(t *testing.T) {
	t.Parallel()
	for _, cred := range []Credential{alice(), {Secret: secretA}} {
		can := newCanary(t)
		reg := naming(t, func() string { return strings.Replace(can.url, "://", "://user:password@", 1) + "/token" })
		c := newPool(t, Options{Named: endpoints(t, reg.URL(), can.url), Credentials: keys(cred)}).Client(endpoint(t, reg.URL()))
		for _, ask := range operations(t, image(1)) {
			_ = ask(c) // its token opens nothing
		}
		if n := can.check(t, cred.String()); n == 0 {
			t.Errorf("%v: nothing arrived: the test proves nothing", cred)
		}
	}
}

// TestRealmDowngrade has a registry with TLS name a realm without, which the
// configuration names, and redirect to it.
func TestRealmDowngrade(t *testing.T) {
	t.Parallel()
	for _, cred := range []Credential{alice(), {Secret: secretA}} {
		for _, redirect := range []bool{false, true} {
			can := newCanary(t)
			var reg *httptest.Server
			reg = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				switch {
				case req.URL.Path == "/token" && req.Header.Get("Authorization") == "" && req.Method == http.MethodGet:
					t.Error("the registry's own realm got no credential")
				case req.URL.Path == "/token":
					http.Redirect(w, req, can.url+"/token", http.StatusTemporaryRedirect)
				default:
					realm := can.url + "/token"
					if redirect {
						realm = reg.URL + "/token"
					}
					w.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=%q", realm))
					w.WriteHeader(http.StatusUnauthorized)
				}
			}))
			t.Cleanup(reg.Close)
			host := strings.TrimPrefix(can.url, "http://")
			p := newPool(t, Options{
				Named: endpoints(t, reg.URL, can.url), Credentials: keys(cred),
				Realms: map[string][]string{strings.TrimPrefix(reg.URL, "https://"): {host}},
			})
			p.transport.TLSClientConfig.RootCAs = reg.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
			for _, ask := range operations(t, image(1)) {
				_ = ask(p.Client(endpoint(t, reg.URL))) // its token opens nothing
			}
			if n := can.check(t, fmt.Sprintf("%v, redirect %t", cred, redirect)); redirect != (n == 0) {
				t.Errorf("%v, redirect %t: %d requests arrived", cred, redirect, n)
			}
		}
	}
}

// TestSecretsStayIn runs everything with planted secrets, through good and bad
// days, with a logger at the lowest level in the context, and looks at all
// that is said.
func TestSecretsStayIn(t *testing.T) {
	t.Parallel()
	var said strings.Builder
	var mu sync.Mutex
	say := func(format string, v any) { mu.Lock(); defer mu.Unlock(); fmt.Fprintf(&said, format+"\n", v) }
	logger := logrus.New()
	logger.SetLevel(logrus.TraceLevel)
	logger.SetOutput(writer(func(b []byte) { say("%s", b) }))
	secrets := map[string]bool{secretA: true, secretB: true, url64("alice", secretA): true, url64("bob", secretB): true}
	for _, opts := range [][]remotestest.Option{
		{remotestest.WithBasic("alice", secretA)},
		{remotestest.WithBasic("alice", secretA), remotestest.WithForbiddenExpired()},
		{remotestest.WithUser("alice", secretA)},
		{remotestest.WithUser("alice", secretA), remotestest.WithForbiddenExpired()},
	} {
		for _, cred := range []Credential{alice(), bob(), {Secret: secretA}, {Secret: secretB}} {
			for day, fault := range map[string]remotestest.FaultFunc{
				"good": nil, "forbidden": remotestest.Error(403, "DENIED", "no"), "down": remotestest.Error(500, "X", "x"),
				"cut": remotestest.Abort(), "moved": remotestest.RedirectTo("https://user:" + secretA + "@127.0.0.1:1/x?sig=" + secretB),
				"nonsense": remotestest.Status(200, nil, "<html>"),
			} {
				reg, img := withImage(t, opts...)
				if fault != nil {
					reg.Fault(remotestest.Any(), fault)
				}
				c := with(t, keys(cred, alice()), reg.URL())
				ctx := log.WithLogger(soon(t), logrus.NewEntry(logger))
				for range 2 {
					_, err := c.Resolve(ctx, "team/app", "v1")
					_, _, err2 := c.Manifest(ctx, "team/app", img.Root.Digest)
					body, _, err3 := c.Blob(ctx, "team/app", layer(img).Descriptor.Digest, 0)
					if err3 == nil {
						_, err3 = io.Copy(io.Discard, body)
						body.Close()
					}
					_, _, err4 := c.Tags(ctx, "team/app", 0, "")
					_, err5 := c.Referrers(ctx, "team/app", img.Root.Digest, "")
					for _, err := range []error{err, err2, err3, err4, err5} {
						for _, verb := range []string{"%v", "%+v", "%#v", "%q"} {
							say(verb, err)
						}
						if day == "good" && err != nil && (cred == alice() || cred.Username == "bob") {
							t.Errorf("%v on a good day: %v", cred, err)
						}
					}
					say("%+v", c)
				}
				for _, q := range reg.Requests() {
					if _, value, ok := strings.Cut(q.Header.Get("Authorization"), " "); ok {
						secrets[value] = true
					}
				}
			}
		}
	}
	if len(secrets) < 5 || !strings.Contains(said.String(), "credential of bob was refused") && !strings.Contains(said.String(), "an identity token") {
		t.Errorf("%d secrets, %d bytes: the test proves nothing", len(secrets), said.Len())
	}
	for secret := range secrets {
		if strings.Contains(said.String(), secret) {
			t.Errorf("%q was said", secret)
		}
	}
}

func url64(username, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(username + ":" + password))
}

// writer is an io.Writer.
type writer func([]byte)

func (w writer) Write(b []byte) (int, error) { w(b); return len(b), nil }
