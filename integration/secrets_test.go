package integration

import (
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// canaries are secret texts, and where each is from.
type canaries map[string]string

// found names the secrets that a text has, plainly or in base64. What was
// encoded with something before it begins at any of three places in a group.
func (c canaries) found(text string) []string {
	var hits []string
	for secret, from := range c {
		for form, needle := range forms(secret) {
			if strings.Contains(text, needle) {
				hits = append(hits, from+" "+form)
			}
		}
	}
	return hits
}

// forms are the ways in which a secret may stand in a text.
func forms(secret string) map[string]string {
	all := map[string]string{"plainly": secret, "escaped for URLs": url.QueryEscape(secret)}
	for pad := range 3 {
		// Only the groups that nothing but the secret determines.
		enc := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("x", pad) + secret))
		begin := []int{0, 2, 3}[pad]
		end := len(enc) - []int{0, 2, 1}[(pad+len(secret))%3]
		if end-begin < 8 {
			continue
		}
		needle := enc[begin:end]
		all[fmt.Sprintf("in base64, offset %d", pad)] = needle
		all[fmt.Sprintf("in base64 for URLs, offset %d", pad)] = strings.NewReplacer("+", "-", "/", "_").Replace(needle)
	}
	return all
}

// The search finds what is there: else TestNoSecretAnywhere proves nothing.
func TestControlCanariesAreFound(t *testing.T) {
	t.Parallel()
	for _, secret := range []string{"c4n4ry-one", "c4n4ry-of-2", "c4n4ry/of+33"} {
		c := canaries{secret: "it"}
		for _, before := range []string{"", "a", "ab", "abc", "user:", "AWS:"} {
			for _, after := range []string{"", "x", "yz"} {
				plain := before + secret + after
				for form, text := range map[string]string{
					"plain": plain, "base64": base64.StdEncoding.EncodeToString([]byte(plain)),
					"base64 for URLs": base64.URLEncoding.EncodeToString([]byte(plain)), "query": url.QueryEscape(plain),
				} {
					if len(c.found("some "+text+" text")) == 0 {
						t.Errorf("%s of %q was not found", form, plain)
					}
				}
			}
		}
		if hits := c.found("a text without it: c4n4ry"); len(hits) != 0 {
			t.Errorf("found what is not there: %q", hits)
		}
	}
}

// With debug logs, and while everything that can go wrong with credentials does,
// none of them is in what larder writes: logs, the words of its verbs, its store.
func TestNoSecretAnywhere(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder", "registry")
	s := b.ecr("")
	r := b.tokenRegistry(map[string]remotestest.Image{
		"team/app:1": remotestest.Build(remotestest.ImageSpec{Seed: 700}),
		"open/app:1": remotestest.Build(remotestest.ImageSpec{Seed: 701}),
	})
	s.push(t, "team/app", "1", remotestest.Build(remotestest.ImageSpec{Seed: 702}))
	plant := b.plant(s, r)
	l := b.larder("log.level = \"debug\"\n"+plant.config, plant.env...)

	var said []string
	say := func(args ...string) error {
		out, err := l.Run(t.Context(), args...)
		said = append(said, fmt.Sprintf("larder %s\n%s\n%v", strings.Join(args, " "), out, err))
		return err
	}
	must := func(args ...string) {
		t.Helper()
		if err := say(args...); err != nil {
			t.Errorf("this is to work: %v", err)
		}
	}
	mustFail := func(args ...string) {
		t.Helper()
		if err := say(args...); err == nil {
			t.Errorf("larder %s: did not fail", strings.Join(args, " "))
		}
	}
	must("pull", ecrImage)
	must("pull", "localhost/priv/team/app:1")
	for _, repository := range plant.refused {
		mustFail("pull", "localhost/"+repository+":1")
		said = append(said, "GET "+repository+"\n"+get(t, l.URL+"/v2/"+repository+"/manifests/1?ns=localhost").start)
	}
	plant.checkReached(t, s, r)
	s.aws.RevokeTokens()
	s.aws.Fail(parts.OpGetAuthorizationToken, parts.AWSAccessDenied)
	mustFail("refresh", ecrImage)
	mustFail("pull", "--json", "localhost/priv/team/absent:1")
	for _, args := range [][]string{
		{"config", "dump"}, {"config", "check"}, {"ls", "--json"}, {"show", "--json", ecrImage}, {"show", ecrImage},
		{"status", "--json"}, {"status"}, {"rules", "ls", "--json"}, {"rules", "ls"},
	} {
		must(args...)
	}
	_ = say("rules", "validate", "--json") // fails for the wrong ones, and says why
	_ = say("rules", "validate")
	_ = say("rules", "import")

	all := plant.canaries(s, r)
	report := func(where, text string) {
		for _, hit := range all.found(text) {
			t.Errorf("%s: %s", where, hit)
		}
	}
	for _, text := range said {
		where, _, _ := strings.Cut(text, "\n")
		report("the words of "+where, text)
	}
	log := l.Log()
	if !strings.Contains(log, "DEBUG") {
		t.Error("the log has no debug line, so this test proves little")
	}
	report("the log", log)
	n := 0
	err := filepath.WalkDir(l.Root(), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		n++
		report("the name "+path, path)
		data, err := os.ReadFile(path)
		report("the file "+path, string(data))
		return err
	})
	if err != nil || n < 4 {
		t.Errorf("the store has %d files, %v, want those of two images", n, err)
	}
}

