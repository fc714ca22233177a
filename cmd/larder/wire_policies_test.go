package main

import (
	"strings"
	"testing"
	"time"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/remotes"
)

// TestPoliciesOf: what rules and templates of a configuration say reaches the
// policies.
func TestPoliciesOf(t *testing.T) {
	t.Parallel()
	cfg := config.Default()
	cfg.Rules = []config.Rule{{ECRRepositoryPrefix: "hub", UpstreamRegistryURL: "docker.io", Settings: config.Settings{
		Mode: config.ModeOffline, Private: config.PrivateVerify, Deleted: config.DeletedRefuse, Deny: []config.Glob{"evil"},
		ImageTagMutability: config.MutableWithExclusion, ImageTagMutabilityExclusionFilters: []string{"v*"},
	}}}
	cfg.Templates = []config.Template{{Prefix: "hub", Settings: config.Settings{Window: new(config.Duration(time.Minute)), Allow: []config.Glob{"app", "evil"}}}}
	rules, err := remotes.NewRules(rulesOf(&cfg), cfg.Names.BuiltinRules)
	if err != nil {
		t.Fatal(err)
	}
	policies, err := policiesOf(&cfg, rules)
	if err != nil {
		t.Fatal(err)
	}
	app := remotes.Repository{Host: remotes.DockerHub, Path: "app"}
	p := policies.For(app)
	if p.Mode != remotes.ModeOffline || p.Private != remotes.PrivateVerify || p.Deleted != remotes.DeletedRefuse || p.Window != time.Minute || !p.Immutable("v1") || p.Immutable("latest") {
		t.Errorf("got %+v", p)
	}
	for path, want := range map[string]string{"app": "", "evil": "is denied", "other": "is not allowed"} {
		err := policies.Permit(remotes.Repository{Host: remotes.DockerHub, Path: path})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
	}
}

// TestPrintImageAnsweredBy: show tells who answered last, if anybody did.
func TestPrintImageAnsweredBy(t *testing.T) {
	t.Parallel()
	img := remotes.ImageDetail{Image: remotes.Image{Name: "docker.io/a:1", Tag: &cache.Tag{}, Window: "24h0m0s"}}
	for _, answered := range []bool{false, true} {
		if answered {
			img.AnsweredBy = &remotes.Answer{Upstream: "https://cache.internal", At: time.Now()}
		}
		var out strings.Builder
		if err := printImage(&out, img); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), ", window 24h\n") {
			t.Errorf("the window is not as the configuration has it:\n%s", out.String())
		}
		if got := strings.Contains(out.String(), "answered by https://cache.internal, "); got != answered {
			t.Errorf("answered: %t:\n%s", answered, out.String())
		}
	}
}

// TestPrintImagePutOff: show tells why a check was not made, and that this is no
// failure.
func TestPrintImagePutOff(t *testing.T) {
	t.Parallel()
	const why = "upstream allows 5 more pulls"
	for failures, want := range map[int]string{0: "put off     next check at the next pull: " + why, 2: "failing     2 in a row, next at the next pull: " + why} {
		img := remotes.ImageDetail{Image: remotes.Image{Name: "docker.io/a:1", Tag: &cache.Tag{Failures: failures, LastError: why}}}
		var out strings.Builder
		if err := printImage(&out, img); err != nil || !strings.Contains(out.String(), want+"\n") {
			t.Errorf("%d failures: no %q in\n%s%v", failures, want, out.String(), err)
		}
	}
}
