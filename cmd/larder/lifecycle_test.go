package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/cmd/larder/admin"
	"github.com/larder-project/larder/remotes"
	"github.com/larder-project/larder/remotes/remotestest"
)

const keepOne = `{"rules":[{"rulePriority":1,"description":"the newest","selection":{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":1},"action":{"type":"expire"}}]}`

// A policy in a file, from the configuration to the verbs.
func TestLifecycleVerbs(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(file, []byte(keepOne), 0o600); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, fmt.Sprintf("[[templates]]\nprefix = \"docker.io/library\"\nlifecycle_policy_file = %q\n", file))
	for i, tag := range []string{"1", "2"} {
		d.registry.PutImage("library/app", tag, remotestest.Build(remotestest.ImageSpec{Seed: uint64(i)}))
		d.mustLarder(t, "pull", "app:"+tag)
	}
	var completed, errs bytes.Buffer
	if code := run(t.Context(), []string{"__complete", "--config", d.config, "lifecycle", "preview", ""}, &completed, &errs); code != 0 || !strings.HasPrefix(completed.String(), "docker.io/library/app\n:") {
		t.Errorf("completion: exit %d, %s", code, completed.String())
	}
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"rules", "test", "app:1"}, 0, `lifecycle policy: of template "docker.io/library"`},
		{[]string{"lifecycle", "preview", "docker.io/other/app"}, exitFailure, "docker.io/other/app has no lifecycle policy; set lifecycle_policy"},
		{[]string{"lifecycle", "preview", "app:1"}, exitFailure, "app:1: a lifecycle policy is a repository's: leave tag and digest away"},
		{[]string{"lifecycle", "preview", "Not A Repo"}, exitFailure, "Not A Repo"},
		{[]string{"lifecycle", "preview", "a", "b"}, exitUsage, "accepts at most 1 arg"},
		{[]string{"lifecycle", "prevew"}, exitUsage, "did you mean preview?"},
		{[]string{"history", "app@sha256:" + strings.Repeat("a", 64)}, exitFailure, "a digest has no history"},
		{[]string{"history", "app:3"}, exitFailure, "docker.io/library/app:3 was never stored here"},
		{[]string{"lifecycle", "preview"}, 0, "1 image would go in 1 stored repository with a policy\n"},
		{[]string{"lifecycle", "run", "app"}, 0, "1 image removed in 1 stored repository with a policy: 3 blobs, "},
		{[]string{"lifecycle", "run"}, 0, "0 images removed in 1 stored repository with a policy: 0 blobs, 0 B\n"},
		{[]string{"history", "app:1"}, 0, "expired: rule 1 (the newest)\n"},
	} {
		code, out, stderr := d.larder(t, tc.args...)
		if text := out + stderr; code != tc.code || !strings.Contains(text, tc.want) {
			t.Errorf("larder %s: exit %d, want %d with %q:\n%s", strings.Join(tc.args, " "), code, tc.code, tc.want, text)
		}
	}
}

// Golden texts of both verbs.
func TestPrintLifecycle(t *testing.T) {
	t.Parallel()
	ago := time.Now().Add(-49 * time.Hour)
	decision := remotes.LifecycleDecision{Digest: "sha256:0123456789abcdef", Tags: []string{"a", "b"}, Pushed: ago, Action: "expire", Priority: 3}
	kept := decision
	kept.Kept, kept.Description, kept.Pulled, kept.Tags = "pinned: x", "old\x1b[31m", ago, nil
	var out strings.Builder
	err := printLifecycle(&out, admin.LifecycleResult{Repositories: []remotes.LifecycleReport{
		{Repository: "quay.io/a", Decisions: []remotes.LifecycleDecision{decision, kept}}, {Repository: "quay.io/b"},
	}})
	want := `REPOSITORY   DIGEST         TAGS   PUSHED       PULLED       RULE        OUTCOME
quay.io/a    0123456789ab   a,b    2 days ago   -            3           would go
quay.io/a    0123456789ab   -      2 days ago   2 days ago   3 old[31m   stays, pinned: x

1 image would go in 2 stored repositories with a policy
`
	if err != nil || out.String() != want {
		t.Errorf("got\n%s%v\nwant\n%s", out.String(), err, want)
	}
	if err := leftAlone([]remotes.LifecycleReport{{Repository: "quay.io/a", Problem: "unreadable"}, {}}); err == nil || err.Error() != "quay.io/a: nothing goes: unreadable" {
		t.Errorf("got %v", err)
	}
}