// plant is config with a secret in every source, and the images that are refused
// in as many ways.
type plant struct {
	config  string
	env     []string
	planted map[string]string // secret to where it is
	refused []string          // repositories below localhost
	helper  *parts.Program
	kubelet *parts.CredentialProvider
}

// checkReached fails if a source was not asked: its secret could not leak then.
func (p *plant) checkReached(t *testing.T, s *ecrSite, r *parts.TokenRegistry) {
	t.Helper()
	if len(p.helper.Calls()) == 0 || len(p.kubelet.Calls()) == 0 {
		t.Errorf("the helper was called for %q, the plugin for %q, want both", p.helper.Calls(), p.kubelet.Calls())
	}
	if n := s.aws.Count(parts.OpGetSecretValue); n < 2 {
		t.Errorf("Secrets Manager was asked %d times, want for 2 secrets", n)
	}
	// The wrong password, that of docker's config, of the ARN, and the identity token.
	if n := r.Tokens.Count().Refused; n < 4 {
		t.Errorf("the token service refused %d requests, want at least 4", n)
	}
}

// plant configures a source of each kind. Those of the look-alike and of the
// prefix priv are right; the rest fail, with the secret in what went wrong.
func (b *bench) plant(s *ecrSite, r *parts.TokenRegistry) *plant {
	b.t.Helper()
	p := &plant{planted: map[string]string{pullerPassword: "credential_file"}}
	secret := func(from string) string {
		text := "c4n4ry-" + strings.ReplaceAll(from, " ", "-") + "-0ddba11"
		p.planted[text] = from
		return text
	}
	rule := func(prefix, under, key, value string) {
		p.refused = append(p.refused, prefix+"/team/app")
		p.config += fmt.Sprintf("[[rules]]\necr_repository_prefix = %q\nupstream_registry_url = %q\nupstream_repository_prefix = %q\n%s = %q\n",
			prefix, r.Host(), under, key, value)
	}
	auth := base64.StdEncoding.EncodeToString([]byte("bob:" + secret("docker auths")))
	helper, err := parts.NewCredentialHelper(b.dir, "larder-test", "bob", secret("credHelpers"))
	if err != nil {
		b.t.Fatal(err)
	}
	if err := helper.Fail("cannot use " + secret("stderr of the helper")); err != nil {
		b.t.Fatal(err)
	}
	// Each of these registries is the same one at an address of its own.
	host := func(prefix string) string {
		m, err := parts.NewMeter(r.URL())
		if err != nil {
			b.t.Fatal(err)
		}
		b.cleanup(m.Close)
		p.config += trustRealm(m.Host(), r) + routeFor(m.Host(), m.URL()) +
			fmt.Sprintf("[[rules]]\necr_repository_prefix = %q\nupstream_registry_url = %q\n", prefix, m.Host())
		p.refused = append(p.refused, prefix+"/team/app")
		return m.Host()
	}
	p.config = trustTokens(r) + s.hosts()
	provider, err := parts.NewCredentialProvider(b.dir, host("kubelet"), "kubelet.test", "6h", "bob", secret("kubelet plugin"))
	if err != nil {
		b.t.Fatal(err)
	}
	if err := provider.Answer(`{"auth": "` + secret("bad JSON of the plugin")); err != nil {
		b.t.Fatal(err)
	}
	docker, err := parts.WriteDockerConfig(b.dir, map[string]string{
		host("auths"): auth, host("broken"): base64.StdEncoding.EncodeToString([]byte(secret("auth without a user"))),
	}, map[string]string{host("helper"): "larder-test"}, map[string]string{host("identity"): secret("identity token")})
	if err != nil {
		b.t.Fatal(err)
	}
	p.helper, p.kubelet = helper, provider
	p.config += fmt.Sprintf("[credentials]\necr = true\ndocker_config = %q\nkubelet_config = %q\nkubelet_bin_dir = %q\n",
		docker, provider.Config, provider.Dir)
	p.config += privateRule(r.Host(), "credential_file", b.write("secret.json", secretText(b.t, puller, pullerPassword)))
	rule("wrong", "wrong", "credential_file", b.write("wrong.json", secretText(b.t, puller, secret("wrong password"))))
	rule("nojson", "nojson", "credential_file", b.write("nojson.json", `{"username":"bob","accessToken":"`+secret("bad JSON of credential_file")))
	rule("arn", "arn", "credential_arn", s.aws.AddSecret("ecr-pullthroughcache/x", secretText(b.t, "bob", secret("credential_arn"))))
	rule("badarn", "badarn", "credential_arn", s.aws.AddSecret("ecr-pullthroughcache/y", "no JSON but "+secret("bad JSON of credential_arn")))
	p.env = append(s.env(), "PATH="+helper.Dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	return p
}

// canaries are all secrets that were planted or made on the way.
func (p *plant) canaries(s *ecrSite, r *parts.TokenRegistry) canaries {
	all := canaries{}
	for secret, from := range p.planted {
		all[secret] = from
	}
	for _, secret := range s.aws.Secrets() {
		all[secret] = "AWS"
	}
	for _, token := range r.Tokens.Issued() {
		all[token] = "registry token"
	}
	return all
}
