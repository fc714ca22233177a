package remotes

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
)

// TestRemoveTakesCompanions: with the image go its companions, and nothing of
// another image's.
func TestRemoveTakesCompanions(t *testing.T) {
	t.Parallel()
	up := remotestest.New(t)
	other := putCompanion(up, 2)
	up.PutImage("library/app", "2", other.img)
	c := putCompanion(up, 1) // has the tag "1" now
	up.PutImage("library/app", "twin", c.img)
	b := newBench(t, []*remotestest.Registry{up}, withCompanions)
	for _, tag := range []string{"1", "2", "twin"} {
		if res, err := b.Pull(soon(t), app(t, tag), PullOptions{}); err != nil || res.Companions != 5 {
			t.Fatalf("%s: %+v, %v", tag, res, err)
		}
	}
	if removed, err := b.Remove(soon(t), app(t, "1")); err != nil || removed.Blobs != 0 {
		t.Errorf("removed %+v, %v, want nothing: the twin needs it", removed, err)
	}
	b.wantWhole(c.all()...)
	removed, err := b.Remove(soon(t), app(t, "twin"))
	// Five manifests; a layer each, and a config for each of cosign's. The empty
	// config is the other image's, too.
	if want := len(c.img.Descriptors()) + 5 + 5 + 2; err != nil || removed.Blobs != want {
		t.Errorf("removed %+v, %v, want %d blobs", removed, err, want)
	}
	for _, d := range c.all() {
		if has, err := b.Store.Has(d.Digest); has || err != nil {
			t.Errorf("%s is still there: %t, %v", d.Digest, has, err)
		}
	}
	up.Stop()
	b.wantWhole(other.all()...)
	b.referrers(other.img.Root.Digest, "", Hit, 2)
	if images, err := b.Images(soon(t)); err != nil || len(images) != 3 {
		t.Errorf("images are %v, %v, want the other one with two tags", images, err)
	}
	links, err := b.Store.Links()
	if err != nil || len(links) != len(other.img.Manifests)+5 {
		t.Errorf("%d links, %v, want only the other image's", len(links), err)
	}
	if _, err := b.Store.Referrers(appRepo().String(), c.img.Root.Digest); !errdefs.IsNotFound(err) {
		t.Errorf("referrers are still noted: %v", err)
	}
	up.Start()
	if _, err := b.Remove(soon(t), app(t, "2")); err != nil {
		t.Fatal(err)
	}
	if links, err := b.Store.Links(); err != nil || len(links) != 0 {
		t.Errorf("links are %v, %v, want none", links, err)
	}
}

// TestPinKeepsCompanions: a pin of the image keeps all of them; a pin of a
// signature keeps that.
func TestPinKeepsCompanions(t *testing.T) {
	t.Parallel()
	up := remotestest.New(t)
	c := putCompanion(up, 1)
	b := newBench(t, []*remotestest.Registry{up}, withCompanions)
	byDigest := app(t, c.img.Root.Digest.String())
	sigTag := app(t, remotestest.SignatureTag(c.img.Root.Digest, ".sig"))
	pin := func(ref Reference) {
		t.Helper()
		if _, err := b.pin(ref, ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Pull(soon(t), app(t, "1"), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	pin(byDigest)
	if removed, err := b.Remove(soon(t), app(t, "1")); err != nil || removed.Blobs != 0 {
		t.Errorf("removed %+v, %v, want nothing: it is pinned by digest", removed, err)
	}
	b.wantWhole(c.all()...)
	if err := b.Unpin(byDigest.name(), ""); err != nil {
		t.Fatal(err)
	}
	pin(sigTag)
	if _, err := b.Remove(soon(t), byDigest); err != nil {
		t.Fatal(err)
	}
	b.wantWhole(c.cosign)
	b.resolve(sigTag, Hit)
	if has, err := b.Store.Has(c.attestations.Digest); has || err != nil {
		t.Errorf("the attestation is still there: %t, %v", has, err)
	}
}

// TestRemoveStopsAtUnreadableCompanion: what a companion of another image needs
// cannot be told, so nothing is deleted, until a pull has mended it.
func TestRemoveStopsAtUnreadableCompanion(t *testing.T) {
	t.Parallel()
	up := remotestest.New(t)
	c := putCompanion(up, 1)
	up.PutImage("library/app", "2", build(2))
	b := newBench(t, []*remotestest.Registry{up}, withCompanions)
	for _, tag := range []string{"1", "2"} {
		if _, err := b.Pull(soon(t), app(t, tag), PullOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	b.damage(b.blobFile(c.sbom.Digest), []byte(strings.Repeat(" ", int(c.sbom.Size))))
	removed, err := b.Remove(soon(t), app(t, "2"))
	mentions(t, err, "docker.io/library/app:1")
	if removed.Blobs != 0 {
		t.Errorf("removed %+v, want nothing", removed)
	}
	if _, err := b.Pull(soon(t), app(t, "1"), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	b.wantWhole(c.all()...)
	b.resolve(app(t, "2"), Miss)
	if _, err := b.Remove(soon(t), app(t, "2")); err != nil {
		t.Errorf("after a pull: %v", err)
	}
}

// TestRemovalEndsFollowing: an image that is removed while its companions are
// fetched does not leave lists behind.
func TestRemovalEndsFollowing(t *testing.T) {
	t.Parallel()
	up := remotestest.New(t)
	c := putCompanion(up, 1)
	b := newBench(t, []*remotestest.Registry{up}, withCompanions)
	asked, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	up.Fault(remotestest.Referrers(), func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		once.Do(func() { close(asked) })
		<-release
		next.ServeHTTP(w, r)
	})
	b.resolve(app(t, "1"), Miss)
	stop := b.behind()
	<-asked
	if _, err := b.Remove(soon(t), app(t, "1")); err != nil {
		t.Fatal(err)
	}
	close(release)
	b.idle()
	stop()
	if _, err := b.Store.Referrers(appRepo().String(), c.img.Root.Digest); !errdefs.IsNotFound(err) {
		t.Errorf("referrers of a removed image: %v", err)
	}
	if has, _ := b.Store.Has(c.sbom.Digest); has {
		t.Error("a referrer of a removed image came along")
	}
}
