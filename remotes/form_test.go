package remotes

import (
	"testing"

	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/larder-project/larder/remotes/upstream"
)

// No way to write a registry host leads round its policy.
func TestFormsOfHostAreOnePolicy(t *testing.T) {
	t.Parallel()
	policies := newPolicies(t, []Rule{{
		ECRRepositoryPrefix: "corp", UpstreamRegistryURL: "registry.corp.example:443",
		Settings: Settings{Private: PrivateVerify, Deny: []string{"team/hidden"}},
	}}, Template{Prefix: "quay.io/team", Settings: Settings{Private: PrivateVerify}})
	b := newBench(t, []*remotestest.Registry{}, func(s *setup) { s.policies = policies })
	for _, ns := range []string{
		"registry.corp.example", "registry.corp.example:443", "registry.corp.example:0443", "REGISTRY.corp.example:443", "quay.io:443", "quay.io:00443",
	} {
		repo, err := (Names{}).Map(ns, "team/app")
		if err != nil || !b.IsPrivate(repo) {
			t.Errorf("ns=%s: %s is private: %t, %v", ns, repo, b.IsPrivate(repo), err)
		}
		if hidden := (Repository{Host: repo.Host, Path: "team/hidden"}); repo.Host != "quay.io" && b.Policies.Permit(hidden) == nil {
			t.Errorf("ns=%s: %s is not denied", ns, hidden)
		}
		if eps := b.Routes.For(repo.Host); len(eps) != 1 || eps[0] != (upstream.Endpoint{Scheme: "https", Host: repo.Host}) {
			t.Errorf("ns=%s: upstreams are %v", ns, eps)
		}
	}
}
