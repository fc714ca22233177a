package remotes

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes/remotestest"
)

// An offline repository is answered from the store and asks no upstream, for
// nothing. The text says who has it so.
func TestOffline(t *testing.T) {
	t.Parallel()
	stored, other, root := build(1), build(2), t.TempDir()
	up := remotestest.New(t)
	up.PutImage("library/app", "1", stored)
	up.PutImage("library/app", "2", other)
	at := func(s *setup) { s.root = root }
	ref := app(t, "1")
	t.Run("online", func(t *testing.T) { //nolint:paralleltest // the second part needs its store closed
		b := newBench(t, []*remotestest.Registry{up}, at)
		if _, err := b.Pull(soon(t), ref, PullOptions{}); err != nil {
			t.Fatal(err)
		}
		b.expire(ref)
	})
	t.Run("offline", func(t *testing.T) { //nolint:paralleltest // see above
		b := newBench(t, []*remotestest.Registry{up}, at, withSettings(t, Settings{Mode: ModeOffline}))
		n := counted(up, func() {
			b.resolve(ref, Hit)
			b.resolve(app(t, stored.Root.Digest.String()), Hit)
			if _, err := b.Pull(soon(t), ref, PullOptions{}); err != nil {
				t.Errorf("pull of what is stored: %v", err)
			}
			if list, err := b.Tags(soon(t), appRepo(), 0, ""); err != nil || len(list.Tags) != 1 || list.Outcome != Hit {
				t.Errorf("tags: got %+v, %v, want the stored one", list, err)
			}
			img, err := b.Image(ref)
			if err != nil || img.State != "fresh" || img.Window != "unlimited" {
				t.Errorf("image: got %s, window %s, %v, want it fresh without end", img.State, img.Window, err)
			}
			for name, do := range map[string]func() error{
				"tag":       func() error { _, err := b.Resolve(soon(t), app(t, "2")); return err },
				"digest":    func() error { _, err := b.Manifest(soon(t), app(t, other.Root.Digest.String())); return err },
				"blob":      func() error { _, _, err := b.read(appRepo(), other.Blobs[0].Descriptor.Digest); return err },
				"pull":      func() error { _, err := b.Pull(soon(t), app(t, "2"), PullOptions{}); return err },
				"refresh":   func() error { _, err := b.Refresh(soon(t), ref); return err },
				"refresh 2": func() error { _, err := b.Refresh(soon(t), app(t, "2")); return err },
				"referrers": func() error { _, err := b.Referrers(soon(t), appRepo(), stored.Root.Digest, ""); return err },
				"no tags": func() error {
					_, err := b.Tags(soon(t), Repository{Host: DockerHub, Path: "library/none"}, 0, "")
					return err
				},
			} {
				err := do()
				if !errdefs.IsUnavailable(err) {
					t.Errorf("%s: got %v, want it unavailable", name, err)
				}
				mentions(t, err, "is offline by rule \"docker-hub\"")
			}
		})
		if n != 0 {
			t.Errorf("upstream saw %d requests, want 0", n)
		}
		if tag, err := b.Store.Tag(ref.String()); err != nil || tag.Failures != 0 {
			t.Errorf("got %+v, %v, want no failed check noted", tag, err)
		}
	})
}

// Under upstream-first every pull by tag asks, windows of tag patterns
// notwithstanding; if that fails, the stored image is served, and the pause
// after a failed check holds.
func TestUpstreamFirst(t *testing.T) {
	t.Parallel()
	all, err := ParsePattern("*")
	if err != nil {
		t.Fatal(err)
	}
	f := DefaultFreshness()
	f.Tags = []TagWindow{{Match: all, Window: time.Hour}}
	old, moved := build(1), build(2)
	b, up := one(t, old, withFreshness(f), withSettings(t, Settings{Mode: ModeUpstreamFirst}))
	ref := app(t, "1")
	b.resolve(ref, Miss)
	n := counted(up, func() {
		b.resolve(ref, Hit)
		b.resolve(ref, Hit)
	})
	if n != 2 {
		t.Errorf("2 pulls: upstream saw %d requests, want 2 checks", n)
	}
	up.PutImage("library/app", "1", moved)
	if res := b.resolve(ref, Miss); res.Descriptor.Digest != moved.Root.Digest {
		t.Errorf("got %s, want the new manifest at once", res.Descriptor.Digest)
	}
	remove := up.Fault(remotestest.Any(), remotestest.Error(http.StatusBadGateway, "UNKNOWN", "down"))
	n = counted(up, func() {
		b.resolve(ref, Stale)
		b.resolve(ref, Stale)
	})
	if n != 1 {
		t.Errorf("upstream down: it saw %d requests, want 1 and then a pause", n)
	}
	tag, err := b.Store.Tag(ref.String())
	if wait := time.Until(tag.NextCheck); err != nil || wait > f.Retry {
		t.Errorf("next check in %s, %v, want at most %s", wait, err, f.Retry)
	}
	remove()
	b.expire(ref)
	b.resolve(ref, Hit)
}

