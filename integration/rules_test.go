package integration

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// `larder rules import` reads the rules of the account, all pages, or a file that
// the AWS command line wrote, and prints them as config that works.
func TestRulesImport(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder")
	a := b.aws()
	rules := []parts.PullThroughCacheRule{
		{EcrRepositoryPrefix: "hub", UpstreamRegistryURL: "registry-1.docker.io", UpstreamRegistry: "docker-hub", RegistryID: parts.AWSAccount,
			CredentialArn: "arn:aws:secretsmanager:eu-central-1:123456789012:secret:ecr-pullthroughcache/hub-AbCdEf"},
		{EcrRepositoryPrefix: "red", UpstreamRegistryURL: "quay.io", UpstreamRegistry: "quay", RegistryID: parts.AWSAccount},
		{EcrRepositoryPrefix: "team", UpstreamRegistryURL: "210987654321.dkr.ecr.eu-central-1.amazonaws.com", UpstreamRegistry: "ecr",
			UpstreamRepositoryPrefix: "apps", CustomRoleArn: "arn:aws:iam::123456789012:role/puller", RegistryID: parts.AWSAccount},
	}
	a.SetRules(2, rules...)
	key := b.larder("", a.Env()...)
	instance, err := parts.NewLarder(b.bin, filepath.Join(b.dir, "instance"), "", a.InstanceEnv()...) // no daemon is needed
	if err != nil {
		t.Fatal(err)
	}
	described, err := json.Marshal(map[string]any{"pullThroughCacheRules": rules})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		l    *parts.Larder
		args []string
	}{
		"account, by an access key":                          {key, []string{"rules", "import"}},
		"account, by the role and the region of an instance": {instance, []string{"rules", "import"}},
		"file": {key, []string{"rules", "import", b.write("rules.json", string(described))}},
	} {
		text := run(t, c.l, c.args...)
		other, err := parts.NewLarder(b.bin, filepath.Join(b.dir, name), text)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := other.Run(t.Context(), "config", "check"); err != nil {
			t.Errorf("%s: what was imported is no config: %v %s\n%s", name, err, out, text)
		}
		for _, r := range rules {
			for _, want := range []string{r.EcrRepositoryPrefix, r.UpstreamRegistryURL, r.CredentialArn, r.CustomRoleArn, r.UpstreamRepositoryPrefix} {
				if !strings.Contains(text, want) {
					t.Errorf("%s: %q is missing in\n%s", name, want, text)
				}
			}
		}
	}
	if n := a.Count(parts.OpDescribeRules); n != 4 {
		t.Errorf("the account's rules were read in %d requests, want its 2 pages twice", n)
	}
}

// `larder rules validate` says of each rule whether its upstream takes its
// credential, as ECR's ValidatePullThroughCacheRule does.
func TestRulesValidate(t *testing.T) {
	t.Parallel()
	for password, want := range map[string]bool{pullerPassword: true, "wr0ng-canary": false} {
		t.Run(fmt.Sprintf("valid %t", want), func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "larder", "registry")
			r := b.tokenRegistry(map[string]remotestest.Image{"team/app:1": remotestest.Build(remotestest.ImageSpec{Seed: 695})})
			file := b.write("secret.json", secretText(t, puller, password))
			l := b.larder("names.builtin_rules = false\n" + trustTokens(r) + privateRule(r.Host(), "credential_file", file))
			out, err := l.Run(t.Context(), "rules", "validate", "--json")
			var answer struct {
				Rules []struct {
					Prefix  string `json:"ecrRepositoryPrefix"`
					IsValid bool   `json:"isValid"`
					Failure string `json:"failure"`
				} `json:"pullThroughCacheRules"`
			}
			if jsonErr := json.Unmarshal([]byte(out), &answer); jsonErr != nil || len(answer.Rules) != 1 {
				t.Fatalf("got %s, %v, %v, want one rule", out, err, jsonErr)
			}
			got := answer.Rules[0]
			if got.Prefix != "priv" || got.IsValid != want || (got.Failure == "") != want || (err == nil) != want {
				t.Errorf("got %+v, %v, want valid %t", got, err, want)
			}
			if strings.Contains(out, password) {
				t.Errorf("the output has the password: %s", out)
			}
		})
	}
}
