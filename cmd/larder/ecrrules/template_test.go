package ecrrules

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/larder-project/larder/remotes"
)

const (
	countPolicy = `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":9},"action":{"type":"expire"}}]}`
	idlePolicy  = `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"sinceImagePulled","countUnit":"days","countNumber":9},"action":{"type":"expire"}}]}`
)

// templatesText is what the command line prints.
func templatesText() string {
	return `{
    "registryId": "123456789012",
    "repositoryCreationTemplates": [
        {
            "prefix": "docker-hub",
            "description": "Docker Hub",
            "encryptionConfiguration": {"encryptionType": "AES256"},
            "resourceTags": [{"Key": "a", "Value": "b"}],
            "imageTagMutability": "IMMUTABLE_WITH_EXCLUSION",
            "imageTagMutabilityExclusionFilters": [{"filterType": "WILDCARD", "filter": "latest"}, {"filterType": "WILDCARD", "filter": "dev-*"}],
            "lifecyclePolicy": "` + strings.ReplaceAll(countPolicy, `"`, `\"`) + `",
            "appliedFor": ["REPLICATION", "PULL_THROUGH_CACHE"],
            "createdAt": "2026-11-01T10:00:00.123000+01:00"
        },
        {"prefix": "copies", "appliedFor": ["REPLICATION"], "lifecyclePolicy": "no policy"},
        {"prefix": "ROOT", "appliedFor": ["PULL_THROUGH_CACHE"], "imageTagMutability": "IMMUTABLE"}
    ]
}`
}

func describedTemplates() []remotes.Template {
	return []remotes.Template{
		{Prefix: "docker-hub", Settings: remotes.Settings{
			ImageTagMutability: remotes.ImmutableWithExclusion, ImageTagMutabilityExclusionFilters: []string{"latest", "dev-*"}, LifecyclePolicy: countPolicy,
		}},
		{Prefix: "ROOT", Settings: remotes.Settings{ImageTagMutability: remotes.Immutable}},
	}
}

func TestDecodeTemplates(t *testing.T) {
	t.Parallel()
	got, err := Decode(strings.NewReader(templatesText()))
	want := List{Templates: describedTemplates(), Skipped: []string{`repositoryCreationTemplates[1] ("copies"): left out: it is not applied for PULL_THROUGH_CACHE`}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	// With rules in one, as export writes it; and back.
	text, _, err := Export(describedRules(), describedTemplates(), FormatJSON)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Decode(strings.NewReader(string(text)))
	if diff := cmp.Diff(List{Rules: describedRules(), Templates: describedTemplates()}, again); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestDecodeTemplatesRefuses(t *testing.T) {
	t.Parallel()
	templates := func(fields ...string) string {
		for i, f := range fields {
			fields[i] = `{"appliedFor":["PULL_THROUGH_CACHE"],` + f + `}`
		}
		return `{"repositoryCreationTemplates":[` + strings.Join(fields, ",") + `]}`
	}
	for name, tc := range map[string]struct{ text, want string }{
		"no object":   {`{"repositoryCreationTemplates":[1]}`, "repositoryCreationTemplates[0]: got a JSON number, want a JSON object"},
		"wrong type":  {templates(`"prefix":1`), "repositoryCreationTemplates[0]: prefix: got a JSON number"},
		"no prefix":   {templates(`"imageTagMutability":"MUTABLE"`), `repositoryCreationTemplates[0] (""): prefix`},
		"same prefix": {templates(`"prefix":"a"`, `"prefix":"a/"`), "the prefix stands in repositoryCreationTemplates[0] already"},
		"policy":      {templates(`"prefix":"a","lifecyclePolicy":"{}"`), `repositoryCreationTemplates[0] ("a"): lifecycle_policy: rules: is missing`},
		"mutability":  {templates(`"prefix":"a","imageTagMutability":"SOLID"`), `repositoryCreationTemplates[0] ("a"): image_tag_mutability`},
		"too many":    {templates(strings.Split(strings.Repeat(`"prefix":"a";`, maxRules)+`"prefix":"a"`, ";")...), "has 1001 templates"},
		"with rules":  {`{"pullThroughCacheRules":[1],"repositoryCreationTemplates":[1]}`, "repositoryCreationTemplates[0]: got"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Decode(strings.NewReader(tc.text))
			if err == nil || !strings.Contains(err.Error(), tc.want) || got.Templates != nil || !errdefs.IsInvalidArgument(err) && !errdefs.IsAlreadyExists(err) {
				t.Errorf("got %+v, %v, want %q", got, err, tc.want)
			}
		})
	}
}

// What somebody wrote into a policy leaves no comment.
func TestTemplateNotesAreOneLine(t *testing.T) {
	t.Parallel()
	policy := strings.Replace(idlePolicy, `"rulePriority"`, `"description":"a\nrm -rf b","rulePriority"`, 1)
	template := remotes.Template{Prefix: "a", Settings: remotes.Settings{LifecyclePolicy: policy}}
	if err := template.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, as := range Formats() {
		text, warnings, err := Export(nil, []remotes.Template{template}, as)
		if err != nil || len(warnings) != 1 || strings.Contains(warnings[0], "\n") || strings.Contains(string(text), "\nrm") {
			t.Errorf("%s: %q, %v in\n%s", as, warnings, err, text)
		}
	}
}
