package remotes

import (
	"testing"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Patterns match the name as stored, and what is below the prefix of who says
// so, by whatever rule one gets there.
func TestPermit(t *testing.T) {
	t.Parallel()
	rule := func(s Settings) []Rule {
		return []Rule{
			{ECRRepositoryPrefix: "docker-hub", UpstreamRegistryURL: "registry-1.docker.io", Settings: s},
			{ECRRepositoryPrefix: "official", UpstreamRegistryURL: "registry-1.docker.io", UpstreamRepositoryPrefix: "library"},
		}
	}
	for name, c := range map[string]struct {
		rules     []Rule
		templates []Template
		permitted map[string]bool
	}{
		"deny below the prefix": {rule(Settings{Deny: []string{"evil/*"}}), nil,
			map[string]bool{"docker.io/evil/x": false, "docker.io/good/x": true, "docker.io/good/evil/x": true, "quay.io/evil/x": true}},
		"deny as stored": {rule(Settings{Deny: []string{"docker.io/evil/*"}}), nil,
			map[string]bool{"docker.io/evil/x": false, "docker.io/good/x": true}},
		"allow": {rule(Settings{Allow: []string{"org/*", "docker.io/other/*"}}), nil,
			map[string]bool{"docker.io/org/x": true, "docker.io/other/x": true, "docker.io/organ/x": false, "docker.io/x": false, "quay.io/x": true}},
		"deny goes before allow": {rule(Settings{Allow: []string{"org/*"}, Deny: []string{"*/secret"}}), nil,
			map[string]bool{"docker.io/org/x": true, "docker.io/org/secret": false}},
		"template for all": {rule(Settings{}), []Template{{Prefix: Root, Settings: Settings{Deny: []string{"docker-hub/evil/*", "quay.io/evil/*", "official/mysql"}}}},
			map[string]bool{"docker.io/evil/x": false, "quay.io/evil/x": false, "docker.io/x/y": true, "docker.io/library/mysql": false, "docker.io/library/nginx": true}},
		"template below a host by another name": {nil, []Template{{Prefix: "registry-1.docker.io", Settings: Settings{Deny: []string{"library/mysql"}}}},
			map[string]bool{"docker.io/library/mysql": false, "docker.io/library/nginx": true}},
		"two local prefixes": {rule(Settings{}), []Template{{Prefix: "official", Settings: Settings{Allow: []string{"nginx"}}}},
			map[string]bool{"docker.io/library/nginx": true, "docker.io/library/mysql": false, "docker.io/org/mysql": true}},
	} {
		policies := newPolicies(t, c.rules, c.templates...)
		for repo, want := range c.permitted {
			err := policies.Permit(repository(t, repo))
			if (err == nil) != want || err != nil && !errdefs.IsPermissionDenied(err) {
				t.Errorf("%s: %s: got %v, want permitted: %t", name, repo, err, want)
			}
		}
	}
	deny := newPolicies(t, rule(Settings{Deny: []string{"x", "evil/*"}, Allow: []string{"org/*"}}))
	mentions(t, deny.Permit(repository(t, "docker.io/evil/x")), "docker.io/evil/x", `rule "docker-hub"`, `deny = "evil/*"`)
	mentions(t, deny.Permit(repository(t, "docker.io/other/x")), "docker.io/other/x", `rule "docker-hub"`, `allow = ["org/*"]`)
}

// What is denied is denied although it is stored, in all that brings or serves.
func TestDeniedEverywhere(t *testing.T) {
	t.Parallel()
	img, root := build(1), t.TempDir()
	up := remotestest.New(t)
	up.PutImage("library/app", "1", img)
	at := func(s *setup) { s.root = root }
	ref := app(t, "1")
	t.Run("before", func(t *testing.T) { //nolint:paralleltest // the second part needs its store closed
		b := newBench(t, []*remotestest.Registry{up}, at)
		if _, err := b.Pull(soon(t), ref, PullOptions{}); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("after", func(t *testing.T) { //nolint:paralleltest // see above
		b := newBench(t, []*remotestest.Registry{up}, at, withSettings(t, Settings{Deny: []string{"library/app"}}))
		byDigest := app(t, img.Root.Digest.String())
		fetcher, err := NewResolver(b.Registry).Fetcher(soon(t), ref.String())
		if err != nil {
			t.Fatal(err)
		}
		layer := img.Blobs[len(img.Blobs)-1].Descriptor
		for name, do := range map[string]func() error{
			"resolve":           func() error { _, err := b.Resolve(soon(t), ref); return err },
			"resolve by digest": func() error { _, err := b.Resolve(soon(t), byDigest); return err },
			"refresh":           func() error { _, err := b.Refresh(soon(t), ref); return err },
			"manifest":          func() error { _, err := b.Manifest(soon(t), ref); return err },
			"pull":              func() error { _, err := b.Pull(soon(t), ref, PullOptions{}); return err },
			"blob":              func() error { _, _, err := b.read(appRepo(), layer.Digest); return err },
			"tags":              func() error { _, err := b.Tags(soon(t), appRepo(), 0, ""); return err },
			"referrers":         func() error { _, err := b.Referrers(soon(t), appRepo(), img.Root.Digest, ""); return err },
			"Resolver":          func() error { _, _, err := NewResolver(b.Registry).Resolve(soon(t), ref.String()); return err },
			"Fetcher, manifest": func() error { _, err := fetcher.Fetch(soon(t), img.Root); return err },
			"Fetcher, layer":    func() error { _, err := fetcher.Fetch(soon(t), ocispec.Descriptor{Digest: layer.Digest}); return err },
		} {
			n := counted(up, func() {
				err := do()
				if !errdefs.IsPermissionDenied(err) {
					t.Errorf("%s: got %v, want it denied", name, err)
				}
				mentions(t, err, `rule "docker-hub"`, "library/app")
			})
			if n != 0 {
				t.Errorf("%s: upstream saw %d requests, want 0", name, n)
			}
		}
		// What is denied can still be looked at and thrown away.
		if _, err := b.Image(ref); err != nil {
			t.Error(err)
		}
		if _, err := b.Remove(soon(t), ref); err != nil {
			t.Error(err)
		}
	})
}
