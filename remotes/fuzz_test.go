package remotes

import (
	"regexp"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// olderPrefix is the pattern of prefixes in older copies of ECR's API model; see
// prefixText.
var olderPrefix = regexp.MustCompile(`^((?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*/?|ROOT)$`)

// FuzzPrefix: a prefix of the older grammar is one, and only two separators in a
// row are new. What is accepted makes repository names, whatever is below it.
func FuzzPrefix(f *testing.F) {
	for _, s := range []string{"a__b", "a--b", "a---b", "ghcr.io", "mirror/docker.io", "a/b/", "ROOT", "Quay", "-x", "root", "a", "a..b", "a___b", "a_-b", "a//b", "/a", "a\n", "é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		err := rulePrefix("prefix", s)
		if err != nil && !errdefs.IsInvalidArgument(err) {
			t.Fatalf("%q: error of no kind: %v", s, err)
		}
		if len(s) < minRulePrefix || len(s) > maxRulePrefix {
			if err == nil {
				t.Fatalf("%q: %d characters are accepted", s, len(s))
			}
			return
		}
		older := olderPrefix.MatchString(s)
		if older && err != nil {
			t.Fatalf("%q: of the older grammar, refused: %v", s, err)
		}
		if err != nil {
			return
		}
		if !older && !strings.Contains(s, "__") && !strings.Contains(s, "--") {
			t.Fatalf("%q: not of the older grammar, and not for two separators in a row", s)
		}
		if err := checkPath(matchedPrefix(s) + "x"); err != nil {
			t.Fatalf("%q: not the beginning of a repository name: %v", s, err)
		}
	})
}

// FuzzRules: whatever is asked of two rules, a mapped path is below the rule
// that mapped it, aligned to segments, by the longest prefix; the rule leads back
// from the repository to the path; and the repository has a policy, that of a
// rule which covers it.
func FuzzRules(f *testing.F) {
	f.Add("docker-hub", "", "docker-hub/library", "org", "docker-hub/library/nginx")
	f.Add("my-app", "upstream-app", "ROOT", "", "my-application/image1")
	f.Add("team-a/", "team-a/", "team-a/b", "ROOT", "team-a/b")
	f.Add("ROOT", "ROOT", "root", "a__b", "root/x")
	f.Fuzz(func(t *testing.T, firstPrefix, firstUpstream, secondPrefix, secondUpstream, path string) {
		rules, err := NewRules([]Rule{
			{ECRRepositoryPrefix: firstPrefix, UpstreamRegistryURL: "first.example", UpstreamRepositoryPrefix: firstUpstream, Settings: marked(1)},
			{ECRRepositoryPrefix: secondPrefix, UpstreamRegistryURL: "second.example", UpstreamRepositoryPrefix: secondUpstream, Settings: marked(2)},
		}, false)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) && !errdefs.IsAlreadyExists(err) {
				t.Fatalf("error of no kind: %v", err)
			}
			return
		}
		repo, rule, err := rules.Map(path)
		if errdefs.IsNotFound(err) {
			for _, r := range rules.All() {
				if r.ECRRepositoryPrefix == Root && path != "" || path != r.prefix() && strings.HasPrefix(path, r.prefix()) {
					t.Fatalf("%q is below %q and not mapped", path, r.ECRRepositoryPrefix)
				}
			}
			return
		}
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Fatalf("error of no kind: %v", err)
			}
			return
		}
		checkMapped(t, rules, repo, rule, path)
	})
}

func checkMapped(t *testing.T, rules Rules, repo Repository, rule Rule, path string) {
	t.Helper()
	if again, err := NewRepository(repo.Host, repo.Path); err != nil || again != repo {
		t.Fatalf("%q: %v is not canonical: %v, %v", path, repo, again, err)
	}
	prefix := strings.TrimSuffix(rule.ECRRepositoryPrefix, "/")
	if prefix != Root && !(strings.HasPrefix(path, prefix+"/") && len(path) > len(prefix)+1) {
		t.Fatalf("%q was mapped by %q", path, rule.ECRRepositoryPrefix)
	}
	for _, r := range rules.All() {
		if len(r.prefix()) > len(rule.prefix()) && strings.HasPrefix(path, r.prefix()) && path != r.prefix() {
			t.Fatalf("%q was mapped by %q and not by %q", path, rule.ECRRepositoryPrefix, r.ECRRepositoryPrefix)
		}
	}
	if back, ok := rule.local(repo.Path); !ok || back != path {
		t.Fatalf("%q became %v, and that %q, %t", path, repo, back, ok)
	}
	policies, err := NewPolicies(Policy{}).WithRules(rules, []Template{{Prefix: Root}})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := policies.For(repo).Window, *rule.Settings.Window; got != want {
		t.Fatalf("%v has the policy of rule %s, want %s", repo, got, want)
	}
}

// FuzzParseName: what reads as a stored name is written as it was read.
func FuzzParseName(f *testing.F) {
	for _, s := range []string{"docker.io/a:1", "quay.io/a@" + emptyDigest.String(), "quay.io/a:b@" + emptyDigest.String(), "[::1]:5000/a:b", "localhost:5000/a", "a.b/c:d:e", "a.b/c@"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := parseName(s)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Fatalf("%q: error of no kind: %v", s, err)
			}
			return
		}
		if ref.String() != s {
			t.Fatalf("%q reads as %v", s, ref)
		}
		if again, err := parseName(ref.name()); err != nil || again.Repository != ref.Repository {
			t.Fatalf("%q: the name in the store is %q, which reads as %v, %v", s, ref.name(), again, err)
		}
	})
}
