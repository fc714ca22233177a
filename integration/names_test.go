package integration

import (
	"net/http"
	"strings"
	"testing"

	"github.com/larder-project/larder/remotes/remotestest"
)

const ecrHost = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"

// A path on an ECR registry host is that registry's own, whatever the built-in
// rules would make of it: an account may have pushed a repository of that name.
// With a rule of the configuration, or the host named, it is the rule's.
func TestECRHostIsItsOwn(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		config string
		mapped bool
	}{
		"default":         {"", false},
		"named host":      {ecrHosts, true},
		"rule":            {"[[rules]]\necr_repository_prefix = \"docker-hub\"\nupstream_registry_url = \"registry-1.docker.io\"\n", true},
		"another account": {"[[rules]]\necr_repository_prefix = \"docker-hub\"\nupstream_registry_url = \"registry-1.docker.io\"\nregistry_id = \"210987654321\"\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "larder")
			hub, account := remotestest.New(t), remotestest.New(t)
			theirs, own := remotestest.Build(remotestest.ImageSpec{Seed: 92}), remotestest.Build(remotestest.ImageSpec{Seed: 93})
			hub.PutImage("library/app", "1", theirs)
			account.PutImage("docker-hub/library/app", "1", own)
			l := b.larder(c.config + dockerHub(hub.URL()) + routeFor(ecrHost, account.URL()))
			want, unasked := own, hub
			if c.mapped {
				want, unasked = theirs, account
			}
			if a := get(t, l.URL+"/v2/docker-hub/library/app/manifests/1?ns="+ecrHost); !a.whole(want.Root.Digest) {
				t.Errorf("got %v, want it mapped by a rule: %t", a, c.mapped)
			}
			if n := len(unasked.Requests()); n != 0 {
				t.Errorf("the other registry saw %d requests, want 0", n)
			}
		})
	}
}

// Settings of a rule and a template reach the mirror and the command line.
func TestRuleSettings(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder")
	upstream := remotestest.New(t)
	first, moved := remotestest.Build(remotestest.ImageSpec{Seed: 94}), remotestest.Build(remotestest.ImageSpec{Seed: 95})
	upstream.PutImage("library/app", "1", first)
	upstream.PutImage("evil/app", "1", first)
	upstream.PutImage("org/app", "1", first)
	l := b.larder(dockerHub(upstream.URL()) + `
[[rules]]
ecr_repository_prefix = "docker-hub"
upstream_registry_url = "registry-1.docker.io"
image_tag_mutability = "IMMUTABLE"
deny = ["evil/*"]
[[templates]]
prefix = "docker-hub/org"
mode = "offline"
`)
	if a := get(t, manifestURL(l.URL, "library/app", "1")); !a.whole(first.Root.Digest) {
		t.Fatalf("got %v", a)
	}
	upstream.PutImage("library/app", "1", moved)
	out, err := l.Run(t.Context(), "refresh", "docker.io/library/app:1")
	if err == nil || !strings.Contains(err.Error()+out, `immutable by rule "docker-hub"`) {
		t.Errorf("refresh of an immutable tag: %v\n%s", err, out)
	}
	if a := get(t, manifestURL(l.URL, "library/app", "1")); !a.whole(first.Root.Digest) {
		t.Errorf("immutable tag: got %v, want the first one", a)
	}
	if out := run(t, l, "show", "docker.io/library/app:1"); !strings.Contains(out, "answered by "+upstream.URL()) {
		t.Errorf("show does not tell who answered:\n%s", out)
	}
	if a := get(t, manifestURL(l.URL, "evil/app", "1")); a.status != http.StatusForbidden || !strings.Contains(a.start, "evil/*") {
		t.Errorf("denied repository: got %v", a)
	}
	if a := get(t, manifestURL(l.URL, "org/app", "1")); a.status != http.StatusServiceUnavailable || !strings.Contains(a.start, "offline by template") {
		t.Errorf("offline repository: got %v", a)
	}
	for ref, want := range map[string]string{"docker.io/evil/app:1": "denied by rule", "localhost/docker-hub/org/app:1": "offline by template"} {
		if out, err := l.Run(t.Context(), "pull", ref); err == nil || !strings.Contains(err.Error()+out, want) {
			t.Errorf("pull %s: %v, want %q\n%s", ref, err, want, out)
		}
	}
}
