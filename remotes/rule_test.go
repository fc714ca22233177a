package remotes

import (
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// The four rows of ECR's documentation on wildcards and prefixes (user guide,
// "Customizing repository prefixes"), and what must match nothing.
func TestRulesGolden(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		prefix, upstreamPrefix, path, want string
	}{
		{"ecr-public", Root, "ecr-public/my-app/image1", "my-app/image1"},
		{Root, Root, "my-app/image1", "my-app/image1"},
		{"team-a", "team-a", "team-a/myapp/image1", "team-a/myapp/image1"},
		{"my-app", "upstream-app", "my-app/image1", "upstream-app/image1"},
		// The default upstream prefix, and the trailing slash that means nothing.
		{"ecr-public", "", "ecr-public/my-app/image1", "my-app/image1"},
		{"ecr-public/", "", "ecr-public/my-app/image1", "my-app/image1"},
		{"my-app/", "upstream-app/", "my-app/image1", "upstream-app/image1"},
		{"a/b", "", "a/b/c", "c"},
		// ROOT is a keyword in upper case only.
		{"root", "", "root/x", "x"},
	} {
		rules, err := NewRules([]Rule{{ECRRepositoryPrefix: c.prefix, UpstreamRegistryURL: "public.ecr.aws", UpstreamRepositoryPrefix: c.upstreamPrefix}}, false)
		if err != nil {
			t.Errorf("%q: %v", c.prefix, err)
			continue
		}
		repo, _, err := rules.Map(c.path)
		if want := (Repository{Host: "public.ecr.aws", Path: c.want}); err != nil || repo != want {
			t.Errorf("%q -> %q: %s is %v, %v, want %v", c.prefix, c.upstreamPrefix, c.path, repo, err, want)
		}
	}
	rules, err := NewRules([]Rule{{ECRRepositoryPrefix: "my-app", UpstreamRegistryURL: "quay.io"}}, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"my-application/image1", "my-app", "my-app/", "other", "x/my-app/y", "MY-APP/x"} {
		if repo, _, err := rules.Map(path); !errdefs.IsNotFound(err) {
			t.Errorf("%q: got %v, %v, want no rule", path, repo, err)
		}
	}
}

func TestLongestPrefixWins(t *testing.T) {
	t.Parallel()
	rules, err := NewRules([]Rule{
		{ECRRepositoryPrefix: Root, UpstreamRegistryURL: "root.example"},
		{ECRRepositoryPrefix: "aa", UpstreamRegistryURL: "a.example"},
		{ECRRepositoryPrefix: "aa/bb", UpstreamRegistryURL: "ab.example"},
		{ECRRepositoryPrefix: "docker-hub", UpstreamRegistryURL: "hub.example"}, // in place of the built-in one
	}, true)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"aa/bb/c":              "ab.example/c",
		"aa/bbb/c":             "a.example/bbb/c",
		"aa/bb":                "a.example/bb",
		"aab/c":                "root.example/aab/c",
		"docker-hub/library/x": "hub.example/library/x",
		"quay/org/x":           "quay.io/org/x",
		"quay":                 "root.example/quay",
	} {
		if repo, _, err := rules.Map(path); err != nil || repo.String() != want {
			t.Errorf("%s: got %v, %v, want %s", path, repo, err, want)
		}
	}
	if all := rules.All(); all[len(all)-1].ECRRepositoryPrefix != Root {
		t.Errorf("last rule is %q, want ROOT", all[len(all)-1].ECRRepositoryPrefix)
	}
}

func TestBuiltinRules(t *testing.T) {
	t.Parallel()
	rules, err := NewRules(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"docker-hub/library/nginx": "docker.io/library/nginx",
		"docker-hub/nginx":         "docker.io/nginx", // ECR adds no library/ either
		"ecr-public/docker/x":      "public.ecr.aws/docker/x",
		"kubernetes/pause":         "registry.k8s.io/pause",
		"quay/org/x":               "quay.io/org/x",
		"github/owner/x":           "ghcr.io/owner/x",
		"gitlab/group/x":           "registry.gitlab.com/group/x",
		"chainguard/org/x":         "cgr.dev/org/x",
	} {
		if repo, _, err := rules.Map(path); err != nil || repo.String() != want {
			t.Errorf("%s: got %v, %v, want %s", path, repo, err, want)
		}
	}
}

