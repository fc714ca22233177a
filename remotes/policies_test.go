package remotes

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// marked are settings that a test knows again by their window.
func marked(minutes int) Settings {
	window := time.Duration(minutes) * time.Minute
	return Settings{Window: &window}
}

func repository(t testing.TB, name string) Repository {
	t.Helper()
	ref, err := parseName(name)
	if err != nil {
		t.Fatal(err)
	}
	return ref.Repository
}

// Which rule governs a repository: the one of its upstream with the longest
// upstream prefix, then the longest local one, then the first in the file. What
// the client typed does not matter.
func TestGoverningRule(t *testing.T) {
	t.Parallel()
	policies := newPolicies(t, []Rule{
		{ECRRepositoryPrefix: "hub", UpstreamRegistryURL: "registry-1.docker.io", Settings: marked(1)},
		{ECRRepositoryPrefix: "quay", UpstreamRegistryURL: "quay.io", Settings: marked(2)},
		{ECRRepositoryPrefix: "aa", UpstreamRegistryURL: "quay.io", UpstreamRepositoryPrefix: "org", Settings: marked(3)},
		{ECRRepositoryPrefix: "bbb", UpstreamRegistryURL: "quay.io", UpstreamRepositoryPrefix: "org/", Settings: marked(4)},
		{ECRRepositoryPrefix: "ccc", UpstreamRegistryURL: "quay.io", UpstreamRepositoryPrefix: "org", Settings: marked(5)},
		{ECRRepositoryPrefix: "deep", UpstreamRegistryURL: "quay.io", UpstreamRepositoryPrefix: "org/team", Settings: marked(6)},
	})
	for name, want := range map[string]int{
		"docker.io/library/nginx": 1,
		"quay.io/x":               2,
		"quay.io/org":             2, // not below the prefix
		"quay.io/organ/x":         2, // nor is this
		"quay.io/org/x":           4,
		"quay.io/org/team/x":      6,
		"quay.io/org/team":        4,
		"ghcr.io/org/x":           0,
		"quay.io:8443/org/x":      0, // another registry host
	} {
		if got := policies.For(repository(t, name)).Window; got != time.Duration(want)*time.Minute {
			t.Errorf("%s: the policy is that of rule %d, want %d", name, int(got/time.Minute), want)
		}
	}
}

