package ecrrules

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/larder-project/larder/remotes"
)

const secretARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:ecr-pullthroughcache/hub-AbCdEf"

// described is what the command line prints, with a field that AWS may add.
const described = `{
    "pullThroughCacheRules": [
        {
            "ecrRepositoryPrefix": "docker-hub",
            "upstreamRegistryUrl": "registry-1.docker.io",
            "createdAt": "2026-11-01T10:00:00.123000+01:00",
            "registryId": "123456789012",
            "credentialArn": "` + secretARN + `",
            "upstreamRegistry": "docker-hub",
            "updatedAt": "2026-11-01T10:00:00.123000+01:00",
            "somethingNew": {"a": [1]}
        },
        {
            "ecrRepositoryPrefix": "team/a",
            "upstreamRegistryUrl": "210987654321.dkr.ecr.us-east-1.amazonaws.com",
            "registryId": "123456789012",
            "customRoleArn": "arn:aws:iam::123456789012:role/pull",
            "upstreamRegistry": "ecr",
            "upstreamRepositoryPrefix": "apps",
            "credentialArn": null
        }
    ]
}`

func describedRules() []remotes.Rule {
	return []remotes.Rule{
		{
			ECRRepositoryPrefix: "docker-hub", UpstreamRegistryURL: "registry-1.docker.io", UpstreamRegistry: "docker-hub",
			RegistryID: "123456789012", CredentialARN: secretARN,
		},
		{
			ECRRepositoryPrefix: "team/a", UpstreamRegistryURL: "210987654321.dkr.ecr.us-east-1.amazonaws.com", UpstreamRegistry: "ecr",
			UpstreamRepositoryPrefix: "apps", RegistryID: "123456789012", CustomRoleARN: "arn:aws:iam::123456789012:role/pull",
		},
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	got, err := Decode(strings.NewReader(described))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(List{Rules: describedRules()}, got); diff != "" {
		t.Error(diff)
	}
	page, err := Decode(strings.NewReader(`{"pullThroughCacheRules":[],"NextToken":"x"}`))
	if err != nil || !page.More || len(page.Rules) != 0 {
		t.Errorf("got %+v, %v, want an empty page of more", page, err)
	}
}

func entries(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf(`{"ecrRepositoryPrefix":"p%d","upstreamRegistryUrl":"quay.io"}`, i))
	}
	return `{"pullThroughCacheRules":[` + strings.Join(all, ",") + `]}`
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	rule := func(fields string) string {
		return `{"pullThroughCacheRules":[{"ecrRepositoryPrefix":"ok","upstreamRegistryUrl":"quay.io"},{` + fields + `}]}`
	}
	for name, tc := range map[string]struct{ text, want string }{
		"empty":            {"  \n", "is empty"},
		"no JSON":          {"ecr_repository_prefix = 1", "not JSON: "},
		"cut":              {described[:200], "not JSON: "},
		"two documents":    {described + described, "not JSON: "},
		"array":            {`[]`, "got a JSON array, want a JSON object"},
		"something else":   {`{"repositories":[]}`, "has no pullThroughCacheRules"},
		"null":             {`{"pullThroughCacheRules":null}`, "has no pullThroughCacheRules"},
		"no array":         {`{"pullThroughCacheRules":{}}`, "pullThroughCacheRules: got a JSON object, want a JSON array"},
		"no object":        {`{"pullThroughCacheRules":[1]}`, "pullThroughCacheRules[0]: got a JSON number, want a JSON object"},
		"wrong type":       {rule(`"ecrRepositoryPrefix":"a1","upstreamRegistryUrl":["quay.io"]`), "pullThroughCacheRules[1]: upstreamRegistryUrl: got a JSON array, want a JSON string"},
		"no prefix":        {rule(`"upstreamRegistryUrl":"quay.io"`), `pullThroughCacheRules[1] (""): ecr_repository_prefix`},
		"bad prefix":       {rule(`"ecrRepositoryPrefix":"Quay","upstreamRegistryUrl":"quay.io"`), `pullThroughCacheRules[1] ("Quay"): ecr_repository_prefix`},
		"both bad":         {rule(`"ecrRepositoryPrefix":"Quay","upstreamRegistryUrl":"https://quay.io"`), `pullThroughCacheRules[1] ("Quay"): upstream_registry_url`},
		"new kind":         {rule(`"ecrRepositoryPrefix":"a1","upstreamRegistryUrl":"x.example","upstreamRegistry":"acme"`), `"acme": want one of`},
		"same prefix":      {rule(`"ecrRepositoryPrefix":"ok/","upstreamRegistryUrl":"quay.io"`), `pullThroughCacheRules[1] ("ok/"): the prefix stands in pullThroughCacheRules[0] already`},
		"bad credential":   {rule(`"ecrRepositoryPrefix":"a1","upstreamRegistryUrl":"quay.io","credentialArn":"arn:aws:iam::123456789012:role/pull"`), "credential_arn"},
		"other secret":     {rule(`"ecrRepositoryPrefix":"a1","upstreamRegistryUrl":"quay.io","credentialArn":"arn:aws:secretsmanager:eu-central-1:123456789012:secret:other/hub-AbCdEf"`), "credential_arn"},
		"long credential":  {rule(`"ecrRepositoryPrefix":"a1","upstreamRegistryUrl":"quay.io","credentialArn":"` + secretARN + strings.Repeat("a", 600) + `"`), "credential_arn"},
		"bad role":         {rule(`"ecrRepositoryPrefix":"a1","upstreamRegistryUrl":"quay.io","customRoleArn":"pull\nthrough"`), `custom_role_arn: "pull\nthrough"`},
		"bad account":      {rule(`"ecrRepositoryPrefix":"a1","upstreamRegistryUrl":"quay.io","registryId":"12"`), "registry_id"},
		"too many":         {entries(maxRules + 1), "has 1001 rules"},
		"too large":        {`{"x":"` + strings.Repeat("x", maxInput) + `"}`, "larger than 4 MiB"},
		"deep":             {strings.Repeat("[", 20_000), "not JSON"},
		"password in host": {rule(`"ecrRepositoryPrefix":"a1","upstreamRegistryUrl":"me:hunter2@quay.io"`), "without credentials"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Decode(strings.NewReader(tc.text))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %+v, %.500v, want %q", got, err, tc.want)
			}
			if !errdefs.IsInvalidArgument(err) && !errdefs.IsAlreadyExists(err) {
				t.Errorf("kind of %v", err)
			}
			if got.Rules != nil || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("got %+v with %v", got, err)
			}
		})
	}
}

// FuzzDecode: what is accepted can be written, and reads back.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(described))
	f.Add([]byte(entries(2)))
	f.Add([]byte(templatesText()))
	f.Add([]byte(`{"pullThroughCacheRules":[{"ecrRepositoryPrefix":"ROOT","upstreamRegistryUrl":"DOCKER.io:443"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := Decode(bytes.NewReader(data))
		if err != nil {
			return
		}
		if _, err := TOML(list.Rules, list.Templates); err != nil {
			t.Error(err)
		}
		for _, as := range Formats() {
			text, _, err := Export(list.Rules, list.Templates, as)
			if err != nil {
				t.Errorf("%s: %v", as, err)
			}
			if as != FormatJSON {
				continue
			}
			if again, err := Decode(bytes.NewReader(text)); err != nil || len(again.Rules) > len(list.Rules) {
				t.Errorf("%s reads back as %+v, %v", text, again, err)
			}
		}
	})
}
