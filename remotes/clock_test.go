package remotes

import (
	"fmt"
	"testing"
	"time"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
)

const year = 365 * 24 * time.Hour

// turnClock sets the clock by d, back if it is negative, as a stored tag sees it:
// all of its times move the other way.
func (b *bench) turnClock(d time.Duration, refs ...Reference) {
	b.t.Helper()
	for _, ref := range refs {
		b.change(ref, func(tag *cache.Tag) {
			for _, at := range []*time.Time{&tag.Created, &tag.Moved, &tag.Validated, &tag.Used, &tag.NextCheck} {
				if !at.IsZero() {
					*at = at.Add(-d)
				}
			}
		})
	}
}

// A clock that was set back makes a tag neither fresh nor held off for ever.
func TestClockSetBack(t *testing.T) {
	t.Parallel()
	b, up := one(t, build(1))
	ref := app(t, "1")
	b.resolve(ref, Miss)
	b.change(ref, func(tag *cache.Tag) {
		tag.Validated = time.Now().Add(year)
		tag.NextCheck, tag.Failures = tag.Validated, 3
	})
	if n := counted(up, func() { b.resolve(ref, Hit) }); n != 1 {
		t.Errorf("upstream saw %d requests, want 1 check", n)
	}
	tag, err := b.Store.Tag(ref.String())
	if err != nil || time.Until(tag.Validated) > 0 || tag.Failures != 0 {
		t.Errorf("after the check: %+v, %v, want it validated now", tag, err)
	}
	// By an hour: what was checked in it is asked for once, and what was checked
	// before is fresh for an hour more.
	b.turnClock(-time.Hour, ref)
	if n := counted(up, func() { b.resolve(ref, Hit); b.resolve(ref, Hit) }); n != 1 {
		t.Errorf("an hour back: upstream saw %d requests, want 1 check", n)
	}
	b.back(time.Hour, ref, 24*time.Hour+30*time.Minute)
	if n := counted(up, func() { b.resolve(ref, Hit) }); n != 0 {
		t.Errorf("half an hour behind the window: upstream saw %d requests, want 0", n)
	}
	b.back(time.Hour, ref, 25*time.Hour+time.Minute)
	if n := counted(up, func() { b.resolve(ref, Hit) }); n != 1 {
		t.Errorf("an hour behind the window: upstream saw %d requests, want 1 check", n)
	}
	// And the pause behind a failed check lasts an hour more.
	up.Stop()
	b.back(time.Hour, ref, time.Minute)
	b.resolve(ref, Stale)
	up.Start()
	b.turnClock(-time.Hour, ref)
	if n := counted(up, func() { b.resolve(ref, Stale) }); n != 0 {
		t.Errorf("in the pause: upstream saw %d requests, want 0", n)
	}
	b.turnClock(time.Hour+b.Freshness.Retry, ref)
	b.resolve(ref, Hit)
}

// back sets the clock back for a tag that was checked so long ago.
func (b *bench) back(d time.Duration, ref Reference, checked time.Duration) {
	b.t.Helper()
	b.change(ref, func(tag *cache.Tag) { tag.Validated = time.Now().Add(-checked) })
	b.turnClock(-d, ref)
}

// A year on, every tag is checked once; if upstream is dead, as it is to who
// finds its certificate expired, what is stored is served. None of it goes, and
// what is asked for by digest asks nobody.
func TestClockSetForward(t *testing.T) {
	t.Parallel()
	images := []remotestest.Image{build(1), build(2), build(3)}
	b, up := one(t, images[0])
	refs := []Reference{app(t, "1"), app(t, "2"), app(t, "3")}
	for i, img := range images {
		up.PutImage("library/app", fmt.Sprint(i+1), img)
		if _, err := b.Pull(soon(t), refs[i], PullOptions{Platforms: []string{"all"}}); err != nil {
			t.Fatal(err)
		}
	}
	b.turnClock(year, refs...)
	n := counted(up, func() {
		for range 2 {
			for _, ref := range refs {
				b.resolve(ref, Hit)
			}
		}
	})
	if n != len(refs) {
		t.Errorf("upstream saw %d requests, want a check of each of %d tags", n, len(refs))
	}
	b.turnClock(year, refs...)
	up.Stop()
	for i, ref := range refs {
		if res := b.resolve(ref, Stale); res.Descriptor.Digest != images[i].Root.Digest {
			t.Errorf("%s is %s, want what was stored", ref, res.Descriptor.Digest)
		}
		b.resolve(app(t, images[i].Root.Digest.String()), Hit)
		if n := b.has(images[i]); n != len(images[i].Descriptors()) {
			t.Errorf("%s: %d of %d are stored", ref, n, len(images[i].Descriptors()))
		}
	}
}

// A lifecycle policy that counts days believes the clock: set back it expires
// nothing, a year on all that it selects and that no pin keeps.
func TestLifecycleBelievesClock(t *testing.T) {
	t.Parallel()
	images := []remotestest.Image{build(1), build(2)}
	b, _ := aged(t, noOld, images...)
	if _, err := b.pin(app(t, "1"), ""); err != nil {
		t.Fatal(err)
	}
	for _, img := range images {
		b.age(appRepo(), img.Root.Digest, -1)
	}
	if gone, kept, _ := b.expired(); len(gone)+len(kept) != 0 {
		t.Errorf("a day back: gone %v, kept %v, want no image selected", gone, kept)
	}
	for _, img := range images {
		b.age(appRepo(), img.Root.Digest, 365)
	}
	gone, kept, _ := b.expired()
	if fmt.Sprint(gone) != fmt.Sprint([]digest.Digest{images[1].Root.Digest}) || kept[images[0].Root.Digest] == "" {
		t.Errorf("a year on: gone %v, kept %v, want the pinned one kept alone", gone, kept)
	}
}
