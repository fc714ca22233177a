package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// The one who may pull from the registries of these tests.
const (
	puller         = "ada"
	pullerPassword = "c4n4ry-of-ada-7f31b2"
)

// seed puts images into the files of a registry that runs under dir later.
func (b *bench) seed(dir string, images map[string]remotestest.Image) {
	b.t.Helper()
	err := parts.SeedRegistry(b.t.Context(), b.bin, dir, func(base string) error {
		for name, img := range images {
			repository, tag, _ := strings.Cut(name, ":")
			if err := remotestest.Push(b.t.Context(), base, repository, tag, img); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// tokenRegistry starts a registry that lets only the puller have what is below
// team.
func (b *bench) tokenRegistry(images map[string]remotestest.Image) *parts.TokenRegistry {
	b.t.Helper()
	dir := filepath.Join(b.dir, "tokens")
	b.seed(dir, images)
	r, err := parts.StartTokenRegistry(b.t.Context(), b.bin, dir, parts.TokenOptions{
		Users: map[string]string{puller: pullerPassword}, Grants: map[string][]string{puller: {"team/*"}},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.cleanup(r.Close)
	b.logOnFailure("registry", r.Log)
	return r
}

// trustTokens is config for a registry without TLS, and for its token service
// at another address.
func trustTokens(r *parts.TokenRegistry) string {
	return fmt.Sprintf("[upstream]\nprivate = [%q]\n", r.Tokens.URL()) + trustRealm(r.Host(), r) + routeFor(r.Host(), r.URL())
}

// trustRealm is config that has a host's credential go to the token service.
func trustRealm(host string, r *parts.TokenRegistry) string {
	return fmt.Sprintf("[[upstream.hosts]]\nhost = %q\nrealms = [%q]\n", host, r.Tokens.Addr())
}

// privateRule is a rule for the prefix priv with one more key.
func privateRule(host, key, value string) string {
	return fmt.Sprintf("[[rules]]\necr_repository_prefix = \"priv\"\nupstream_registry_url = %q\n%s = %q\n", host, key, value)
}

// secretText is a secret as ECR keeps it.
func secretText(t *testing.T, user, token string) string {
	t.Helper()
	text, err := json.Marshal(map[string]string{"username": user, "accessToken": token})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// write makes a file that only its owner reads.
func (b *bench) write(name, text string) (path string) {
	b.t.Helper()
	path = filepath.Join(b.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return path
}

// aws starts the stand-in for AWS.
func (b *bench) aws() *parts.AWS {
	b.t.Helper()
	a, err := parts.StartAWS()
	if err != nil {
		b.t.Fatal(err)
	}
	b.cleanup(a.Close)
	b.logOnFailure("refusals of the AWS stand-in", func() string { return strings.Join(a.Refused(), "\n") })
	return a
}

// afterwards runs a check at the end of the test, if it has not failed.
func (b *bench) afterwards(check func()) {
	b.t.Cleanup(func() {
		if !b.t.Failed() {
			check()
		}
	})
}

func (b *bench) dockerConfig(auths, helpers, identities map[string]string) string {
	b.t.Helper()
	file, err := parts.WriteDockerConfig(b.dir, auths, helpers, identities)
	if err != nil {
		b.t.Fatal(err)
	}
	return fmt.Sprintf("[credentials]\ndocker_config = %q\n", file)
}
