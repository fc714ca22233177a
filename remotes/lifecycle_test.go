package remotes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	keepTwo    = `{"rules":[{"rulePriority":1,"description":"keep two","selection":{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":2},"action":{"type":"expire"}}]}`
	noUntagged = `{"rules":[{"rulePriority":7,"selection":{"tagStatus":"untagged","countType":"sinceImagePushed","countUnit":"days","countNumber":1},"action":{"type":"expire"}}]}`
	noOld      = `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"sinceImagePushed","countUnit":"days","countNumber":1},"action":{"type":"expire"}}]}`
	idleWeek   = `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"sinceImagePulled","countUnit":"days","countNumber":7},"action":{"type":"expire"}}]}`
	archiveAll = `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"sinceImagePushed","countUnit":"days","countNumber":1},"action":{"type":"transition","targetStorageClass":"archive"}}]}`
)

// aged has docker.io/library/app at upstream and pulled, a tag for each image: 1
// for the first, and so on. Each is a day younger than the one before; the last
// came three days ago.
func aged(t *testing.T, policy string, images ...remotestest.Image) (*bench, *remotestest.Registry) {
	t.Helper()
	b, up := one(t, images[0], withSettings(t, Settings{LifecyclePolicy: policy}), withCompanions)
	for i, img := range images {
		tag := fmt.Sprint(i + 1)
		up.PutImage("library/app", tag, img)
		if _, err := b.Pull(soon(t), app(t, tag), PullOptions{Platforms: []string{"all"}}); err != nil {
			t.Fatal(err)
		}
		b.age(appRepo(), img.Root.Digest, 2+len(images)-i)
	}
	return b, up
}

// age has a manifest come into a repository so many days ago.
func (b *bench) age(repo Repository, dgst digest.Digest, days int) {
	b.t.Helper()
	link, err := b.Store.Link(repo.String(), dgst)
	if err != nil {
		b.t.Fatal(err)
	}
	link.Created = time.Now().Add(-time.Duration(days) * 24 * time.Hour)
	if err := b.Store.PutLink(link); err != nil {
		b.t.Fatal(err)
	}
}

