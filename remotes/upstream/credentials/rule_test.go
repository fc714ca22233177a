package credentials

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

const (
	testARN  = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:ecr-pullthroughcache/hub-AbCdEf"
	testRole = "arn:aws:iam::123456789012:role/puller"
	testECR  = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
)

func TestRulesMatch(t *testing.T) {
	t.Parallel()
	rs, err := newRules([]Rule{
		{Host: "registry-1.docker.io", File: "/all"},
		{Host: "docker.io", Prefix: "team", File: "/team"},
		{Host: "index.docker.io", Prefix: "team/deep/", File: "/deep"},
		{Host: "docker.io", Prefix: "team", File: "/team"}, // the same twice
		{Host: "quay.io", Prefix: "team", File: "/quay"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[[2]string]string{
		{"docker.io", "library/nginx"}:            "/all",
		{"registry-1.docker.io", "library/nginx"}: "/all",
		{"index.docker.io:443", "team/app"}:       "/team",
		{"docker.io", "team"}:                     "/team",
		{"docker.io", "teammate/app"}:             "/all",
		{"docker.io", "team/deep/app"}:            "/deep",
		{"docker.io", "team/deeper/app"}:          "/team",
		{"quay.io", "team/app"}:                   "/quay",
		{"quay.io", "other/app"}:                  "",
		{"quay.io:5000", "team/app"}:              "",
	} {
		q, err := newQuery(at[0], at[1])
		if err != nil {
			t.Fatal(err)
		}
		if got := rs.match(q).File; got != want {
			t.Errorf("%v: got %q, want %q", at, got, want)
		}
	}
}

func TestRulesAreChecked(t *testing.T) {
	t.Parallel()
	for _, good := range []Rule{
		{Host: "registry-1.docker.io", ARN: testARN},
		{Host: testECR, Prefix: "a/b", RoleARN: testRole},
		{Host: "localhost:5000", File: "/x"},
	} {
		if _, err := newRules([]Rule{good}); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
	for text, bad := range map[string][]Rule{
		"want a registry host":   {{Host: "https://docker.io", File: "/x"}},
		"want one":               {{Host: "docker.io"}},
		"has 2 of":               {{Host: "docker.io", File: "/x", ARN: testARN}},
		"absolute path":          {{Host: "docker.io", File: "x"}},
		"ecr-pullthroughcache/":  {{Host: "docker.io", ARN: strings.Replace(testARN, "ecr-pullthroughcache", "other", 1)}},
		"want the ARN of a Secr": {{Host: "docker.io", ARN: testARN + strings.Repeat("x", maxSecretARN)}},
		"ARN of an IAM role":     {{Host: testECR, RoleARN: "arn:aws:iam::123456789012:user/me"}},
		"no private ECR":         {{Host: "public.ecr.aws", RoleARN: testRole}},
		"credential_file /x, and credential_file /y": {{Host: "docker.io", File: "/x"}, {Host: "index.docker.io", File: "/y"}},
	} {
		_, err := newRules(bad)
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), text) {
			t.Errorf("%+v: got %v, want it to say %q", bad, err, text)
		}
	}
}