func TestRuleValidate(t *testing.T) {
	t.Parallel()
	good := func(change func(*Rule)) Rule {
		r := Rule{ECRRepositoryPrefix: "hub", UpstreamRegistryURL: "registry-1.docker.io"}
		change(&r)
		return r
	}
	const credentialARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:ecr-pullthroughcache/hub-a1b2c3"
	for name, r := range map[string]Rule{
		"plain":        good(func(*Rule) {}),
		"two chars":    good(func(r *Rule) { r.ECRRepositoryPrefix = "ab" }),
		"thirty chars": good(func(r *Rule) { r.ECRRepositoryPrefix = strings.Repeat("a", 30) }),
		"new grammar":  good(func(r *Rule) { r.ECRRepositoryPrefix = "a__b/c--d.e" }),
		"dots":         good(func(r *Rule) { r.ECRRepositoryPrefix = "mirror/docker.io" }),
		"kind":         good(func(r *Rule) { r.UpstreamRegistry = "docker-hub" }),
		"azure": good(func(r *Rule) {
			r.UpstreamRegistryURL, r.UpstreamRegistry = "me.azurecr.io", "azure-container-registry"
		}),
		"ecr": good(func(r *Rule) {
			r.UpstreamRegistryURL, r.UpstreamRegistry = "123456789012.dkr.ecr.eu-central-1.amazonaws.com", "ecr"
		}),
		"root to root":    good(func(r *Rule) { r.ECRRepositoryPrefix, r.UpstreamRepositoryPrefix = Root, Root }),
		"upstream prefix": good(func(r *Rule) { r.UpstreamRepositoryPrefix = "org/" }), // ECR documents it for ECR only
		"credential":      good(func(r *Rule) { r.CredentialARN = credentialARN }),
		"credential in China": good(func(r *Rule) {
			r.CredentialARN = "arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:ecr-pullthroughcache/hub-a1b2c3"
		}),
		"credential file": good(func(r *Rule) { r.CredentialFile = "/etc/larder/hub.json" }),
		"account":         good(func(r *Rule) { r.RegistryID = "012345678901" }),
		"role": good(func(r *Rule) {
			r.UpstreamRegistryURL, r.CustomRoleARN = ecrRegistry, "arn:aws:iam::123456789012:role/pull/through"
		}),
		"any registry": good(func(r *Rule) { r.UpstreamRegistryURL = "registry.example:5000" }),
	} {
		if err := r.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, c := range []struct {
		rule  Rule
		words []string
	}{
		{good(func(r *Rule) { r.ECRRepositoryPrefix = "a" }), []string{`ecr_repository_prefix: "a" has 1 characters, want 2 to 30`}},
		{good(func(r *Rule) { r.ECRRepositoryPrefix = strings.Repeat("a", 31) }), []string{"has 31 characters"}},
		{good(func(r *Rule) { r.ECRRepositoryPrefix = "Quay" }), []string{`ecr_repository_prefix: "Quay" must match`}},
		{good(func(r *Rule) { r.ECRRepositoryPrefix = "-x" }), []string{`"-x" must match`}},
		{good(func(r *Rule) { r.ECRRepositoryPrefix = "a//b" }), []string{`"a//b" must match`}},
		{good(func(r *Rule) { r.UpstreamRegistryURL = "https://quay.io" }), []string{`upstream_registry_url: "https://quay.io": want a host without a scheme`, "[[routes]]"}},
		{good(func(r *Rule) { r.UpstreamRegistryURL = "" }), []string{"upstream_registry_url: registry host of 0 bytes"}},
		{good(func(r *Rule) { r.UpstreamRegistryURL, r.UpstreamRegistry = "quay.io/org", "dockerhub" }),
			[]string{`upstream_registry_url: registry host "quay.io/org"`, `upstream_registry: "dockerhub"`}}, // both
		{good(func(r *Rule) { r.UpstreamRegistryURL = "quay.io/org" }), []string{`upstream_registry_url: registry host "quay.io/org": want host[:port]`}},
		{good(func(r *Rule) { r.UpstreamRegistry = "dockerhub" }), []string{`upstream_registry: "dockerhub": want one of`, "docker-hub", "chainguard"}},
		{good(func(r *Rule) { r.UpstreamRegistry = "quay" }), []string{`upstream_registry: "quay" does not fit upstream_registry_url "registry-1.docker.io"`}},
		{good(func(r *Rule) { r.ECRRepositoryPrefix, r.UpstreamRepositoryPrefix = Root, "x-y" }), []string{`upstream_repository_prefix: "x-y" cannot go with ecr_repository_prefix = "ROOT"`}},
		{good(func(r *Rule) { r.UpstreamRepositoryPrefix = "!" }), []string{"upstream_repository_prefix: "}},
		{good(func(r *Rule) { r.CredentialARN = strings.Repeat("arn:", 12) + "a" }), []string{"credential_arn: ", "has 49 characters, want 50 to 612"}},
		{good(func(r *Rule) { r.CredentialARN = credentialARN + strings.Repeat("a", 613-len(credentialARN)) }), []string{"credential_arn: ", "has 613 characters"}},
		{good(func(r *Rule) { r.CredentialARN = strings.Replace(credentialARN, "ecr-pullthroughcache/", "other/", 1) }),
			[]string{"credential_arn: ", "must match ^arn:aws(-\\w+)*:secretsmanager:"}},
		{good(func(r *Rule) { r.UpstreamRegistryURL, r.CustomRoleARN = ecrRegistry, "arn:aws:iam::1:role/x" }), []string{`custom_role_arn: "arn:aws:iam::1:role/x" must match`}},
		{good(func(r *Rule) {
			r.UpstreamRegistryURL, r.CustomRoleARN = ecrRegistry, "arn:aws:iam::123456789012:role/"+strings.Repeat("x", 2048)
		}), []string{"custom_role_arn: ", "want at most 2048"}},
		{good(func(r *Rule) { r.CustomRoleARN = "arn:aws:iam::123456789012:role/x" }),
			[]string{"custom_role_arn: goes only with an upstream that is a private ECR registry", "registry-1.docker.io"}},
		{good(func(r *Rule) { r.RegistryID = "12345678901" }), []string{`registry_id: "12345678901" must match ^[0-9]{12}$`}},
		{good(func(r *Rule) { r.CredentialARN, r.CredentialFile = credentialARN, "/f" }), []string{"credential_file: cannot go with credential_arn"}},
		{good(func(r *Rule) { r.Settings.Mode = "sometimes" }), []string{`mode: "sometimes": want one of cache-first, upstream-first, offline`}},
		{Rule{ECRRepositoryPrefix: "A!", UpstreamRegistryURL: "http://x", UpstreamRepositoryPrefix: "B!"},
			[]string{`"A!" must match`, `"http://x": want a host`, `"B!" must match`}}, // all at once
	} {
		err := c.rule.Validate()
		mentions(t, err, c.words...)
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("%+v: got %v, want errdefs.ErrInvalidArgument", c.rule, err)
		}
	}
}

