package remotes

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/remotes/upstream"
)

func explainNames(t *testing.T) (Names, Routes) {
	t.Helper()
	rules, err := NewRules([]Rule{
		{ECRRepositoryPrefix: "team", UpstreamRegistryURL: "registry.example", UpstreamRepositoryPrefix: "apps"},
		{ECRRepositoryPrefix: "team/sub", UpstreamRegistryURL: "quay.io"},
	}, true)
	if err != nil {
		t.Fatal(err)
	}
	all, err := ParsePattern("1*")
	if err != nil {
		t.Fatal(err)
	}
	routes, err := NewRoutes(map[string][]upstream.Endpoint{
		"registry.example": {{Scheme: "http", Host: "10.0.0.1:5000"}, {Scheme: "https", Host: "registry.example"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return Names{Rules: rules, Own: map[string]bool{"localhost": true}, ECRHosts: []Pattern{all}}, routes
}

func TestExplain(t *testing.T) {
	t.Parallel()
	names, routes := explainNames(t)
	const ecr, other = "123456789012.dkr.ecr.eu-central-1.amazonaws.com", "223456789012.dkr.ecr.eu-central-1.amazonaws.com"
	for name, tc := range map[string]struct {
		ns, path  string
		form      Form
		rule      string
		repo      string
		upstreams string
		reason    string
	}{
		"image name": {"docker.io", "library/nginx", FormHost, "", "docker.io/library/nginx", "https://registry-1.docker.io", "needs none"},
		"own":        {"localhost", "docker-hub/library/nginx", FormOwn, "docker-hub", "docker.io/library/nginx", "https://registry-1.docker.io", ""},
		"no ns":      {"", "quay/org/app", FormOwn, "quay", "quay.io/org/app", "https://quay.io", ""},
		"ECR":        {ecr, "team/app", FormECR, "team", "registry.example/apps/app", "http://10.0.0.1:5000 https://registry.example", ""},
		"longest":    {ecr, "team/sub/app", FormECR, "team/sub", "quay.io/app", "https://quay.io", ""},
		"ECR's own":  {ecr, "ours/app", FormHost, "", ecr + "/ours/app", "https://" + ecr, "itself"},
		"ECR not by the rules, no rule": {
			other, "ours/app", FormHost, "", other + "/ours/app", "https://" + other, "itself",
		},
		"ECR not by the rules": {
			other, "quay/app", FormHost, "", other + "/quay/app", "https://" + other, "names.ecr_hosts",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, err := names.Explain(routes, tc.ns, tc.path)
			if err != nil {
				t.Fatal(err)
			}
			var ups []string
			for _, ep := range e.Upstreams {
				ups = append(ups, ep.String())
			}
			rule := ""
			if e.Rule != nil {
				rule = e.Rule.ECRRepositoryPrefix
			}
			if e.Form != tc.form || rule != tc.rule || e.Repository.String() != tc.repo || strings.Join(ups, " ") != tc.upstreams {
				t.Errorf("got %+v, rule %q", e, rule)
			}
			if !strings.Contains(e.Reason, tc.reason) || (e.Reason == "") != (tc.reason == "") {
				t.Errorf("reason is %q, want %q in it", e.Reason, tc.reason)
			}
			// It must never tell another story than Map.
			if repo, err := names.Map(tc.ns, tc.path); err != nil || repo != e.Repository {
				t.Errorf("Map says %v, %v", repo, err)
			}
		})
	}
}

func TestExplainNothing(t *testing.T) {
	t.Parallel()
	names, routes := explainNames(t)
	names.Listed = map[string]bool{"docker.io": true}
	for name, tc := range map[string]struct {
		ns, path string
		form     Form
		kind     error
		reason   string
	}{
		"no rule":     {"localhost", "nope/app", FormOwn, errdefs.ErrNotFound, "no rule covers it"},
		"bare prefix": {"", "team", FormOwn, errdefs.ErrNotFound, "no rule covers it"},
		"not listed":  {"quay.io", "org/app", FormHost, errdefs.ErrPermissionDenied, "not listed"},
		"no name":     {"docker.io", "Nginx", FormHost, errdefs.ErrInvalidArgument, "not a repository name"},
	} {
		e, err := names.Explain(routes, tc.ns, tc.path)
		if !errors.Is(err, tc.kind) || e.Form != tc.form || e.Rule != nil || e.Upstreams != nil || !strings.Contains(e.Reason, tc.reason) {
			t.Errorf("%s: got %+v, %v", name, e, err)
		}
	}
}

func TestKind(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"registry-1.docker.io": "docker-hub", "docker.io": "docker-hub", "quay.io": "quay", "mine.azurecr.io": "azure-container-registry",
		"123456789012.dkr.ecr.eu-central-1.amazonaws.com": "ecr", "registry.example": "", "not a host": "",
	} {
		if got := (Rule{UpstreamRegistryURL: host}).Kind(); got != want {
			t.Errorf("%s: got %q, want %q", host, got, want)
		}
	}
	if got := (Rule{UpstreamRegistryURL: "quay.io", UpstreamRegistry: "k8s"}).Kind(); got != "k8s" {
		t.Errorf("got %q, want what the rule says", got)
	}
}