// expired runs the lifecycle policies: digests that went, in their order, and
// those that a rule selected but that stay, with the reason.
func (b *bench) expired() (gone []digest.Digest, kept map[digest.Digest]string, removed Removed) {
	b.t.Helper()
	plans, err := b.Lifecycle(soon(b.t), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	reports, removed, err := b.ExpireImages(soon(b.t), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	if fmt.Sprint(plans) != fmt.Sprint(reports) {
		b.t.Errorf("previewed %+v, done %+v", plans, reports)
	}
	kept = map[digest.Digest]string{}
	for _, rep := range reports {
		if rep.Problem != "" {
			b.t.Errorf("%s: %s", rep.Repository, rep.Problem)
		}
		for _, d := range rep.Decisions {
			if d.Kept != "" {
				kept[d.Digest] = d.Kept
			} else {
				gone = append(gone, d.Digest)
			}
		}
	}
	return gone, kept, removed
}

// has reports how many of an image's manifests and blobs are stored.
func (b *bench) has(img remotestest.Image) (n int) {
	b.t.Helper()
	for _, d := range img.Descriptors() {
		if has, err := b.Store.Has(d.Digest); err != nil {
			b.t.Error(err)
		} else if has {
			n++
		}
	}
	return n
}

// TestLifecycle: the oldest goes with all its tags and blobs, what is told is
// what is done, and the history of its tags names the rule.
func TestLifecycle(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	images := []remotestest.Image{remotestest.Build(multi()), build(6), build(7)}
	b, up := aged(t, keepTwo, images...)
	up.PutImage("library/app", "twin", images[0])
	b.resolve(app(t, "twin"), Miss)
	b.Logger = slog.New(slog.NewTextHandler(&log, nil))
	gone, kept, removed := b.expired()
	if !slices.Equal(gone, []digest.Digest{images[0].Root.Digest}) || len(kept) != 0 {
		t.Fatalf("gone %v, kept %v, want the first image alone", gone, kept)
	}
	if want := len(images[0].Descriptors()); removed.Blobs != want || b.has(images[0]) != 0 {
		t.Errorf("removed %+v, %d are there, want all %d removed", removed, b.has(images[0]), want)
	}
	for _, img := range images[1:] {
		if n := b.has(img); n != len(img.Descriptors()) {
			t.Errorf("%d of a younger image are left, want %d", n, len(img.Descriptors()))
		}
	}
	for _, tag := range []string{"1", "twin"} {
		h, err := b.Store.History(app(t, tag).String())
		if err != nil || len(h.Entries) != 1 || h.Entries[0].Why != cache.Expired || h.Entries[0].Detail != "rule 1 (keep two)" {
			t.Errorf("history of %s: %+v, %v", tag, h, err)
		}
	}
	for _, want := range []string{"image expired", images[0].Root.Digest.String(), "[1 twin]", "rule 1 (keep two)", `rule \"docker-hub\"`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q: %s", want, log.String())
		}
	}
	if gone, kept, _ := b.expired(); len(gone)+len(kept) != 0 {
		t.Errorf("once more: gone %v, kept %v", gone, kept)
	}
	b.resolve(app(t, "1"), Miss) // and it can be had again
	if gone, _, _ := b.expired(); !slices.Equal(gone, []digest.Digest{images[1].Root.Digest}) {
		t.Errorf("gone %v, want the second image: what was pulled again is new", gone)
	}
}

// What is pinned, in use or being pulled stays, and so does what it needs.
func TestLifecycleKeeps(t *testing.T) {
	t.Parallel()
	images := []remotestest.Image{build(1), build(2), remotestest.Build(multi()), build(4), build(5), build(6), build(7)}
	b, _ := aged(t, noOld, images...)
	if _, err := b.pin(app(t, "1"), "the boss's"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.pin(app(t, images[1].Root.Digest.String()), ""); err != nil {
		t.Fatal(err)
	}
	config := images[3].Descriptors()[0].Digest
	for _, d := range images[3].Descriptors() {
		if strings.Contains(d.MediaType, "config") {
			config = d.Digest
		}
	}
	var child digest.Digest // manifest of one platform
	for _, d := range images[2].Descriptors() {
		if strings.Contains(d.MediaType, "manifest") {
			child = d.Digest
		}
	}
	b.Users = users{child: "pod a", config: "pod b"}
	defer b.Store.Hold(images[4].Root.Digest)()
	gone, kept, _ := b.expired()
	if !slices.Equal(gone, []digest.Digest{images[5].Root.Digest, images[6].Root.Digest}) {
		t.Errorf("gone %v, want the last two", gone)
	}
	for i, want := range []string{"pinned by cli: the boss's", "pinned by cli", "in use by pod a", "in use by pod b", "being pulled"} {
		if got := kept[images[i].Root.Digest]; got != want || b.has(images[i]) != len(images[i].Descriptors()) {
			t.Errorf("image %d: kept %q with %d blobs, want %q with all", i+1, got, b.has(images[i]), want)
		}
	}
	b.Users = nobodyKnows{}
	if _, _, err := b.ExpireImages(soon(t), nil); !errdefs.IsUnavailable(err) {
		t.Errorf("who cannot be asked: %v, want it told, and nothing to go", err)
	}
}

type users map[digest.Digest]string

func (u users) InUse(context.Context) (map[digest.Digest]string, error) { return u, nil }

type nobodyKnows struct{}

func (nobodyKnows) InUse(context.Context) (map[digest.Digest]string, error) {
	return nil, fmt.Errorf("runtime: %w", errdefs.ErrUnavailable)
}

// What a tag has left is untagged, and goes; the parts of an index and its
// signatures belong to it, and stay.
func TestLifecycleUntagged(t *testing.T) {
	t.Parallel()
	before, index := build(1), remotestest.Build(multi())
	b, up := aged(t, noUntagged, before)
	up.PutImage("library/app", "1", index)
	up.PutReferrer("library/app", index.Root, sigType, []byte("signature"))
	if _, err := b.Refresh(soon(t), app(t, "1")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Pull(soon(t), app(t, "1"), PullOptions{Platforms: []string{"all"}}); err != nil {
		t.Fatal(err)
	}
	links, err := b.Store.LinksOf(appRepo().String())
	if err != nil || len(links) != 6 {
		t.Fatalf("links %v, %v, want those of two images, three platforms and a signature", links, err)
	}
	for _, l := range links {
		b.age(appRepo(), l.Digest, 9)
	}
	gone, kept, _ := b.expired()
	if !slices.Equal(gone, []digest.Digest{before.Root.Digest}) || len(kept) != 0 || b.has(before) != 0 {
		t.Errorf("gone %v, kept %v, %d blobs left, want what the tag has left", gone, kept, b.has(before))
	}
	if n := b.has(index); n != len(index.Descriptors()) {
		t.Errorf("%d of the index are there, want %d", n, len(index.Descriptors()))
	}
}

// An image's companions go with it, and count for nothing.
func TestLifecycleTakesCompanions(t *testing.T) {
	t.Parallel()
	b, up := aged(t, keepTwo, build(1), build(6), build(7))
	c := putCompanion(up, 8)
	up.PutImage("library/app", "signed", c.img)
	if _, err := b.Pull(soon(t), app(t, "signed"), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, d := range append(c.all(), c.img.Root) {
		if has, err := b.Store.Has(d.Digest); !has || err != nil {
			t.Fatalf("%s did not come along: %v", d.Digest, err)
		}
	}
	b.age(appRepo(), c.img.Root.Digest, 90)
	gone, _, _ := b.expired()
	if len(gone) != 2 || gone[0] != c.img.Root.Digest {
		t.Errorf("gone %v, want the signed image, then the next", gone)
	}
	for _, d := range append(c.all(), c.img.Root) {
		if has, err := b.Store.Has(d.Digest); has || err != nil {
			t.Errorf("%s is left: %t, %v", d.Digest, has, err)
		}
	}
	sig := Reference{Repository: appRepo(), Tag: remotestest.SignatureTag(c.img.Root.Digest, ".sig")}
	if h, err := b.Store.History(sig.String()); err != nil || h.Entries[0].Why != cache.Expired {
		t.Errorf("history of the signature's tag: %+v, %v", h, err)
	}
}

// Days without use count from the last pull through larder.
func TestLifecyclePulled(t *testing.T) {
	t.Parallel()
	images := []remotestest.Image{build(1), build(2)}
	var ago atomic.Int64 // by which the store's clock is behind
	b, up := one(t, images[0], withSettings(t, Settings{LifecyclePolicy: idleWeek}), func(s *setup) {
		s.clock = func() time.Time { return time.Now().Add(-time.Duration(ago.Load())) }
	})
	up.PutImage("library/app", "2", images[1])
	ago.Store(int64(30 * 24 * time.Hour))
	for i, img := range images {
		if _, err := b.Pull(soon(t), app(t, fmt.Sprint(i+1)), PullOptions{}); err != nil {
			t.Fatal(err)
		}
		b.age(appRepo(), img.Root.Digest, 30)
	}
	ago.Store(0)
	b.resolve(app(t, "2"), Hit)
	if gone, _, _ := b.expired(); !slices.Equal(gone, []digest.Digest{images[0].Root.Digest}) {
		t.Errorf("gone %v, want the one that was not pulled lately", gone)
	}
}

func TestLifecycleTransition(t *testing.T) {
	t.Parallel()
	b, _ := aged(t, archiveAll, build(1))
	gone, kept, _ := b.expired()
	if len(gone) != 0 || len(kept) != 1 {
		t.Errorf("gone %v, kept %v, want a node to archive nothing", gone, kept)
	}
}

// A manifest that another repository has, too, is not its any more, and stays.
func TestLifecycleOfSharedManifest(t *testing.T) {
	t.Parallel()
	img := build(1)
	b, _ := one(t, img, func(s *setup) {
		s.hosts = []string{"quay.io"}
		s.policies = newPolicies(t, nil, Template{Prefix: "docker.io", Settings: Settings{LifecyclePolicy: noOld}})
	})
	other := Reference{Repository: Repository{Host: "quay.io", Path: "library/app"}, Tag: "1"}
	for _, ref := range []Reference{app(t, "1"), other} {
		if _, err := b.Pull(soon(t), ref, PullOptions{}); err != nil {
			t.Fatal(err)
		}
		b.age(ref.Repository, img.Root.Digest, 9)
	}
	if gone, _, removed := b.expired(); len(gone) != 1 || removed.Blobs != 0 {
		t.Errorf("gone %v, removed %+v, want the image to go and its blobs to stay", gone, removed)
	}
	b.resolve(other, Hit)
	if b.has(img) != len(img.Descriptors()) || b.isLinked(appRepo(), img.Root.Digest) {
		t.Errorf("%d blobs are there, it belongs to docker.io: %t", b.has(img), b.isLinked(appRepo(), img.Root.Digest))
	}
	if gone, kept, _ := b.expired(); len(gone)+len(kept) != 0 {
		t.Errorf("once more: gone %v, kept %v, want nothing", gone, kept)
	}
}

// A tag that moves while a policy is carried out is another image's.
func TestLifecycleSparesMovedTag(t *testing.T) {
	t.Parallel()
	before, after := build(1), build(2)
	b, up := aged(t, noOld, before)
	plans, err := b.lifecyclePlans(soon(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	up.PutImage("library/app", "1", after)
	if _, err := b.Refresh(soon(t), app(t, "1")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.carryOut(soon(t), plans); err != nil {
		t.Fatal(err)
	}
	if res := b.resolve(app(t, "1"), Hit); res.Descriptor.Digest != after.Root.Digest || b.has(before) != 0 {
		t.Errorf("the tag points to %s, %d blobs of the old image are left", res.Descriptor.Digest, b.has(before))
	}
	// Nor does a pin come too late.
	b.age(appRepo(), after.Root.Digest, 9)
	if plans, err = b.lifecyclePlans(soon(t), nil); err != nil || len(plans[0].actions) != 1 {
		t.Fatalf("plans %v, %v, want one image", plans, err)
	}
	if _, err := b.pin(app(t, "1"), ""); err != nil {
		t.Fatal(err)
	}
	if _, err := b.carryOut(soon(t), plans); err != nil || plans[0].actions[0].Kept != "pinned by cli" {
		t.Errorf("%v, kept %q, want the pin to count", err, plans[0].actions[0].Kept)
	}
	b.resolve(app(t, "1"), Hit)
}

// What an unreadable index lists is not known: nothing goes.
func TestLifecycleStopsAtUnreadable(t *testing.T) {
	t.Parallel()
	index := remotestest.Build(multi())
	b, _ := aged(t, noOld, build(1), index)
	file := b.blobFile(index.Root.Digest)
	if err := errors.Join(os.Chmod(file, 0o600), os.WriteFile(file, []byte("{}"), 0o600)); err != nil {
		t.Fatal(err)
	}
	reports, removed, err := b.ExpireImages(soon(t), nil)
	if err != nil || len(reports) != 1 || !strings.Contains(reports[0].Problem, "does not have its digest") || removed.Blobs != 0 {
		t.Errorf("got %+v, %+v, %v, want the problem told", reports, removed, err)
	}
	if _, err := b.Store.Tag(app(t, "1").String()); err != nil {
		t.Error(err)
	}
}

// The policy of the longer prefix holds, a rule's before a template's; where
// none does, nothing goes.
func TestLifecyclePolicyOf(t *testing.T) {
	t.Parallel()
	policies := newPolicies(t,
		[]Rule{{ECRRepositoryPrefix: "hub", UpstreamRegistryURL: "registry-1.docker.io", Settings: Settings{LifecyclePolicy: keepTwo}},
			{ECRRepositoryPrefix: "quay", UpstreamRegistryURL: "quay.io"}},
		Template{Prefix: "hub", Settings: Settings{LifecyclePolicy: noOld}},
		Template{Prefix: "hub/library", Settings: Settings{LifecyclePolicy: noUntagged}},
		Template{Prefix: "quay/a", Settings: Settings{LifecyclePolicy: noOld}})
	for name, want := range map[string]string{
		"docker.io/a/b": `rule "hub"`, "docker.io/library/b": `template "hub/library"`, "quay.io/a/b": `template "quay/a"`, "quay.io/b/b": "",
	} {
		host, path, _ := strings.Cut(name, "/")
		repo := Repository{Host: host, Path: path}
		_, by, ok := policies.For(repo).Lifecycle()
		if by != want || ok != (want != "") {
			t.Errorf("%s: by %q, want %q", name, by, want)
		}
		b := newBench(t, nil, func(s *setup) { s.policies = policies })
		if reports, err := b.Lifecycle(soon(t), &repo); errdefs.IsNotFound(err) == ok || len(reports) != 0 {
			t.Errorf("%s: got %v, %v, want an error if there is no policy", name, reports, err)
		}
	}
	if newPolicies(t, []Rule{{ECRRepositoryPrefix: "quay", UpstreamRegistryURL: "quay.io"}}).anyLifecycle() || !policies.anyLifecycle() {
		t.Error("anyLifecycle is wrong")
	}
}

func TestLifecycleSettings(t *testing.T) {
	t.Parallel()
	bad := Settings{LifecyclePolicy: `{"rules":[{"rulePriority":0,"selection":{}}]}`}
	err := bad.Validate()
	mentions(t, err, "lifecycle_policy: rules[0].rulePriority: 0", "lifecycle_policy: rules[0].selection.tagStatus: is missing", "lifecycle_policy: rules[0].action: is missing")
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("kind of %v", err)
	}
	if err := (Settings{LifecyclePolicy: keepTwo}).Validate(); err != nil {
		t.Error(err)
	}
}

// TestLifecycleRuns: Run expires images some minutes after the start, and then
// every hour.
func TestLifecycleRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil, withSettings(t, Settings{LifecyclePolicy: noOld}))
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { b.Run(ctx) })
		put := func() { // came two days ago
			if err := b.Store.PutTag(cache.Tag{
				Name: app(t, "1").String(), Target: ocispec.Descriptor{Digest: digest.FromString("x")}, Created: time.Now().Add(-48 * time.Hour),
			}); err != nil {
				t.Fatal(err)
			}
		}
		isThere := func() bool {
			synctest.Wait()
			_, err := b.Store.Tag(app(t, "1").String())
			return err == nil
		}
		after := func(d time.Duration) bool { <-time.After(d); return isThere() }
		put()
		if !after(lifecycleDelay - time.Minute) {
			t.Error("gone at the start")
		}
		if after(2 * time.Minute) {
			t.Error("still there after the delay")
		}
		for range 2 {
			put()
			if !after(lifecycleEvery / 2) {
				t.Error("gone before an hour")
			}
			if after(lifecycleEvery/2 + time.Minute) {
				t.Error("still there after an hour")
			}
		}
		cancel()
		wg.Wait()
	})
}
