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

// One ECR registry has several hosts, and larder a credential for all of them:
// they have one policy.
func TestHostsOfECRRegistryAreOnePolicy(t *testing.T) {
	t.Parallel()
	hosts := map[string][]string{
		"usual":  {"123456789012.dkr.ecr.us-east-1.amazonaws.com", "123456789012.dkr.ecr-fips.us-east-1.amazonaws.com", "123456789012.dkr-ecr.us-east-1.on.aws", "123456789012.dkr-ecr-fips.us-east-1.on.aws"},
		"china":  {"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn"},
		"public": {"public.ecr.aws", "ecr-public.aws.com"},
	}
	settings := Settings{Private: PrivateVerify, Deny: []string{"hidden"}}
	for name, forms := range hosts {
		for _, written := range forms {
			for by, policies := range map[string]Policies{
				"rule":     newPolicies(t, []Rule{{ECRRepositoryPrefix: "mine", UpstreamRegistryURL: written, Settings: settings}}),
				"template": newPolicies(t, nil, Template{Prefix: written + "/team", Settings: settings}),
				"whole":    newPolicies(t, nil, Template{Prefix: Root, Settings: Settings{Private: PrivateVerify, Deny: []string{forms[0] + "/team/hidden"}}}),
			} {
				denied := Repository{Path: "team/hidden"}
				if by == "rule" {
					denied.Path = "hidden"
				}
				for _, asked := range forms {
					denied.Host = asked
					if p := policies.For(Repository{Host: asked, Path: "team/app"}); p.Private != PrivateVerify {
						t.Errorf("%s: %s for %s: %s is not private", name, by, written, asked)
					}
					if policies.Permit(denied) == nil {
						t.Errorf("%s: %s for %s: %s is not denied", name, by, written, denied)
					}
				}
			}
		}
	}
	for _, other := range []string{"123456789012.dkr.ecr.us-east-2.amazonaws.com", "123456789012.dkr.ecr.us-east-1.amazonaws.com:8443", "210987654321.dkr.ecr.us-east-1.amazonaws.com", "ecr.example"} {
		p := newPolicies(t, []Rule{{ECRRepositoryPrefix: "mine", UpstreamRegistryURL: hosts["usual"][0], Settings: settings}})
		if p.For(Repository{Host: other, Path: "team/app"}).Private == PrivateVerify {
			t.Errorf("%s is private", other)
		}
	}
}