// A pull under upstream-first waits as any other check makes it wait.
func TestUpstreamFirstWaitsWithPatience(t *testing.T) {
	t.Parallel()
	f := DefaultFreshness()
	f.Patience = 0
	b, up := one(t, build(1), withFreshness(f), withSettings(t, Settings{Mode: ModeUpstreamFirst}))
	ref := app(t, "1")
	b.resolve(ref, Miss)
	release := make(chan struct{})
	up.Fault(remotestest.Any(), remotestest.GateHeader(release))
	b.resolve(ref, Stale)
	close(release)
	eventually(t, "the check has ended", func() bool { return !b.overdue.has(DockerHub) })
}

// The first tag of an immutable repository wins: it is never asked for again and
// never moves, not even by a refresh.
func TestImmutableTag(t *testing.T) {
	t.Parallel()
	first, moved := build(1), build(2)
	b, up := one(t, first, withSettings(t, Settings{ImageTagMutability: ImmutableWithExclusion, ImageTagMutabilityExclusionFilters: []string{"latest*"}}))
	up.PutImage("library/app", "latest", first)
	ref, latest := app(t, "1"), app(t, "latest")
	if res, err := b.Refresh(soon(t), ref); err != nil || res.Descriptor.Digest != first.Root.Digest {
		t.Fatalf("refresh of what is not stored: got %v, %v, want the first tag", res, err)
	}
	b.resolve(latest, Miss)
	up.PutImage("library/app", "1", moved)
	up.PutImage("library/app", "latest", moved)
	b.expire(ref)
	b.expire(latest)
	n := counted(up, func() {
		if res := b.resolve(ref, Hit); res.Descriptor.Digest != first.Root.Digest {
			t.Errorf("got %s, want the first tag", res.Descriptor.Digest)
		}
		_, err := b.Refresh(soon(t), ref)
		if !errdefs.IsFailedPrecondition(err) {
			t.Errorf("refresh: got %v, want it refused", err)
		}
		mentions(t, err, "immutable", `rule "docker-hub"`, first.Root.Digest.String())
	})
	if n != 0 {
		t.Errorf("upstream saw %d requests, want 0", n)
	}
	// A check that began before the tag was stored ends after it was.
	if res, err := b.check(soon(t), ref, false); err != nil || res.Descriptor.Digest != first.Root.Digest {
		t.Errorf("late check: got %v, %v, want the first tag", res, err)
	}
	if tag, err := b.Store.Tag(ref.String()); err != nil || tag.Target.Digest != first.Root.Digest {
		t.Errorf("after a late check the tag is %v, %v", tag, err)
	}
	if img, err := b.Image(ref); err != nil || img.State != "fresh" || img.Window != "unlimited" {
		t.Errorf("got %s, window %s, %v, want it fresh without end", img.State, img.Window, err)
	}
	// The excluded tag moves.
	if res := b.resolve(latest, Miss); res.Descriptor.Digest != moved.Root.Digest {
		t.Errorf("excluded tag: got %s, want the new manifest", res.Descriptor.Digest)
	}
	// Removed, it is anew what upstream has.
	if _, err := b.Remove(soon(t), ref); err != nil {
		t.Fatal(err)
	}
	if res := b.resolve(ref, Miss); res.Descriptor.Digest != moved.Root.Digest {
		t.Errorf("after removal: got %s, want the new manifest", res.Descriptor.Digest)
	}
}

