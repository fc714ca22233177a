package remotes

import (
	"strings"

	"github.com/larder-project/larder/remotes/upstream"
)

// IsECRHost reports whether a registry host is a private ECR registry.
func IsECRHost(host string) bool {
	return ecrAccount(host) != ""
}

// ecrAccount returns the AWS account of a private ECR registry host, "" for
// another host.
func ecrAccount(host string) string {
	r, _ := upstream.ParseECRHost(host)
	return r.Account
}

// policyHost is the host under which policies know a registry. One ECR registry
// answers at several: FIPS and dual-stack endpoints, and two of the public
// gallery. larder's own credential is for all of them, so what is private at one
// must be at the others.
func policyHost(host string) string {
	if !strings.Contains(host, "ecr") || strings.Contains(host, ":") {
		return host // nearly all are: no expression is matched at each request
	}
	r, ok := upstream.ParseECRHost(host)
	switch {
	case !ok:
		return host
	case r.Public:
		return "public.ecr.aws"
	}
	_, domain, _ := strings.Cut(host, "."+r.Region+".")
	switch domain {
	case "on.aws":
		domain = "amazonaws.com"
	case "on.amazonwebservices.com.cn":
		domain = "amazonaws.com.cn"
	}
	return r.Account + ".dkr.ecr." + r.Region + "." + domain
}

// BuiltinRules returns the rules that hold without any configuration: every
// upstream of ECR that has a fixed host, under the prefix that ECR's console
// proposes (user guide, "Creating a pull through cache rule").
func BuiltinRules() []Rule {
	return []Rule{
		{ECRRepositoryPrefix: "ecr-public", UpstreamRegistryURL: "public.ecr.aws", UpstreamRegistry: "ecr-public"},
		{ECRRepositoryPrefix: "kubernetes", UpstreamRegistryURL: "registry.k8s.io", UpstreamRegistry: "k8s"},
		{ECRRepositoryPrefix: "quay", UpstreamRegistryURL: "quay.io", UpstreamRegistry: "quay"},
		{ECRRepositoryPrefix: "docker-hub", UpstreamRegistryURL: "registry-1.docker.io", UpstreamRegistry: "docker-hub"},
		{ECRRepositoryPrefix: "github", UpstreamRegistryURL: "ghcr.io", UpstreamRegistry: "github-container-registry"},
		{ECRRepositoryPrefix: "gitlab", UpstreamRegistryURL: "registry.gitlab.com", UpstreamRegistry: "gitlab-container-registry"},
		{ECRRepositoryPrefix: "chainguard", UpstreamRegistryURL: "cgr.dev", UpstreamRegistry: "chainguard"},
	}
}

// registryKinds are the values of ECR's enum UpstreamRegistry.
func registryKinds() []string {
	return []string{
		"ecr", "ecr-public", "quay", "k8s", "docker-hub", "github-container-registry",
		"azure-container-registry", "gitlab-container-registry", "chainguard",
	}
}

// registryKind infers ECR's name for the kind of a registry host; "" if ECR
// has none.
func registryKind(host string) string {
	for _, r := range BuiltinRules() {
		if h, err := ParseHost(r.UpstreamRegistryURL); err == nil && h == host {
			return r.UpstreamRegistry
		}
	}
	switch {
	case strings.HasSuffix(host, ".azurecr.io"):
		return "azure-container-registry"
	case IsECRHost(host):
		return "ecr"
	}
	return ""
}
