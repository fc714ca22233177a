package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// evictions is a store whose clock stands, with what it evicted.
type evictions struct {
	*Store
	t   *testing.T
	now time.Time
}

func newEvictions(t *testing.T) *evictions {
	t.Helper()
	e := &evictions{t: t, now: time.Now().Add(1000 * time.Hour)} // blobs' files are that old
	e.Store = openStore(t, t.TempDir(), WithClock(func() time.Time { return e.now }), WithBudget(Budget{MaxSize: Amount{Bytes: 1 << 40}}))
	return e
}

func (e *evictions) ago(d time.Duration) time.Time { return e.now.Add(-d) }

// image puts an image that was used so long ago.
func (e *evictions) image(tag string, unused time.Duration, seeds ...uint64) image {
	e.t.Helper()
	return putImage(e.t, e.Store, tag, e.ago(unused), seeds...)
}

// collect evicts all that may go, or as many bytes, and returns the names.
func (e *evictions) collect(bytes int64) (names []string) {
	e.t.Helper()
	u, err := e.Usage()
	if err != nil {
		e.t.Fatal(err)
	}
	to := int64(0)
	if bytes >= 0 {
		to = u.Taken - bytes
	}
	_, err = e.Collect(e.t.Context(), CollectOptions{To: to, Report: func(ev Eviction) {
		for _, n := range ev.Names {
			names = append(names, strings.TrimPrefix(n, testRepo))
		}
		if len(ev.Names) == 0 {
			names = append(names, "no image")
		}
	}})
	if err != nil {
		e.t.Fatal(err)
	}
	return names
}

func (e *evictions) want(what string, got []string, want ...string) {
	e.t.Helper()
	if !slices.Equal(got, want) {
		e.t.Errorf("%s: %q went, want %q", what, got, want)
	}
}

func (e *evictions) wantStored(dgsts ...digest.Digest) {
	e.t.Helper()
	for _, dgst := range dgsts {
		if has, err := e.Has(dgst); !has || err != nil {
			e.t.Errorf("%s is gone: %v", dgst, err)
		}
	}
}

func (e *evictions) wantGone(dgsts ...digest.Digest) {
	e.t.Helper()
	for _, dgst := range dgsts {
		if has, err := e.Has(dgst); has || err != nil {
			e.t.Errorf("%s is still there: %v", dgst, err)
		}
	}
}

// fixedCosts have a weight for each repository.
type fixedCosts map[string]float64

func (c fixedCosts) Cost(repository, source string) Cost {
	return Cost{Weight: c[repository], Why: repository + " is slow (" + source + ")"}
}

// TestEvictOrder: blobs of no image go first, then images by the time for which
// they were not used, over what they cost; what upstream has deleted and what is
// young come last.
func TestEvictOrder(t *testing.T) {
	t.Parallel()
	e := newEvictions(t)
	NewKeeper(e.Store, KeeperConfig{Costs: fixedCosts{"dear.test/x": 4}})
	e.image("old", 100*time.Hour, 1)
	e.image("older", 200*time.Hour, 2)
	e.image("young", time.Minute, 3)
	dear := e.image("moved", 300*time.Hour, 4)
	putTag(t, e.Store, "dear.test/x:1", dear.root, e.ago(300*time.Hour))
	gone := e.image("gone", 900*time.Hour, 5)
	tag, err := e.Tag(gone.name)
	if err != nil {
		t.Fatal(err)
	}
	tag.Gone = true
	if err := e.PutTag(tag); err != nil {
		t.Fatal(err)
	}
	putSeeded(t, e.Store, 99, 5000)
	used := putSeeded(t, e.Store, 98, 5000)
	if err := e.SetFacts(used, Facts{Used: e.now}); err != nil {
		t.Fatal(err)
	}
	e.Touch(testRepo+":old", "") // not in the index yet
	e.now = e.now.Add(50 * time.Hour)
	if err := e.SetFacts(used, Facts{Used: e.now}); err != nil {
		t.Fatal(err)
	}
	e.image("young", time.Minute, 3)
	e.want("order", e.collect(-1), "no image", ":older", "dear.test/x:1", ":moved", ":old", ":gone", "no image", ":young")
	wantUsage(t, e.Store, "all is gone")
}