// An immutable tag whose manifest was lost gets that manifest back, and no other.
func TestImmutableTagWithoutManifest(t *testing.T) {
	t.Parallel()
	first, moved := build(1), build(2)
	b, up := one(t, first, withSettings(t, Settings{ImageTagMutability: Immutable}))
	ref := app(t, "1")
	b.resolve(ref, Miss)
	up.PutImage("library/app", "1", moved)
	if err := b.Store.Delete(soon(t), first.Root.Digest); err != nil {
		t.Fatal(err)
	}
	if res := b.resolve(ref, Miss); res.Descriptor.Digest != first.Root.Digest {
		t.Errorf("lost manifest: got %s, want the first tag", res.Descriptor.Digest)
	}
	if err := os.Truncate(b.blobFile(first.Root.Digest), 3); err != nil {
		t.Fatal(err)
	}
	if m, err := b.Manifest(soon(t), ref); err != nil || m.Descriptor.Digest != first.Root.Digest {
		t.Errorf("damaged manifest: got %v, %v, want the first tag", m.Descriptor, err)
	}
	up.DeleteRepository("library/app")
	if err := b.Store.Delete(soon(t), first.Root.Digest); err != nil {
		t.Fatal(err)
	}
	if res, err := b.Resolve(soon(t), ref); !errdefs.IsNotFound(err) {
		t.Errorf("lost here and there: got %v, %v, want not found", res, err)
	}
}

// The window, and what becomes of deleted tags, can differ from rule to rule; a
// pattern for tags says more than either.
func TestWindowAndDeletedByRule(t *testing.T) {
	t.Parallel()
	pinned, err := ParsePattern("*:pinned")
	if err != nil {
		t.Fatal(err)
	}
	f := DefaultFreshness()
	f.Tags = []TagWindow{{Match: pinned, Window: 100 * time.Hour}}
	settings := marked(1)
	settings.Deleted = DeletedRefuse
	b, up := one(t, build(1), withFreshness(f), withSettings(t, settings))
	up.PutImage("library/app", "pinned", build(1))
	ref, byPattern := app(t, "1"), app(t, "pinned")
	for _, r := range []Reference{ref, byPattern} {
		b.resolve(r, Miss)
		b.change(r, func(tag *cache.Tag) { tag.Validated = time.Now().Add(-2 * time.Minute) })
	}
	if img, err := b.Image(ref); err != nil || img.State != "stale" || img.Window != "1m0s" {
		t.Errorf("got %s, window %s, %v, want the rule's minute", img.State, img.Window, err)
	}
	up.DeleteTag("library/app", "1")
	if n := counted(up, func() { b.resolve(byPattern, Hit) }); n != 0 {
		t.Errorf("inside the pattern's window upstream saw %d requests, want 0", n)
	}
	for range 2 {
		if _, err := b.Resolve(soon(t), ref); !errdefs.IsNotFound(err) {
			t.Errorf("got %v, want it refused by the rule", err)
		}
	}
}

// What is immutable keeps its companions, and may get new ones: where those are
// asked for in any case, a signature's stored tag is no hindrance.
func TestCompanionsOfImmutableTag(t *testing.T) {
	t.Parallel()
	up := remotestest.New(t)
	c := putCompanion(up, 1)
	b := newBench(t, []*remotestest.Registry{up}, withCompanions, withSettings(t, Settings{
		ImageTagMutability: ImmutableWithExclusion, ImageTagMutabilityExclusionFilters: []string{"1"},
	}))
	if _, err := b.Pull(soon(t), app(t, "1"), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	later := up.PutReferrer("library/app", c.img.Root, sbomType, []byte("later"))
	s := sighting{repo: appRepo(), digest: c.img.Root.Digest, at: time.Now(), force: true}
	if err := b.follow(soon(t), s, func(BlobProgress) {}); err != nil {
		t.Errorf("refreshed: %v", err)
	}
	b.wantWhole(later)
	// A damaged one is brought anew.
	b.damage(b.blobFile(c.cosign.Digest), []byte(strings.Repeat(" ", int(c.cosign.Size))))
	b.described.Purge()
	res, err := b.Pull(soon(t), app(t, "1"), PullOptions{})
	if err != nil || res.Unaccompanied != nil {
		t.Errorf("pull: %v, %v", err, res.Unaccompanied)
	}
	b.wantWhole(append(c.all(), later)...)
}
