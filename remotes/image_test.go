package remotes

import (
	"slices"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes/remotestest"
)

func TestImages(t *testing.T) {
	t.Parallel()
	img := remotestest.Build(multi())
	b, up := one(t, img)
	single := build(6)
	up.PutImage("library/app", "single", single)
	up.PutImage("library/app", "never-pulled", build(7))
	if images, err := b.Images(soon(t)); err != nil || len(images) != 0 {
		t.Errorf("an empty store has %v, %v", images, err)
	}
	for _, ref := range []Reference{app(t, "1"), app(t, "single"), app(t, single.Root.Digest.String())} {
		if _, err := b.Pull(soon(t), ref, PullOptions{Platforms: []string{"linux/amd64"}}); err != nil {
			t.Fatal(err)
		}
	}
	b.expire(app(t, "single"))
	images, err := b.Images(soon(t))
	if err != nil || len(images) != 3 {
		t.Fatalf("got %v, %v, want 3 images", images, err)
	}
	byName := map[string]Image{}
	for _, i := range images {
		byName[i.Name] = i
	}
	one := byName["docker.io/library/app:1"]
	// Two manifests are missing, and nothing is known of what hangs on them.
	if !slices.Equal(one.Platforms, []string{"linux/amd64"}) || one.Missing != 2 || one.State != "fresh" || one.Window != "24h0m0s" || one.Source != up.URL() {
		t.Errorf("got %+v", one)
	}
	if got := byName["docker.io/library/app:single"]; got.State != "stale" || got.Missing != 0 || len(got.Platforms) != 1 || got.Size != sizeOf(single) {
		t.Errorf("got %+v, want %d bytes", got, sizeOf(single))
	}
	byDigest := byName["docker.io/library/app@"+single.Root.Digest.String()]
	if byDigest.State != "digest" || byDigest.Descriptor.Size != single.Root.Size || byDigest.Descriptor.MediaType != single.Root.MediaType || byDigest.Source != up.URL() {
		t.Errorf("got %+v", byDigest)
	}
	if _, err := b.Image(app(t, "never-pulled")); !errdefs.IsNotFound(err) {
		t.Errorf("got %v, want not found", err)
	}
	d, err := b.Image(app(t, "1"))
	if err != nil || len(d.Tree.Children) != 3 || !d.Tree.Stored || d.Tree.Digest != img.Root.Digest {
		t.Errorf("got %+v, %v, want an index of three", d.Tree, err)
	}
}

func sizeOf(img remotestest.Image) (n int64) {
	for _, d := range img.Descriptors() {
		n += d.Size
	}
	return n
}

// TestImageWithoutPlatform: an image of which only the manifest came has an empty
// list, which JSON has as one, too.
func TestImageWithoutPlatform(t *testing.T) {
	t.Parallel()
	b, _ := one(t, build(6))
	if _, err := b.Resolve(soon(t), app(t, "1")); err != nil {
		t.Fatal(err)
	}
	if d, err := b.Image(app(t, "1")); err != nil || d.Platforms == nil || len(d.Platforms) != 0 {
		t.Errorf("got %#v, %v, want an empty list", d.Platforms, err)
	}
}

func TestRemoveKeepsSharedBlobs(t *testing.T) {
	t.Parallel()
	img, other := remotestest.Build(multi()), build(6)
	b, up := one(t, img)
	up.PutImage("library/app", "twin", img)
	up.PutImage("library/app", "other", other)
	all := PullOptions{Platforms: []string{"all"}}
	for _, tag := range []string{"1", "twin", "other"} {
		if _, err := b.Pull(soon(t), app(t, tag), all); err != nil {
			t.Fatal(err)
		}
	}
	removed, err := b.Remove(soon(t), app(t, "1"))
	if err != nil || removed.Blobs != 0 {
		t.Errorf("got %+v, %v, want nothing removed: the twin needs it", removed, err)
	}
	if _, err := b.Image(app(t, "1")); !errdefs.IsNotFound(err) {
		t.Errorf("the tag is still there: %v", err)
	}
	removed, err = b.Remove(soon(t), app(t, "twin"))
	if want := len(img.Descriptors()); err != nil || removed.Blobs != want || removed.Bytes != sizeOf(img) {
		t.Errorf("got %+v, %v, want %d blobs with %d bytes", removed, err, want, sizeOf(img))
	}
	for _, d := range img.Descriptors() {
		if has, err := b.Store.Has(d.Digest); has || err != nil {
			t.Errorf("%s is still there: %t, %v", d.Digest, has, err)
		}
	}
	if links, err := b.Store.Links(); err != nil || len(links) != 1 {
		t.Errorf("links are %v, %v, want only the other image's", links, err)
	}
	d, err := b.Image(app(t, "other"))
	if err != nil || d.Missing != 0 {
		t.Errorf("the other image: %+v, %v, want it whole", d.Image, err)
	}
	if _, err := b.Remove(soon(t), app(t, "1")); !errdefs.IsNotFound(err) {
		t.Errorf("removed twice: got %v, want not found", err)
	}
}