func TestPrintHistory(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 2, 3, 4, 5, 0, time.Local)
	var out strings.Builder
	err := printHistory(&out, cache.History{Name: "quay.io/a:1", Entries: []cache.HistoryEntry{
		{Digest: "sha256:a", From: at, Until: at.Add(time.Hour), Ending: cache.Ending{Why: cache.Expired, Detail: "rule 1"}},
		{Digest: "sha256:b", From: at.Add(2 * time.Hour)},
	}})
	want := `quay.io/a:1

FROM                  UNTIL                 DIGEST     ENDED
2026-11-02 03:04:05   2026-11-02 04:04:05   sha256:a   expired: rule 1
2026-11-02 05:04:05   now                   sha256:b   -
`
	if err != nil || out.String() != want {
		t.Errorf("got\n%s%v\nwant\n%s", out.String(), err, want)
	}
}

// A policy that is wrong stops larder serve, and config check finds it.
func TestBrokenPolicyFile(t *testing.T) {
	t.Parallel()
	file := configFile(t, "[[templates]]\nprefix = \"docker.io/library\"\nlifecycle_policy_file = \"/no/such/policy.json\"\n")
	const want = "templates[0].lifecycle_policy_file: /no/such/policy.json: no such file"
	if code, _, stderr := larder(t, file, "", "config", "check"); code != exitUsage || !strings.Contains(stderr, want) {
		t.Errorf("config check: exit %d\n%s", code, stderr)
	}
	if code, _, stderr := larder(t, file, "", "rules", "test", "app:1"); code == 0 || !strings.Contains(stderr, want) {
		t.Errorf("rules test: exit %d\n%s", code, stderr)
	}
}

// A template of an account goes into the configuration, once, and out again.
func TestTemplatesFromAndToECR(t *testing.T) {
	t.Parallel()
	described := filepath.Join(t.TempDir(), "templates.json")
	text := `{"repositoryCreationTemplates":[{"prefix":"docker-hub","appliedFor":["PULL_THROUGH_CACHE"],"lifecyclePolicy":` + fmt.Sprintf("%q", keepOne) + `},
		{"prefix":"copies","appliedFor":["REPLICATION"]}]}`
	if err := os.WriteFile(described, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	file := configFile(t, "")
	const skipped = `repositoryCreationTemplates[1] ("copies"): left out`
	for _, want := range []string{"added    template docker-hub\n" + file + ": 1 template added;", "skipped  template docker-hub (is configured already)\n" + file + ": nothing to add\n"} {
		if code, out, stderr := larder(t, file, "", "rules", "import", described, "--append"); code != 0 || !strings.HasPrefix(out, want) || !strings.Contains(stderr, skipped) {
			t.Errorf("import: exit %d, want %q:\n%s%s", code, want, out, stderr)
		}
	}
	if out := mustLarder(t, file, "", "rules", "test", "nginx"); !strings.Contains(out, `lifecycle policy: of template "docker-hub"`) {
		t.Errorf("rules test:\n%s", out)
	}
	code, out, stderr := larder(t, file, "", "rules", "export", "--as", "aws-cli")
	if code != 0 || !strings.Contains(out, "--prefix docker-hub") || !strings.Contains(out, "--lifecycle-policy '"+keepOne+"'") || stderr != "" {
		t.Errorf("export: exit %d\n%s%s", code, out, stderr)
	}
}
