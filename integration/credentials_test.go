package integration

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// source is one place where larder finds a credential for a registry.
type source struct {
	// config for a registry at host, and the daemon's environment.
	config func(b *bench, host string) (text string, env []string)
	// local is set if the image is to be named by the rule's prefix.
	local bool
}

func credentialSources() map[string]source {
	return map[string]source{
		"credential_file": {local: true, config: func(b *bench, host string) (string, []string) {
			return privateRule(host, "credential_file", b.write("secret.json", secretText(b.t, puller, pullerPassword))), nil
		}},
		"credential_arn": {local: true, config: func(b *bench, host string) (string, []string) {
			a := b.aws()
			arn := a.AddSecret("ecr-pullthroughcache/team", secretText(b.t, puller, pullerPassword))
			return privateRule(host, "credential_arn", arn), a.Env()
		}},
		"docker auths": {config: func(b *bench, host string) (string, []string) {
			auth := base64.StdEncoding.EncodeToString([]byte(puller + ":" + pullerPassword))
			return b.dockerConfig(map[string]string{host: auth}, nil, nil), nil
		}},
		"docker credHelpers": {config: func(b *bench, host string) (string, []string) {
			helper, err := parts.NewCredentialHelper(b.dir, "larder-test", puller, pullerPassword)
			if err != nil {
				b.t.Fatal(err)
			}
			env := []string{"PATH=" + helper.Dir + string(os.PathListSeparator) + os.Getenv("PATH")}
			b.afterwards(func() {
				if n := len(helper.Calls()); n != 1 {
					b.t.Errorf("the helper was called %d times, want 1: %q", n, helper.Calls())
				}
			})
			return b.dockerConfig(nil, map[string]string{host: "larder-test"}, nil), env
		}},
		"kubelet plugin": {config: func(b *bench, host string) (string, []string) {
			p, err := parts.NewCredentialProvider(b.dir, host, host, "6h", puller, pullerPassword)
			if err != nil {
				b.t.Fatal(err)
			}
			b.afterwards(func() {
				if n := len(p.Calls()); n != 1 {
					b.t.Errorf("the plugin was called %d times, want 1: %q", n, p.Calls())
				}
			})
			return fmt.Sprintf("[credentials]\nkubelet_config = %q\nkubelet_bin_dir = %q\n", p.Config, p.Dir), nil
		}},
	}
}

// A pod without a pull secret gets a private image, because larder has the
// credential: from each source, by containerd and by larder's own verb.
func TestCredentialSources(t *testing.T) {
	t.Parallel()
	for name, src := range credentialSources() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "larder", "containerd", "ctr", "registry")
			r := b.tokenRegistry(map[string]remotestest.Image{
				"team/app:1":   remotestest.Build(remotestest.ImageSpec{Seed: 600, Layers: []int64{100_000}}),
				"team/other:1": remotestest.Build(remotestest.ImageSpec{Seed: 601}),
			})
			config, env := src.config(b, r.Host())
			base := r.Host()
			if src.local {
				base = "localhost/priv"
			}
			l := b.larder(trustTokens(r)+config, env...)
			certs := b.certs(l)
			c := b.containerd(certs, false)
			ctr(t, c, pullArgs(base+"/team/app:1", certs, false)...)
			run(t, l, "pull", base+"/team/other:1")

			count := r.Tokens.Count()
			if count.User == 0 || count.Refused != 0 {
				t.Errorf("token service: %+v, want tokens for %s and no refusal", count, puller)
			}
			checkShown(t, r)
		})
	}
}

// checkShown fails if the registry saw a password, which is for the token service.
func checkShown(t *testing.T, r *parts.TokenRegistry) {
	t.Helper()
	for _, e := range r.Exchanges() {
		if a := e.Header.Get("Authorization"); a != "" && !strings.HasPrefix(a, "Bearer ") {
			t.Errorf("%s %s showed the registry %.6s…, want a Bearer token or nothing", e.Method, e.Path, a)
		}
	}
}