// TestEvictWhole: with an image goes all that hangs on it alone, in the index
// too, and nothing that another one needs.
func TestEvictWhole(t *testing.T) {
	t.Parallel()
	e := newEvictions(t)
	old := e.image("old", 100*time.Hour, 1, 2)
	fresh := e.image("fresh", time.Hour, 2, 3)
	sig := putManifest(t, e.Store, "sig", ocispec.MediaTypeImageManifest, putSeeded(t, e.Store, 50, 10))
	sbom := putManifest(t, e.Store, "sbom", ocispec.MediaTypeImageManifest, putSeeded(t, e.Store, 51, 10))
	sigTag := testRepo + ":sha256-" + old.root.Encoded() + ".sig"
	putTag(t, e.Store, sigTag, sig, e.ago(0))
	for _, dgst := range []digest.Digest{sig, sbom} {
		if err := e.PutLink(Link{Repository: testRepo, Digest: dgst, Companion: true}); err != nil {
			t.Fatal(err)
		}
	}
	err := e.ChangeReferrers(testRepo, old.root, func(rf *Referrers) { rf.Manifests = []ocispec.Descriptor{{Digest: sbom}} })
	if err != nil {
		t.Fatal(err)
	}
	e.want("one image", e.collect(1), ":old")
	e.wantGone(old.root, old.layers[0], sig, sbom)
	e.wantStored(fresh.blobs()...)
	for _, name := range []string{old.name, sigTag} {
		if _, err := e.Tag(name); !errdefs.IsNotFound(err) {
			t.Errorf("tag %s is still there: %v", name, err)
		}
	}
	if links, err := e.Links(); err != nil || len(links) != 1 {
		t.Errorf("links are %v, %v, want the fresh image's", links, err)
	}
	e.want("the other image", e.collect(-1), ":fresh")
	if _, err := e.Facts(digest.FromString("no config")); !errdefs.IsNotFound(err) {
		t.Errorf("a blob that never came is remembered: %v", err)
	}
	if _, err := e.Referrers(testRepo, old.root); !errdefs.IsNotFound(err) {
		t.Errorf("the referrers are still there: %v", err)
	}
	if holders, err := e.Holders(old.root); err != nil || len(holders) != 0 {
		t.Errorf("holders are %v, %v", holders, err)
	}
	wantUsage(t, e.Store, "evicted")
	for _, name := range []string{old.name, sigTag} {
		h, err := e.History(name)
		if err != nil || len(h.Entries) != 1 || h.Entries[0].Why != Evicted || !strings.Contains(h.Entries[0].Detail, "unused for 4 days") {
			t.Errorf("history of %s is %+v, %v", name, h, err)
		}
	}
	gr, err := e.GraveOf(old.name, "")
	if err != nil || gr.Digest != old.root || gr.Count != 6 || !strings.Contains(gr.Why, "unused for 4 days") {
		t.Errorf("grave is %+v, %v", gr, err)
	}
	if gr, err = e.GraveOf("", old.layers[0]); err != nil || gr.Names[0] != old.name {
		t.Errorf("grave of a layer is %+v, %v", gr, err)
	}
	if _, err = e.GraveOf(testRepo+":never", ""); !errdefs.IsNotFound(err) {
		t.Errorf("grave of what is stored: %v", err)
	}
}

