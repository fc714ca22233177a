package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/larder-project/larder/remotes/remotestest"
)

const keepTwoReleases = `lifecycle_policy = '''
{"rules": [
  {"rulePriority": 1, "description": "two releases",
   "selection": {"tagStatus": "tagged", "tagPatternList": ["v*"], "countType": "imageCountMoreThan", "countNumber": 2},
   "action": {"type": "expire"}},
  {"rulePriority": 2,
   "selection": {"tagStatus": "any", "countType": "sinceImagePulled", "countUnit": "days", "countNumber": 30},
   "action": {"type": "expire"}}
]}'''
`

// A policy removes the releases that are too many, as the preview told, and
// nothing that is pinned; the history of a tag tells both its move and its end.
func TestLifecycle(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder", "registry")
	registry, _ := b.registry()
	push := func(tag string, seed uint64) remotestest.Image {
		img := remotestest.Build(remotestest.ImageSpec{Seed: seed, Platforms: []string{"linux/amd64", "linux/arm64"}})
		if err := remotestest.Push(t.Context(), registry.URL, "library/app", tag, img); err != nil {
			t.Fatal(err)
		}
		return img
	}
	l := b.larder(dockerHub(registry.URL) + "[[templates]]\nprefix = \"docker.io/library\"\n" + keepTwoReleases)
	const repo = "docker.io/library/app"
	pull := func(tag string) { run(t, l, "pull", "--platform", "all", repo+":"+tag) }

	first := push("v1", 901)
	pull("v1")
	moved := push("v1", 902)
	run(t, l, "refresh", repo+":v1")
	pull("v1")
	for i, tag := range []string{"v2", "v3", "v4", "latest"} {
		push(tag, uint64(903+i))
		pull(tag)
	}
	run(t, l, "pin", repo+":v2", "--reason", "the old cluster")

	type result struct {
		Repositories []struct {
			Repository string
			Decisions  []struct {
				Digest   string   `json:"imageDigest"`
				Tags     []string `json:"imageTags"`
				Priority int      `json:"appliedRulePriority"`
				Kept     string
			}
		}
		Removed struct{ Blobs int }
	}
	lifecycle := func(args ...string) (res result) {
		if out := run(t, l, append([]string{"lifecycle", args[0], "--json"}, args[1:]...)...); json.Unmarshal([]byte(out), &res) != nil || len(res.Repositories) != 1 {
			t.Fatalf("got %s, want one repository", out)
		}
		return res
	}
	preview := lifecycle("preview")
	decisions := preview.Repositories[0].Decisions
	if len(decisions) != 2 || decisions[0].Digest != moved.Root.Digest.String() || !slices.Equal(decisions[0].Tags, []string{"v1"}) ||
		decisions[0].Priority != 1 || decisions[0].Kept != "" || decisions[1].Kept != "pinned by cli: the old cluster" {
		t.Fatalf("preview: got %+v, want v1 to go and v2 to stay", decisions)
	}
	if out := run(t, l, "lifecycle", "preview", repo); !strings.Contains(out, "1 two releases   would go") || !strings.Contains(out, "stays, pinned by cli: the old cluster") {
		t.Errorf("preview:\n%s", out)
	}
	ran := lifecycle("run", repo)
	if fmt.Sprint(ran.Repositories) != fmt.Sprint(preview.Repositories) || ran.Removed.Blobs != len(moved.Descriptors()) {
		t.Errorf("run: got %+v, want what the preview told, %d blobs", ran, len(moved.Descriptors()))
	}
	tags := strings.Fields(run(t, l, "ls", "-q"))
	if want := []string{repo + ":latest", repo + ":v2", repo + ":v3", repo + ":v4"}; !slices.Equal(tags, want) {
		t.Errorf("ls: got %v, want %v", tags, want)
	}
	if log := l.Log(); !strings.Contains(log, "image expired") || !strings.Contains(log, "rule 1 (two releases)") {
		t.Errorf("the log does not name the rule:\n%s", log)
	}

	history := func() (h struct {
		Entries []struct{ Digest, Why, Detail string }
	}) {
		if out := run(t, l, "history", "--json", repo+":v1"); json.Unmarshal([]byte(out), &h) != nil || len(h.Entries) != 2 {
			t.Fatalf("history: got %s, want two entries", out)
		}
		return h
	}
	h := history().Entries
	if h[0].Digest != first.Root.Digest.String() || h[0].Why != "moved" || h[1].Digest != moved.Root.Digest.String() || h[1].Why != "expired" ||
		h[1].Detail != "rule 1 (two releases)" {
		t.Errorf("history: got %+v", h)
	}
	if err := l.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := l.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again := history().Entries; !slices.Equal(again, h) {
		t.Errorf("history after a crash: got %+v, want %+v", again, h)
	}
	if out := run(t, l, "history", repo+":v1"); !strings.Contains(out, first.Root.Digest.String()+"   moved") || !strings.Contains(out, "expired: rule 1 (two releases)") {
		t.Errorf("history:\n%s", out)
	}
	if out, err := l.Run(t.Context(), "history", repo+":v9"); err == nil || !strings.Contains(err.Error(), "never stored here") {
		t.Errorf("history of a tag that never was: got %s, %v", out, err)
	}
}