// A built-in rule to the same upstream has the longer prefix, and says nothing.
func TestConfiguredRuleGoesBeforeBuiltin(t *testing.T) {
	t.Parallel()
	rules, err := NewRules([]Rule{{ECRRepositoryPrefix: "hub", UpstreamRegistryURL: "docker.io", Settings: Settings{Deny: []string{"evil"}}}}, true)
	if err != nil {
		t.Fatal(err)
	}
	policies, err := NewPolicies(Policy{}).WithRules(rules, []Template{{Prefix: "docker-hub/library", Settings: marked(1)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := policies.Permit(repository(t, "docker.io/evil")); err == nil {
		t.Error("the configured rule's deny does not hold")
	}
	if got := policies.For(repository(t, "docker.io/library/x")).Window; got != time.Minute {
		t.Errorf("the template below the built-in prefix does not hold: window %s", got)
	}
}

// All forms of a name lead to one repository and so to one policy.
func TestThreeFormsOnePolicy(t *testing.T) {
	t.Parallel()
	rules, err := NewRules([]Rule{{ECRRepositoryPrefix: "docker-hub", UpstreamRegistryURL: "registry-1.docker.io", Settings: Settings{Mode: ModeOffline}}}, true)
	if err != nil {
		t.Fatal(err)
	}
	policies, err := NewPolicies(Policy{}).WithRules(rules, []Template{{Prefix: "docker-hub/library", Settings: marked(7)}})
	if err != nil {
		t.Fatal(err)
	}
	n := Names{Rules: rules, Own: map[string]bool{"localhost": true}}
	for _, form := range [][2]string{
		{"docker.io", "library/nginx"}, {"registry-1.docker.io", "library/nginx"}, {"", "docker-hub/library/nginx"},
		{"localhost", "docker-hub/library/nginx"}, {ecrRegistry, "docker-hub/library/nginx"},
	} {
		repo, err := n.Map(form[0], form[1])
		if err != nil {
			t.Fatal(err)
		}
		if p := policies.For(repo); p.Mode != ModeOffline || p.Window != 7*time.Minute {
			t.Errorf("%v: got %+v, want the rule's mode and the template's window", form, p)
		}
	}
}

// Which template holds: the longest prefix, of local names and of stored ones,
// aligned to path segments; ROOT where no other does.
func TestTemplateChoice(t *testing.T) {
	t.Parallel()
	policies := newPolicies(t, []Rule{
		{ECRRepositoryPrefix: "docker-hub", UpstreamRegistryURL: "registry-1.docker.io"},
		{ECRRepositoryPrefix: "mirror/quay", UpstreamRegistryURL: "quay.io"},
		{ECRRepositoryPrefix: "team", UpstreamRegistryURL: "quay.io", UpstreamRepositoryPrefix: "org/team"},
		{ECRRepositoryPrefix: "very/long/local/prefix", UpstreamRegistryURL: "ghcr.io"},
	},
		Template{Prefix: Root, Settings: marked(1)},
		Template{Prefix: "docker-hub", Settings: marked(2)},
		Template{Prefix: "docker-hub/library/", Settings: marked(3)},
		Template{Prefix: "registry-1.docker.io/library/nginx", Settings: marked(4)},
		Template{Prefix: "mirror", Settings: marked(5)},
		Template{Prefix: "team/a", Settings: marked(6)},
		Template{Prefix: "quay.io/org", Settings: marked(7)},
		Template{Prefix: "very/long/local/prefix", Settings: marked(8)},
		Template{Prefix: "ghcr.io/owner", Settings: marked(9)},
		Template{Prefix: "registry.example", Settings: marked(10)},
	)
	for name, want := range map[string]int{
		"docker.io/org/x":                       2,
		"docker.io/library/x":                   3,
		"docker.io/library/nginx":               3, // the prefix is not a part of the name, it is the name
		"docker.io/library/nginx/x":             4,
		"docker.io/library":                     2,
		"docker.io/librarya/x":                  2,
		"quay.io/x":                             5, // mirror/quay/x
		"quay.io/org/x":                         7,
		"quay.io/org/team/x":                    7,
		"quay.io/org/team/a/x":                  6, // team/a/x
		"quay.io/org/team/ab/x":                 7,
		"ghcr.io/x":                             8,
		"ghcr.io/owner/x":                       9, // shorter text, but more of the name
		"registry.example/x":                    10,
		"registry.example:5000/x":               1,
		"other.example/docker-hub/library/x":    1,
		"other.example/registry.example/x":      1,
		ecrRegistry + "/docker-hub/library/x/y": 1, // its own, not the rule's
	} {
		if got := policies.For(repository(t, name)).Window; got != time.Duration(want)*time.Minute {
			t.Errorf("%s: template %d holds, want %d", name, int(got/time.Minute), want)
		}
	}
}

// Of rule and template the longer prefix wins key by key, at equal length the
// rule; of templates one holds, whole.
func TestRuleAndTemplateKeyByKey(t *testing.T) {
	t.Parallel()
	rule := func(s Settings) []Rule {
		return []Rule{{ECRRepositoryPrefix: "docker-hub", UpstreamRegistryURL: "registry-1.docker.io", Settings: s}}
	}
	immutable := Settings{ImageTagMutability: Immutable}
	excluding := Settings{ImageTagMutability: MutableWithExclusion, ImageTagMutabilityExclusionFilters: []string{"v*"}}
	offline, first := Settings{Mode: ModeOffline}, Settings{Mode: ModeUpstreamFirst, Private: PrivateVerify, Deleted: DeletedWarn}
	for name, c := range map[string]struct {
		rules     []Rule
		templates []Template
		want      func(Policy) bool
	}{
		"longer template": {rule(first), []Template{{Prefix: "docker-hub/library", Settings: offline}},
			func(p Policy) bool {
				return p.Mode == ModeOffline && p.Private == PrivateVerify && p.Deleted == DeletedWarn && p.mode.name == `template "docker-hub/library"`
			}},
		"equal": {rule(first), []Template{{Prefix: "docker-hub", Settings: offline}},
			func(p Policy) bool { return p.Mode == ModeUpstreamFirst && p.mode.name == `rule "docker-hub"` }},
		"equal as stored": {rule(first), []Template{{Prefix: "docker.io", Settings: offline}}, func(p Policy) bool { return p.Mode == ModeUpstreamFirst }},
		"template above the rule": {[]Rule{{ECRRepositoryPrefix: "mirror/hub", UpstreamRegistryURL: "docker.io", Settings: first}}, []Template{{Prefix: "mirror", Settings: offline}},
			func(p Policy) bool { return p.Mode == ModeUpstreamFirst }},
		"template above another": {[]Rule{{ECRRepositoryPrefix: "mirror/hub", UpstreamRegistryURL: "docker.io"}}, []Template{{Prefix: "mirror", Settings: offline}, {Prefix: "docker.io", Settings: first}},
			func(p Policy) bool { return p.Mode == ModeUpstreamFirst }},
		"root template":     {rule(first), []Template{{Prefix: Root, Settings: offline}}, func(p Policy) bool { return p.Mode == ModeUpstreamFirst }},
		"template fills in": {rule(marked(1)), []Template{{Prefix: Root, Settings: offline}}, func(p Policy) bool { return p.Mode == ModeOffline && p.Window == time.Minute }},
		"one template, whole": {nil, []Template{{Prefix: Root, Settings: first}, {Prefix: "docker.io", Settings: marked(1)}},
			func(p Policy) bool { return p.Mode == "" && p.Private == "" && p.Window == time.Minute }},
		"filters go with their mutability": {rule(immutable), []Template{{Prefix: "docker.io/library", Settings: excluding}},
			func(p Policy) bool { return p.Immutable("v1") && !p.Immutable("latest") }},
		"and not without": {rule(excluding), []Template{{Prefix: "docker.io/library", Settings: immutable}},
			func(p Policy) bool { return p.Immutable("v1") && p.Immutable("latest") }},
		"nobody says anything": {nil, nil, func(p Policy) bool { return p == Policy{} && !p.Immutable("latest") }},
	} {
		if p := newPolicies(t, c.rules, c.templates...).For(repository(t, "docker.io/library/nginx")); !c.want(p) {
			t.Errorf("%s: got %+v", name, p)
		}
	}
}

// Without policies, and where they say nothing, a Registry's Freshness holds.
func TestPoliciesOverFreshness(t *testing.T) {
	t.Parallel()
	f := Freshness{Window: time.Hour, Deleted: DeletedWarn}
	want := Policy{Mode: ModeCacheFirst, Private: PrivateNo, Window: time.Hour, Deleted: DeletedWarn}
	for _, ps := range []Policies{{}, NewPolicies(Policy{}), newPolicies(t, nil)} {
		if got := ps.over(f).For(appRepo()); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	p := newPolicies(t, []Rule{{ECRRepositoryPrefix: "hub", UpstreamRegistryURL: "docker.io", Settings: marked(0)}}).over(f).For(appRepo())
	if p.Window != 0 {
		t.Errorf("a rule's window of 0s became %s", p.Window)
	}
}

func TestIdleTemplates(t *testing.T) {
	t.Parallel()
	rules, err := NewRules([]Rule{{ECRRepositoryPrefix: "team/a", UpstreamRegistryURL: "quay.io"}}, false)
	if err != nil {
		t.Fatal(err)
	}
	var templates []Template
	for _, prefix := range []string{"team", "team/a", "team/a/b", "docker.io/library", "ROOT", "team/b", "docker-hub/library"} {
		templates = append(templates, Template{Prefix: prefix, Settings: Settings{Mode: ModeOffline}})
	}
	ps, err := NewPolicies(Policy{}).WithRules(rules, templates)
	if want := []string{"team/b", "docker-hub/library"}; err != nil || !slices.Equal(ps.Idle(), want) {
		t.Errorf("got %q, %v, want %q", ps.Idle(), err, want)
	}
}

func TestAnyPrivate(t *testing.T) {
	t.Parallel()
	private := Settings{Private: PrivateVerify}
	for name, c := range map[string]struct {
		policies Policies
		want     bool
	}{
		"none":     {newPolicies(t, []Rule{{ECRRepositoryPrefix: "hub", UpstreamRegistryURL: "docker.io"}}, Template{Prefix: Root}), false},
		"zero":     {Policies{}, false},
		"default":  {NewPolicies(Policy{Private: PrivateVerify}), true},
		"rule":     {newPolicies(t, []Rule{{ECRRepositoryPrefix: "hub", UpstreamRegistryURL: "docker.io", Settings: private}}), true},
		"template": {newPolicies(t, nil, Template{Prefix: "quay.io", Settings: private}), true},
		"root":     {newPolicies(t, nil, Template{Prefix: Root, Settings: private}), true},
	} {
		if got := c.policies.AnyPrivate(); got != c.want {
			t.Errorf("%s: got %t, want %t", name, got, c.want)
		}
	}
}

func BenchmarkPoliciesFor(b *testing.B) {
	var rules []Rule
	var templates []Template
	for i := range 50 {
		rules = append(rules, Rule{ECRRepositoryPrefix: fmt.Sprintf("rule-%d", i), UpstreamRegistryURL: "quay.io", UpstreamRepositoryPrefix: fmt.Sprintf("org-%d", i), Settings: marked(i)})
		templates = append(templates, Template{Prefix: fmt.Sprintf("quay.io/org-%d/team", i), Settings: marked(i)})
	}
	policies, repo := newPolicies(b, rules, templates...), repository(b, "quay.io/org-49/team/app")
	b.ReportAllocs()
	for b.Loop() {
		policies.For(repo)
	}
}