// TestEvictSpares: pinned, exposed, in use, read, held, filled, used since, and
// what these need.
func TestEvictSpares(t *testing.T) {
	t.Parallel()
	e := newEvictions(t)
	const old = 500 * time.Hour
	NewKeeper(e.Store, KeeperConfig{Users: inUse(func() (map[digest.Digest]string, error) {
		_, config := blobOf(30, 10_000)
		return map[digest.Digest]string{config: "pod web"}, nil
	})})
	pinned, byDigest, exposed := e.image("pinned", old, 1, 2), e.image("pinned-by-digest", old, 3), e.image("exposed", old, 4)
	used, read, held := e.image("in-use", old, 30), e.image("read", old, 5), e.image("held", old, 6)
	shares := e.image("shares", old, 2, 7)
	byPattern, bare := e.image("like-this", old, 8), e.image("bare", old, 9)
	for _, name := range []string{pinned.name, testRepo + "@" + byDigest.root.String(), "registry.test/*:like-*", bare.root.String()} {
		if err := e.PutPin(Pin{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := e.Expose(exposed.layers[0]); err != nil {
		t.Fatal(err)
	}
	b, err := e.Open(read.layers[0])
	if err != nil {
		t.Fatal(err)
	}
	release := e.Hold(held.root)
	w, err := e.Writer(t.Context(), content.WithRef("open"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("some")); err != nil {
		t.Fatal(err)
	}
	e.want("all that may go", e.collect(-1), ":shares")
	e.wantGone(shares.root, shares.layers[1])
	for _, img := range []image{pinned, byDigest, byPattern, bare, exposed, used, read, held} {
		e.wantStored(img.blobs()...)
	}
	wantUsage(t, e.Store, "spared")
	err = errors.Join(b.Close(), w.Close())
	release()
	if err != nil {
		t.Fatal(err)
	}
	e.now = e.now.Add(time.Hour)
	e.want("let go", e.collect(-1), "no image", ":held", ":read")
	e.wantStored(slices.Concat(pinned.blobs(), byDigest.blobs(), exposed.blobs(), used.blobs())...)
}

type inUse func() (map[digest.Digest]string, error)

func (f inUse) InUse(context.Context) (map[digest.Digest]string, error) { return f() }

// TestEvictUsersFail: as long as it cannot be told what is in use, what was so
// last stays; if it never could, what was used within a day.
func TestEvictUsersFail(t *testing.T) {
	t.Parallel()
	e := newEvictions(t)
	fails := true
	lately, old := e.image("lately", 20*time.Hour, 1), e.image("old", 30*time.Hour, 2)
	users := inUse(func() (map[digest.Digest]string, error) {
		if fails {
			return nil, errors.New("no runtime")
		}
		return map[digest.Digest]string{lately.root: "pod web"}, nil
	})
	NewKeeper(e.Store, KeeperConfig{Users: users})
	e.want("never answered", e.collect(-1), ":old")
	e.wantGone(old.blobs()...)
	fails = false
	e.image("next", 30*time.Hour, 3)
	e.want("answers", e.collect(-1), ":next")
	fails = true
	e.now = e.now.Add(1000 * time.Hour)
	e.image("last", time.Hour, 4)
	e.want("answers no more", e.collect(-1), ":last")
	e.wantStored(lately.blobs()...)
}

// TestEvictSparesWhatIsTaken: what is used, pinned or moved between the choice
// and the deed stays.
func TestEvictSparesWhatIsTaken(t *testing.T) {
	t.Parallel()
	for name, take := range map[string]func(e *evictions, img image) error{
		"asked for": func(e *evictions, img image) error { e.Touch("", img.root); return nil },
		"used":      func(e *evictions, img image) error { e.Touch(img.name, ""); return nil },
		"pulled":    func(e *evictions, img image) error { e.NoteServed(img.layers[0]); return nil },
		"pinned":    func(e *evictions, img image) error { return e.PutPin(Pin{Name: img.name}) },
		"moved": func(e *evictions, img image) error {
			putTag(e.t, e.Store, img.name, digest.FromString("elsewhere"), e.now)
			return nil
		},
		"named": func(e *evictions, img image) error {
			return e.NoteManifest(digest.FromString("new"), Manifest{Blobs: []ocispec.Descriptor{{Digest: img.layers[0]}}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEvictions(t)
			img := e.image("1", 100*time.Hour, 1, 2)
			p, err := e.beginPass(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			defer p.end()
			e.now = e.now.Add(time.Second)
			if err := take(e, img); err != nil {
				t.Fatal(err)
			}
			if went, _, err := p.next(t.Context(), 1); len(went) > 0 || err != nil {
				t.Errorf("%+v went, %v", went, err)
			}
			e.wantStored(img.blobs()...)
		})
	}
}

// TestEvictCrash: what a crash leaves in the middle of an eviction goes first
// next time.
func TestEvictCrash(t *testing.T) {
	t.Parallel()
	e := newEvictions(t)
	img := e.image("1", 100*time.Hour, 1, 2)
	e.image("2", 200*time.Hour, 3)
	e.now = e.now.Add(time.Hour)
	p, err := e.beginPass(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range p.graph.images {
		if dgst := p.graph.digestOf(r.target); dgst == img.root {
			if _, err := p.forgetNames([]doomed{{rooted: r, Eviction: Eviction{Digest: dgst}}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	p.end()
	e.want("after the crash", e.collect(28_000), "no image")
	e.wantGone(img.blobs()...)
}

// TestEvictDry chooses the same and changes nothing.
func TestEvictDry(t *testing.T) {
	t.Parallel()
	e := newEvictions(t)
	e.image("old", 100*time.Hour, 1, 2)
	e.image("fresh", time.Hour, 2, 3)
	before := wantUsage(t, e.Store, "before")
	var first []Eviction
	done, err := e.Collect(t.Context(), CollectOptions{To: 0, DryRun: true, Report: func(ev Eviction) { first = append(first, ev) }})
	if err != nil || done.Images != 2 || done.Blobs != 5 || done.Bytes != before.Stored {
		t.Errorf("dry: %+v, %v, want all %d bytes", done, err, before.Stored)
	}
	if after := wantUsage(t, e.Store, "after"); after.Stored != before.Stored {
		t.Errorf("a dry run freed %d bytes", before.Stored-after.Stored)
	}
	done, err = e.Collect(t.Context(), CollectOptions{To: 0, Report: func(ev Eviction) {
		if want := first[0]; !slices.Equal(ev.Names, want.Names) || ev.Blobs != want.Blobs || ev.Bytes != want.Bytes {
			t.Errorf("%+v went, the dry run said %+v", ev, want)
		}
		first = first[1:]
	}})
	if err != nil || len(first) != 0 {
		t.Errorf("%+v, %v", done, err)
	}
}

// TestEvictLeftIngest: what arrived and was left goes like a blob of no image.
func TestEvictLeftIngest(t *testing.T) {
	t.Parallel()
	e := newEvictions(t)
	w, err := e.Writer(t.Context(), content.WithRef("left"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 5000)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	e.now = e.now.Add(time.Hour)
	e.want("left", e.collect(-1), "no image")
	if _, err := e.Status(t.Context(), "left"); !errdefs.IsNotFound(err) {
		t.Errorf("the ingest is still there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(e.Root(), "ingest")); err != nil {
		t.Error(err)
	}
	wantUsage(t, e.Store, "evicted")
}

// TestEvictShared: what many repositories have stays as long as one of them
// needs it, and goes with the last.
func TestEvictShared(t *testing.T) {
	t.Parallel()
	e := newEvictions(t)
	img := e.image("1", 500*time.Hour, 1, 2)
	names := []string{":1"}
	for i := range 20 {
		repository := fmt.Sprintf("registry.test/team-%02d", i)
		putTag(t, e.Store, repository+":1", img.root, e.ago(500*time.Hour))
		if err := e.PutLink(Link{Repository: repository, Digest: img.root, Asked: i%2 == 0}); err != nil {
			t.Fatal(err)
		}
	}
	pin := Pin{Name: "registry.test/team-07:1"}
	if err := e.PutPin(pin); err != nil {
		t.Fatal(err)
	}
	e.want("one is pinned", e.collect(-1))
	e.wantStored(img.blobs()...)
	if err := e.DeletePin(pin.Name, ""); err != nil {
		t.Fatal(err)
	}
	if got := e.collect(-1); len(got) != len(names)+20+10 {
		t.Errorf("%q went, want all %d names", got, len(names)+20+10)
	}
	e.wantGone(img.blobs()...)
	if u := wantUsage(t, e.Store, "evicted"); u.Stored != 0 {
		t.Errorf("%d bytes were not freed", u.Stored)
	}
	links, err := e.Links()
	tags, terr := e.Tags()
	if err != nil || terr != nil || len(links)+len(tags) != 0 {
		t.Errorf("%d links and %d tags are left, %v, %v", len(links), len(tags), err, terr)
	}
}

// TestEvictWhileIndexIsRestored: an index that was lost does not know what is
// needed: nothing goes until it has its tags back, and nothing that belongs to no
// image until all is known again.
func TestEvictWhileIndexIsRestored(t *testing.T) {
	t.Parallel()
	e := newEvictions(t)
	img := e.image("1", 100*time.Hour, 1)
	_, lone := putBlob(t, e.Store, 2, 100)
	e.now = e.now.Add(time.Hour)
	if err := e.index.put(stateBucket, newKey, true); err != nil {
		t.Fatal(err)
	}
	if done, err := e.Collect(t.Context(), CollectOptions{}); !errdefs.IsUnavailable(err) || done.Bytes != 0 {
		t.Errorf("%+v went, %v", done, err)
	}
	e.wantStored(append(img.blobs(), lone)...)
	if err := errors.Join(e.index.delete(stateBucket, newKey), e.index.put(stateBucket, rebuildKey, true)); err != nil {
		t.Fatal(err)
	}
	e.want("while it is rebuilt", e.collect(-1), ":1")
	e.wantStored(lone)
	if err := e.index.delete(stateBucket, rebuildKey); err != nil {
		t.Fatal(err)
	}
	e.want("rebuilt", e.collect(-1), "no image")
}

// TestEvictForgetsOnlyClaims: what a manifest said of a blob goes with the
// manifest, but not what is known of one that came since the pass began, whoever
// wrote it.
func TestEvictForgetsOnlyClaims(t *testing.T) {
	t.Parallel()
	e := newEvictions(t)
	img := e.image("1", 100*time.Hour, 1)
	never := digest.FromString("never")
	data, came := blobOf(2, 10_000)
	descs := []ocispec.Descriptor{{Digest: img.layers[0]}, {Digest: never, Size: 5}, {Digest: came, Size: 5}}
	if err := e.NoteManifest(img.root, Manifest{Blobs: descs}); err != nil {
		t.Fatal(err)
	}
	p, err := e.beginPass(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer p.end()
	if err := content.WriteBlob(t.Context(), e.Store, "came", bytes.NewReader(data), ocispec.Descriptor{Digest: came, Size: int64(len(data))}); err != nil {
		t.Fatal(err)
	}
	if went, _, err := p.next(t.Context(), 1); len(went) != 1 || err != nil {
		t.Fatalf("%+v went, %v", went, err)
	}
	if err := p.forget(); err != nil {
		t.Fatal(err)
	}
	if f, err := e.Facts(never); !errdefs.IsNotFound(err) {
		t.Errorf("of a blob that never came, %+v is known, %v", f, err)
	}
	if f, err := e.Facts(came); err != nil || f.Size != int64(len(data)) || !f.IsMeasured() {
		t.Errorf("of a blob that came, %+v is known, %v", f, err)
	}
}
