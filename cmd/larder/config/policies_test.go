package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

const expireIdle = `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"sinceImagePulled","countUnit":"days","countNumber":30},"action":{"type":"expire"}}]}`

// What is wrong with a policy is told with the key's place and that in the text.
func TestLifecyclePolicyProblems(t *testing.T) {
	t.Parallel()
	_, err := parse("f.toml", []byte(`
[[rules]]
ecr_repository_prefix = "hub"
upstream_registry_url = "docker.io"
lifecycle_policy = '{"rules":[{"rulePriority":0}]}'
[[templates]]
prefix = "hub/library"
lifecycle_policy = '`+expireIdle+`'
lifecycle_policy_file = "/etc/larder/policy.json"
`))
	for _, want := range []string{
		"f.toml:5:1: rules[0].lifecycle_policy: rules[0].rulePriority: 0: want a whole number",
		"f.toml:5:1: rules[0].lifecycle_policy: rules[0].action: is missing",
		"f.toml:9:1: templates[0].lifecycle_policy_file: lifecycle_policy says it already",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got\n%v\nwant %q", err, want)
		}
	}
}

func TestReadPolicies(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string) Path {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return Path(path)
	}
	c := Default()
	c.Rules = []Rule{{Settings: Settings{LifecyclePolicyFile: file("good", expireIdle)}}, {}}
	c.Templates = []Template{{Settings: Settings{LifecyclePolicyFile: file("good", expireIdle)}}}
	read, err := c.ReadPolicies()
	if err != nil || read.Rules[0].Remote().Settings.LifecyclePolicy != expireIdle || read.Templates[0].Remote().Settings.LifecyclePolicy != expireIdle {
		t.Errorf("got %+v, %v", read, err)
	}
	if c.Rules[0].LifecyclePolicy != "" || read.Rules[1].LifecyclePolicy != "" {
		t.Error("the configuration that was read from has changed")
	}
	c.Rules[1].LifecyclePolicyFile = Path(filepath.Join(dir, "gone"))
	c.Templates[0].LifecyclePolicyFile = file("bad", `{"rules":[{"rulePriority":0}]}`)
	_, err = c.ReadPolicies()
	for _, want := range []string{
		"rules[1].lifecycle_policy_file: " + dir + "/gone: no such file",
		"templates[0].lifecycle_policy_file: " + dir + "/bad: rules[0].rulePriority: 0",
		"templates[0].lifecycle_policy_file: " + dir + "/bad: rules[0].selection: is missing",
	} {
		if err == nil || !strings.Contains(err.Error(), want) || !errdefs.IsInvalidArgument(err) {
			t.Errorf("got\n%v\nwant %q", err, want)
		}
	}
}