func TestRemoveByDigest(t *testing.T) {
	t.Parallel()
	img := build(1)
	b, _ := one(t, img)
	byDigest := app(t, img.Root.Digest.String())
	for _, ref := range []Reference{app(t, "1"), byDigest} {
		if _, err := b.Pull(soon(t), ref, PullOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if removed, err := b.Remove(soon(t), byDigest); err != nil || removed.Blobs != 0 {
		t.Errorf("got %+v, %v, want nothing removed: the tag needs it", removed, err)
	}
	images, err := b.Images(soon(t))
	if err != nil || len(images) != 1 || images[0].Name != app(t, "1").String() {
		t.Errorf("images are %v, %v, want only the tag", images, err)
	}
	b.resolve(byDigest, Hit) // asked for again: listed again
	if images, err = b.Images(soon(t)); err != nil || len(images) != 2 {
		t.Errorf("images are %v, %v, want both", images, err)
	}
	if _, err := b.Remove(soon(t), app(t, "1")); err != nil {
		t.Error(err)
	}
	if removed, err := b.Remove(soon(t), byDigest); err != nil || removed.Blobs != len(img.Descriptors()) {
		t.Errorf("got %+v, %v, want all removed", removed, err)
	}
	if links, err := b.Store.Links(); err != nil || len(links) != 0 {
		t.Errorf("links are %v, %v, want none", links, err)
	}
}

// A pin keeps an image from being removed, by the way of another reference
// too.
func TestPinKeepsImage(t *testing.T) {
	t.Parallel()
	img := build(1)
	b, _ := one(t, img)
	tag, byDigest := app(t, "1"), app(t, img.Root.Digest.String())
	if _, err := b.Pull(soon(t), tag, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	pin, err := b.pin(tag, "base of everything")
	if err != nil || pin.Name != tag.String() {
		t.Fatalf("got %+v, %v", pin, err)
	}
	if d, err := b.Image(tag); err != nil || len(d.Pins) != 1 || d.Pins[0].Reason != "base of everything" {
		t.Errorf("got %+v, %v, want the pin shown", d.Pins, err)
	}
	_, err = b.Remove(soon(t), tag)
	if !errdefs.IsFailedPrecondition(err) {
		t.Errorf("got %v, want it refused", err)
	}
	mentions(t, err, "is pinned\n  by cli (base of everything): larder unpin docker.io/library/app:1")
	if err := b.Unpin(tag.name(), ""); err != nil {
		t.Error(err)
	}
	if err := b.Unpin(tag.name(), ""); !errdefs.IsNotFound(err) {
		t.Errorf("unpinned twice: got %v, want not found", err)
	}
	// Nobody has asked for the digest by name, but it is pinned.
	withTag := byDigest
	withTag.Tag = "1"
	if pin, err := b.pin(withTag, ""); err != nil || pin.Name != byDigest.String() {
		t.Fatalf("got %+v, %v", pin, err)
	}
	if removed, err := b.Remove(soon(t), tag); err != nil || removed.Blobs != 0 {
		t.Errorf("got %+v, %v, want nothing removed: it is pinned by digest", removed, err)
	}
	if images, err := b.Images(soon(t)); err != nil || len(images) != 1 || len(images[0].Pins) == 0 {
		t.Errorf("images are %v, %v, want the pinned digest", images, err)
	}
	if err := b.Unpin(byDigest.name(), ""); err != nil {
		t.Error(err)
	}
	if removed, err := b.Remove(soon(t), byDigest); err != nil || removed.Blobs != len(img.Descriptors()) {
		t.Errorf("got %+v, %v, want all removed", removed, err)
	}
}

// A pin may come before the image.
func TestPinBeforePull(t *testing.T) {
	t.Parallel()
	b, _ := one(t, build(1))
	if _, err := b.pin(app(t, "1"), ""); err != nil {
		t.Fatal(err)
	}
	if images, err := b.Images(soon(t)); err != nil || len(images) != 1 || images[0].State != "absent" {
		t.Errorf("images are %v, %v, want an absent one", images, err)
	}
	b.resolve(app(t, "1"), Miss)
	if images, err := b.Images(soon(t)); err != nil || len(images) != 1 || len(images[0].Pins) == 0 {
		t.Errorf("images are %v, %v, want it pinned", images, err)
	}
}

// Names that ParseReference would read as others are listed as they are.
func TestImagesKeepNames(t *testing.T) {
	t.Parallel()
	b, up := one(t, build(1))
	up.PutImage("app", "1", build(2))
	short := Reference{Repository: Repository{Host: DockerHub, Path: "app"}, Tag: "1"}
	b.resolve(short, Miss)
	images, err := b.Images(soon(t))
	if err != nil || len(images) != 1 || images[0].Name != "docker.io/app:1" {
		t.Errorf("images are %v, %v, want docker.io/app:1", images, err)
	}
	if err := b.Store.PutTag(cache.Tag{Name: "what is this", Validated: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if images, err := b.Images(soon(t)); err != nil || len(images) != 1 {
		t.Errorf("images are %v, %v, want the odd record passed over", images, err)
	}
}