// Without any source the same pulls fail, so TestCredentialSources proves
// something.
func TestControlNoCredential(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder", "containerd", "ctr", "registry")
	r := b.tokenRegistry(map[string]remotestest.Image{"team/app:1": remotestest.Build(remotestest.ImageSpec{Seed: 600})})
	l := b.larder(trustTokens(r))
	certs := b.certs(l)
	c := b.containerd(certs, false)
	if _, err := c.Ctr(t.Context(), pullArgs(r.Host()+"/team/app:1", certs, false)...); err == nil {
		t.Error("ctr got the private image without a credential")
	}
	if out, err := l.Run(t.Context(), "pull", r.Host()+"/team/app:1"); err == nil {
		t.Errorf("larder pull got the private image without a credential: %s", out)
	}
	if got := r.Tokens.Count(); got.Anonymous == 0 || got.User != 0 {
		t.Errorf("token service: %+v, want anonymous tokens only", got)
	}
}

// A token service that the registry names and the configuration does not, at
// another address, gets no password: anybody could name one.
func TestCredentialOnlyForNamedRealms(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder", "registry")
	r := b.tokenRegistry(map[string]remotestest.Image{"team/app:1": remotestest.Build(remotestest.ImageSpec{Seed: 605})})
	file := b.write("secret.json", secretText(t, puller, pullerPassword))
	l := b.larder(fmt.Sprintf("[upstream]\nprivate = [%q]\n", r.Tokens.URL()) + routeFor(r.Host(), r.URL()) +
		privateRule(r.Host(), "credential_file", file))
	_, err := l.Run(t.Context(), "pull", "localhost/priv/team/app:1")
	if err == nil || !strings.Contains(err.Error(), r.Tokens.Addr()) {
		t.Errorf("got %v, want an error that names the token service %s", err, r.Tokens.Addr())
	}
	if got := r.Tokens.Count(); got.Anonymous == 0 || got.User+got.Refused != 0 {
		t.Errorf("token service: %+v, want anonymous tokens only", got)
	}
}

// The kubelet's way, and what docker login stores instead of a password: an
// identity token, for which token services are asked by POST.
func TestIdentityTokenByCRI(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder", "containerd", "registry")
	r := b.tokenRegistry(map[string]remotestest.Image{"team/app:1": remotestest.Build(remotestest.ImageSpec{Seed: 602})})
	l := b.larder(trustTokens(r) + b.dockerConfig(nil, nil, map[string]string{r.Host(): r.Tokens.Identity(puller)}))
	c := b.containerd(b.certs(l), true)
	criPull(t, imageService(t, c), r.Host()+"/team/app:1")
	posts := 0
	for _, s := range r.Tokens.Seen() {
		if s.Method == http.MethodPost && s.Status == http.StatusOK {
			posts++
		}
	}
	if posts == 0 {
		t.Errorf("the token service was not asked by POST: %+v", r.Tokens.Count())
	}
}

// A password that changes: larder says who refused, not what; it takes the new
// one from the file without a restart.
func TestCredentialFileChanges(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder", "registry")
	r := b.tokenRegistry(map[string]remotestest.Image{"team/app:1": remotestest.Build(remotestest.ImageSpec{Seed: 603})})
	file := b.write("secret.json", secretText(t, puller, "wr0ng-canary"))
	l := b.larder(trustTokens(r) + privateRule(r.Host(), "credential_file", file))
	_, err := l.Run(t.Context(), "pull", "localhost/priv/team/app:1")
	if err == nil {
		t.Fatal("the wrong password was good")
	}
	if strings.Contains(err.Error(), "wr0ng-canary") || !strings.Contains(err.Error(), r.Host()) {
		t.Errorf("the error is to name %s and not the password: %v", r.Host(), err)
	}
	if n := r.Tokens.Count().Refused; n == 0 || n > 4 {
		t.Errorf("the wrong password was tried %d times, want it tried and not repeated", n)
	}
	b.write("secret.json", secretText(t, puller, pullerPassword))
	eventually(t, "a pull with the new password", func() bool {
		_, err := l.Run(t.Context(), "pull", "localhost/priv/team/app:1")
		return err == nil
	})
}
