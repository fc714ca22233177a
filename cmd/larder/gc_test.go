package main

import (
	"strings"
	"testing"

	"github.com/larder-project/larder/cmd/larder/admin"
	"github.com/larder-project/larder/remotes/remotestest"
)

// mentions fails the test unless text has all words.
func mentionsAll(t *testing.T, what, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%s does not say %q:\n%s", what, w, text)
		}
	}
}

// TestCollectVerb makes room by hand: a dry run says what the real one does, what
// is pinned stays and is named, and all verbs tell afterwards what became of it.
func TestCollectVerb(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "[companions]\nfetch = false\n[space]\nmax_size = \"1GiB\"\nmin_free = \"off\"\n")
	images := map[string]remotestest.Image{}
	for i, name := range []string{"old", "pinned"} {
		images[name] = remotestest.Build(remotestest.ImageSpec{Seed: uint64(i), Layers: []int64{200_000}})
		d.registry.PutImage("library/"+name, "1", images[name])
		d.mustLarder(t, "pull", name+":1")
	}
	d.mustLarder(t, "pin", "pinned:1", "--reason", "base")
	mentionsAll(t, "status", d.mustLarder(t, "status"), "of 1.0 GiB (max_size)", "6 blobs", "are free")
	status := decodeJSON[admin.Status](t, d.mustLarder(t, "status", "--json"))
	if u := status.Space; u == nil || u.Allowance != 1<<30 || u.Stored < 400_000 || u.Blobs != 6 {
		t.Errorf("status has %+v", u)
	}
	if out := d.mustLarder(t, "gc"); !strings.HasPrefix(out, "evicted 0 images, 0 blobs") {
		t.Errorf("below the low mark gc prints %q", out)
	}
	code, dry, stderr := d.larder(t, "gc", "--dry-run", "--to", "1KiB")
	if code != exitFailure {
		t.Errorf("exit %d, want it told that not as much may go", code)
	}
	mentionsAll(t, "gc --dry-run", dry, "docker.io/library/old:1  ", "3 blobs: unused for", "would evict 1 image, 3 blobs")
	mentionsAll(t, "gc --dry-run", stderr, "more should go, but nothing else may: 1 pinned by cli as docker.io/library/pinned:1")
	code, out, _ := d.larder(t, "gc", "--to", "1KiB")
	if code != exitFailure || strings.Split(out, "\n")[0][:40] != strings.Split(dry, "\n")[0][:40] {
		t.Errorf("exit %d, got\n%s\nthe dry run said\n%s", code, out, dry)
	}
	layer := images["old"].Blobs[1].Descriptor.Digest.String()
	for _, what := range []string{"old:1", layer} {
		mentionsAll(t, "why-evicted", d.mustLarder(t, "why-evicted", what), "was evicted ", "unused for", "asked for by hand", "docker.io/library/old:1")
	}
	_, _, stderr = d.larder(t, "show", "old:1")
	mentionsAll(t, "show", stderr, "docker.io/library/old:1 was evicted", "asked for by hand")
	mentionsAll(t, "why-evicted", d.mustLarder(t, "why-evicted", "pinned:1"), "is stored, and no eviction of it is remembered")
	mentionsAll(t, "why-evicted", d.mustLarder(t, "why-evicted", "never:1"), "is not stored, and no eviction", "lifecycle policy (larder history")
	d.mustLarder(t, "pull", "old:1")
	if f := decodeJSON[admin.Fate](t, d.mustLarder(t, "why-evicted", "--json", "old:1")); !f.Stored || f.Evicted == nil || f.Evicted.Count != 3 {
		t.Errorf("fate is %+v", f)
	}
	mentionsAll(t, "why-evicted", d.mustLarder(t, "why-evicted", "old:1"), "is stored; it was evicted before, ")
	got := decodeJSON[collected](t, d.mustLarder(t, "gc", "--json"))
	if len(got.Evicted) != 0 || got.Space.Blobs != 6 || got.DryRun {
		t.Errorf("gc --json prints %+v", got)
	}
	if code, _, stderr := d.larder(t, "gc", "--to", "lots"); code != exitUsage || !strings.Contains(stderr, "--to") {
		t.Errorf("gc --to lots: exit %d, %s", code, stderr)
	}
}

// TestCollectUnbounded: without a bound there is no low mark.
func TestCollectUnbounded(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	mentionsAll(t, "gc", d.mustLarder(t, "gc"), "evicted 0 images", "nothing bounds the store", "--to")
}
