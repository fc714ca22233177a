package remotes

import (
	"net/http"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/cache/disktest"
	"github.com/larder-project/larder/remotes/remotestest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// sent is what an upstream saw of f, by method.
func sent(up *remotestest.Registry, f func()) (heads, gets int) {
	up.ResetRequests()
	f()
	return up.Count(http.MethodHead, ""), up.Count(http.MethodGet, "")
}

// TestNewRepositoryIsAskedOnce: a tag of a repository of which nothing is stored
// takes one request. Of any other it may point to what is stored, and a GET counts
// as a pull where pulls are limited.
func TestNewRepositoryIsAskedOnce(t *testing.T) {
	t.Parallel()
	img := build(1)
	b, up := one(t, img)
	up.PutImage("library/app", "same", img)
	up.PutImage("library/app", "other", build(2))
	up.PutImage("library/ap", "1", img)
	shorter := library(t, "ap", "1")
	for _, step := range []struct {
		what        string
		ref         Reference
		heads, gets int
	}{
		{"nothing stored", app(t, "1"), 0, 1},
		{"stored by another tag", app(t, "same"), 1, 0},
		{"not stored", app(t, "other"), 1, 1},
		{"a repository whose name another begins with", shorter, 0, 1},
	} {
		if heads, gets := sent(up, func() { b.resolve(step.ref, Miss) }); heads != step.heads || gets != step.gets {
			t.Errorf("%s: %d HEAD and %d GET, want %d and %d", step.what, heads, gets, step.heads, step.gets)
		}
		if heads, gets := sent(up, func() { b.resolve(step.ref, Hit) }); heads+gets != 0 {
			t.Errorf("%s, again: %d HEAD and %d GET", step.what, heads, gets)
		}
	}
}

// TestNewRepositoryOnFailingDisk: where nothing can be stored, each pull asks for
// the tag, and that must not count as a pull each time.
func TestNewRepositoryOnFailingDisk(t *testing.T) {
	t.Parallel()
	disk := disktest.NewFaulty(cache.OSDisk())
	b, up := one(t, build(1), func(s *setup) { s.disk = disk })
	up.PutImage("library/ap", "1", build(1))
	shorter := library(t, "ap", "1")
	disk.FailFrom(1, syscall.EROFS, disktest.Changes()...)
	for i, want := range [][2]int{{0, 1}, {1, 0}, {1, 0}} {
		for _, ref := range []Reference{app(t, "1"), shorter} {
			if heads, gets := sent(up, func() { b.resolve(ref, Miss) }); heads != want[0] || gets != want[1] {
				t.Errorf("pull %d of %s: %d HEAD and %d GET, want %v", i+1, ref, heads, gets, want)
			}
		}
	}
}

// TestNewRepositoryBadAnswer: what is no manifest is not stored, and its tag not known.
func TestNewRepositoryBadAnswer(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]remotestest.FaultFunc{
		"a page":  remotestest.Status(http.StatusOK, http.Header{"Content-Type": {"text/html"}}, "<html>"),
		"nothing": remotestest.Status(http.StatusOK, nil, ""),
		"wrong":   remotestest.WrongBytes(10),
	} {
		b, up := one(t, build(1))
		heal := up.Fault(remotestest.Manifests(), fault)
		if res, err := b.Resolve(soon(t), app(t, "1")); err == nil {
			t.Errorf("%s: resolved to %+v", name, res)
		}
		if _, err := b.Store.Tag(app(t, "1").String()); !errdefs.IsNotFound(err) {
			t.Errorf("%s: tag: %v, want none", name, err)
		}
		if links, err := b.Store.LinksOf(appRepo().String()); err != nil || len(links) > 0 {
			t.Errorf("%s: %v belong to the repository, %v", name, links, err)
		}
		heal()
		b.resolve(app(t, "1"), Miss)
	}
}

// TestSharedManifestIsOneThing: what a document is that does not say it, the first
// upstream that sent it has said, for all repositories, by tag and by digest.
func TestSharedManifestIsOneThing(t *testing.T) {
	t.Parallel()
	b, up := one(t, build(1))
	doc := []byte(`{"schemaVersion":2,"manifests":[]}`)
	desc := up.PutManifest("library/first", "1", ocispec.MediaTypeImageIndex, doc)
	up.PutManifest("library/second", "1", remotestest.MediaTypeDockerList, doc)
	for _, name := range []string{"first", "second"} {
		for _, object := range []string{"1", desc.Digest.String()} {
			ref := library(t, name, object)
			if res, err := b.Resolve(soon(t), ref); err != nil || res.Descriptor.MediaType != desc.MediaType {
				t.Errorf("%s: got %q, %v, want %q", ref, res.Descriptor.MediaType, err, desc.MediaType)
			}
		}
	}
}