// What has an "@" may hold a password: no error may repeat it.
func TestRuleValidateKeepsSecrets(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"https://me:hunter2@quay.io", "me:hunter2@quay.io", "hunter2@quay.io", "http://quay.io/@hunter2"} {
		err := Rule{ECRRepositoryPrefix: "quay", UpstreamRegistryURL: url, UpstreamRegistry: "quay"}.Validate()
		mentions(t, err, "upstream_registry_url: ", `"@"`)
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("error repeats the password: %v", err)
		}
	}
	// The secret itself in place of its name.
	err := Rule{ECRRepositoryPrefix: "quay", UpstreamRegistryURL: "quay.io", CredentialARN: "hunter2"}.Validate()
	mentions(t, err, "credential_arn: is no ARN")
	if err != nil && strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error repeats the secret: %v", err)
	}
}

// ECR takes 50 rules; larder does not count.
func TestManyRules(t *testing.T) {
	t.Parallel()
	var many []Rule
	for i := range 200 {
		many = append(many, Rule{ECRRepositoryPrefix: fmt.Sprintf("rule-%d", i), UpstreamRegistryURL: "quay.io", UpstreamRepositoryPrefix: fmt.Sprintf("org-%d", i)})
	}
	rules, err := NewRules(many, true)
	if err != nil {
		t.Fatal(err)
	}
	if repo, _, err := rules.Map("rule-199/x"); err != nil || repo.String() != "quay.io/org-199/x" {
		t.Errorf("got %v, %v", repo, err)
	}
}

func TestNewRulesRefusesTwins(t *testing.T) {
	t.Parallel()
	_, err := NewRules([]Rule{
		{ECRRepositoryPrefix: "hub", UpstreamRegistryURL: "docker.io"},
		{ECRRepositoryPrefix: "hub/", UpstreamRegistryURL: "quay.io"},
	}, false)
	if !errdefs.IsAlreadyExists(err) {
		t.Errorf("got %v, want errdefs.ErrAlreadyExists", err)
	}
	mentions(t, err, "stands in two rules")
	if _, err := NewRules([]Rule{{}}, false); !errdefs.IsInvalidArgument(err) {
		t.Errorf("empty rule: got %v, want it refused", err)
	}
}

func TestIsECRHost(t *testing.T) {
	t.Parallel()
	const account = "123456789012"
	for host, want := range map[string]bool{
		account + ".dkr.ecr.eu-central-1.amazonaws.com":             true,
		account + ".dkr.ecr.eu-central-1.amazonaws.com:443":         true,
		account + ".dkr.ecr-fips.us-gov-west-1.amazonaws.com":       true,
		account + ".dkr.ecr.cn-north-1.amazonaws.com.cn":            true,
		account + ".dkr.ecr.eusc-de-east-1.amazonaws.eu":            true,
		account + ".dkr-ecr.us-east-1.on.aws":                       true,
		account + ".dkr-ecr-fips.us-east-1.on.aws":                  true,
		account + ".dkr-ecr.cn-north-1.on.amazonwebservices.com.cn": true,
		account + ".dkr.ecr.us-iso-east-1.c2s.ic.gov":               true,
		account + ".dkr.ecr.us-isob-east-1.sc2s.sgov.gov":           true,
		account + ".dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk":          true,
		account + ".dkr.ecr.us-isof-south-1.csp.hci.ic.gov":         true,
		"public.ecr.aws": false,
		"12345678901.dkr.ecr.eu-central-1.amazonaws.com":             false,
		account + ".dkr.ecr.eu-central-1.amazonaws.com.evil.example": false,
		"x" + account + ".dkr.ecr.eu-central-1.amazonaws.com":        false,
		account + ".dkr.ecr..amazonaws.com":                          false,
		account + "xdkr.ecr.eu-central-1.amazonaws.com":              false,
		account + ".dkr.ecr.eu-central-1.amazonawsXcom":              false,
	} {
		if got := IsECRHost(host); got != want {
			t.Errorf("%s: got %t, want %t", host, got, want)
		}
	}
}
