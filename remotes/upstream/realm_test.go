package upstream

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
)

// TestRealmTrust is the table of which token service may see a credential.
func TestRealmTrust(t *testing.T) {
	t.Parallel()
	named := map[string][]string{"registry.example": {"login.other.example", "port.other.example:8443", "10.0.0.1"}, "else.example": {"evil.example"}}
	for _, tc := range []struct {
		registry, realm string
		want            bool
	}{
		{"https://registry-1.docker.io", "https://auth.docker.io/token", true},
		{"https://registry-1.docker.io", "https://AUTH.Docker.IO:443/token", true},
		{"https://registry.gitlab.com", "https://gitlab.com/jwt/auth", true},
		{"https://gitlab.com", "https://registry.gitlab.com/jwt/auth", true},
		{"https://registry.example", "https://registry.example/token", true},
		{"https://registry.example", "https://registry.example:443/token", true},
		{"https://registry.example:5000", "https://registry.example:5001/token", true}, // its own domain
		{"https://registry.example", "http://registry.example/token", false},
		{"https://registry.example:80", "http://registry.example/token", false},
		{"https://registry-1.docker.io", "http://auth.docker.io/token", false},
		{"http://registry.example", "http://registry.example/token", true},
		{"http://registry.example", "https://registry.example/token", true},
		{"https://registry-1.docker.io", "https://auth.docker.io.evil.example/token", false},
		{"https://registry-1.docker.io", "https://evildocker.io/token", false},
		{"https://registry-1.docker.io", "https://docker.com/token", false},
		{"https://a.co.uk", "https://b.co.uk/token", false},
		{"https://alice.github.io", "https://mallory.github.io/token", false},
		{"https://github.io", "https://mallory.github.io/token", false},
		{"https://registry", "https://registry/token", true},
		{"https://registry", "https://auth/token", false},
		{"https://localhost:5000", "https://localhost:5001/token", false},
		{"https://10.1.2.3:5000", "https://10.1.2.3:5000/token", true},
		{"https://10.1.2.3:5000", "https://10.1.2.3:5001/token", false},
		{"https://10.1.2.3", "https://9.1.2.3/token", false},
		{"https://[2001:db8::1]:5000", "https://[2001:db8::1]:5000/token", true},
		{"https://[2001:db8::1]:5000", "https://[2001:db8::2]:5000/token", false},
		{"https://registry.docker.io", "https://auth.döcker.docker.io/token", false},
		{"https://registry.docker.io", "https://auth.evil.example%EF%BC%8F.docker.io/token", false}, // a slash of another width
		{"https://registry.example", "https://login.other.example/token", true},
		{"https://registry.example", "https://LOGIN.other.example:443/token", true},
		{"https://registry.example:443", "https://login.other.example/token", true},
		{"https://registry.example", "http://login.other.example/token", false},
		{"https://registry.example", "https://login.other.example:8443/token", false},
		{"https://registry.example", "https://port.other.example:8443/token", true},
		{"https://registry.example", "https://port.other.example/token", false},
		{"https://registry.example", "https://other.example/token", false},
		{"https://registry.example", "https://10.0.0.1/token", true},
		{"https://registry.example", "https://evil.example/token", false},
		{"https://registry.example:5000", "https://login.other.example/token", false},
	} {
		realm, err := url.Parse(tc.realm)
		if err != nil {
			t.Fatal(err)
		}
		ep := Endpoint{Scheme: strings.Split(tc.registry, ":")[0], Host: strings.SplitN(tc.registry, "/", 3)[2]}
		if got := newRealms(ep, named).trusts(realm); got != tc.want {
			t.Errorf("%s names %s: trusted %t, want %t", tc.registry, tc.realm, got, tc.want)
		}
	}
}

// naming is a registry that takes a token of another's token service, and
// challenges with its URL.
func naming(t *testing.T, realm func() string) *remotestest.Registry {
	t.Helper()
	reg, _ := withImage(t)
	reg.Fault(remotestest.Any(), func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if strings.HasPrefix(req.Header.Get("Authorization"), "Bearer personal") {
			next.ServeHTTP(w, req)
			return
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=%q,service=s", realm()))
		w.WriteHeader(http.StatusUnauthorized)
	})
	return reg
}

// TestForeignRealm has a token service that is not of the registry's domain:
// it is asked anonymously, until the configuration names it.
func TestForeignRealm(t *testing.T) {
	t.Parallel()
	service := remotestest.New(t, remotestest.WithUser("alice", secretA))
	reg := naming(t, func() string { return service.URL() + "/token" })
	img := image(1)
	for op, ask := range operations(t, img) {
		for _, cred := range []Credential{alice(), {Secret: secretA}} {
			service.ResetRequests()
			k := keys(cred)
			o := Options{Named: endpoints(t, reg.URL(), service.URL()), Credentials: k}
			c := newPool(t, o).Client(endpoint(t, reg.URL()))
			for range 2 {
				e := failure(t, ask(c), errdefs.ErrPermissionDenied)
				for _, want := range []string{"the credential was withheld from " + service.Host(), "realms of [[upstream.hosts]]"} {
					if !strings.Contains(e.Error(), want) {
						t.Errorf("%s: %v, want %q", op, e, want)
					}
				}
			}
			for _, q := range service.Requests() {
				if q.Method != http.MethodGet || q.Header.Get("Authorization") != "" {
					t.Errorf("%s: the token service got a %s with %q", op, q.Method, q.Header.Get("Authorization"))
				}
			}
			if len(service.Requests()) == 0 || len(k.refusals()) != 0 {
				t.Errorf("%s: %d token requests, refused %v, want some, and nobody", op, len(service.Requests()), k.refusals())
			}
			// The token service itself refuses.
			remove := service.Fault(remotestest.Tokens(), remotestest.Error(401, "UNAUTHORIZED", "who?"))
			e := failure(t, ask(c), errdefs.ErrPermissionDenied)
			if !strings.Contains(e.Error(), "no token: the credential was withheld from "+service.Host()) {
				t.Errorf("%s: %v, want that the credential was withheld", op, e)
			}
			remove()

			o.Realms = map[string][]string{reg.Host(): {service.Host()}}
			if err := ask(newPool(t, o).Client(endpoint(t, reg.URL()))); err != nil {
				t.Errorf("%s, when it is named: %v", op, err)
			}
		}
	}
}
