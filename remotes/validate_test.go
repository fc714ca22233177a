package remotes

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/larder-project/larder/remotes/upstream"
)

// oneCredential is found for everything, or fails.
type oneCredential struct {
	cred upstream.Credential
	err  error
	ask  chan string
}

func (o oneCredential) Credential(_ context.Context, host, repository string) (upstream.Credential, error) {
	o.ask <- host + "/" + repository
	return o.cred, o.err
}
func (o oneCredential) Refuse(string, string, upstream.Credential) {}

func TestValidate(t *testing.T) {
	t.Parallel()
	open, down := remotestest.New(t), remotestest.New(t)
	down.Stop()
	good := oneCredential{cred: upstream.Credential{Username: "alice", Secret: "opensesame"}}
	unreadable := oneCredential{err: errors.New("open /etc/larder/secret: permission denied")}
	for name, tc := range map[string]struct {
		upstreams []*remotestest.Registry
		prefix    string
		file      string
		creds     *oneCredential
		want      []string // in the failure; nil: valid
		asked     string
	}{
		"open":       {upstreams: []*remotestest.Registry{open}},
		"down":       {upstreams: []*remotestest.Registry{down}, want: []string{down.Host(), "refused"}},
		"second one": {upstreams: []*remotestest.Registry{open, down}, want: []string{down.Host()}},
		"both down":  {upstreams: []*remotestest.Registry{down, down}, want: []string{"\n"}},
		"credential": {
			upstreams: []*remotestest.Registry{open}, prefix: "apps/", file: "/etc/larder/secret", creds: &good,
			asked: "registry.example/apps/larder/validate",
		},
		"credential of others": {upstreams: []*remotestest.Registry{open}, creds: &unreadable},
		"credential unreadable": {
			upstreams: []*remotestest.Registry{open}, file: "/etc/larder/secret", creds: &unreadable,
			want: []string{"permission denied"}, asked: "registry.example/larder/validate",
		},
		"credential absent": {
			upstreams: []*remotestest.Registry{open}, file: "/etc/larder/secret", creds: &oneCredential{},
			want: []string{"none was found"}, asked: "registry.example/larder/validate",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var eps []upstream.Endpoint
			for _, u := range tc.upstreams {
				ep, err := upstream.ParseEndpoint(u.URL() + "/mirror")
				if err != nil {
					t.Fatal(err)
				}
				eps = append(eps, ep)
			}
			pool, err := upstream.NewPool(upstream.Options{Named: eps})
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			routes, err := NewRoutes(map[string][]upstream.Endpoint{"registry.example": eps})
			if err != nil {
				t.Fatal(err)
			}
			v := Validator{Pool: pool, Routes: routes}
			ask := make(chan string, 10)
			if tc.creds != nil {
				c := *tc.creds
				c.ask = ask
				v.Credentials = c
			}
			err = v.Validate(t.Context(), Rule{
				ECRRepositoryPrefix: "team", UpstreamRegistryURL: "registry.example", UpstreamRepositoryPrefix: tc.prefix, CredentialFile: tc.file,
			})
			if (err == nil) != (tc.want == nil) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q in it", err, want)
				}
			}
			close(ask)
			if got := <-ask; got != tc.asked {
				t.Errorf("looked up %q, want %q", got, tc.asked)
			}
		})
	}
}

// TestValidatePrivate: who pulls brings the credential, so that larder needs none.
// If it has one, that must be good.
func TestValidatePrivate(t *testing.T) {
	t.Parallel()
	reg := remotestest.New(t, remotestest.WithBasic("alice", "opensesame"))
	ep, err := upstream.ParseEndpoint(reg.URL())
	if err != nil {
		t.Fatal(err)
	}
	routes, err := NewRoutes(map[string][]upstream.Endpoint{"registry.example": {ep}})
	if err != nil {
		t.Fatal(err)
	}
	none := &oneCredential{}
	wrong := &oneCredential{cred: upstream.Credential{Username: "alice", Secret: "wrong"}}
	for name, tc := range map[string]struct {
		private Privacy
		creds   *oneCredential
		valid   bool
	}{
		"verify, none":  {PrivateVerify, none, true},
		"verify, wrong": {PrivateVerify, wrong, false},
		"no, none":      {PrivateNo, none, false},
	} {
		tc.creds.ask = make(chan string, 10)
		pool, err := upstream.NewPool(upstream.Options{Named: []upstream.Endpoint{ep}, Credentials: *tc.creds})
		if err != nil {
			t.Fatal(err)
		}
		v := Validator{Pool: pool, Routes: routes, Credentials: *tc.creds}
		rule := Rule{ECRRepositoryPrefix: "team", UpstreamRegistryURL: "registry.example", Settings: Settings{Private: tc.private}}
		if err := v.Validate(t.Context(), rule); (err == nil) != tc.valid {
			t.Errorf("%s: got %v, want valid: %t", name, err, tc.valid)
		}
		pool.Close()
	}
}

func TestValidateNoHost(t *testing.T) {
	t.Parallel()
	err := Validator{}.Validate(t.Context(), Rule{ECRRepositoryPrefix: "team", UpstreamRegistryURL: "no host"})
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v", err)
	}
}
