package remotes

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
)

// spoil turns a bit of a stored blob, and leaves the file's time.
func (b *bench) spoil(dgst digest.Digest) {
	b.t.Helper()
	path := b.blobFile(dgst)
	fi, err := os.Stat(path)
	if err != nil {
		b.t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		b.t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := errors.Join(os.Chmod(path, 0o644), os.WriteFile(path, data, 0o644), os.Chtimes(path, fi.ModTime(), fi.ModTime())); err != nil {
		b.t.Fatal(err)
	}
}

// pulled is a bench with a whole image of two platforms.
func pulled(t *testing.T, change ...func(*setup)) (*bench, *remotestest.Registry, remotestest.Image) {
	t.Helper()
	img := remotestest.Build(remotestest.ImageSpec{Seed: 7, Platforms: []string{"linux/amd64", "linux/arm64"}})
	b, up := one(t, img, change...)
	if _, err := b.Pull(soon(t), app(t, "1"), PullOptions{Platforms: []string{"all"}}); err != nil {
		t.Fatal(err)
	}
	return b, up, img
}

// whole fails the test unless all of an image is stored and right.
func (b *bench) whole(img remotestest.Image) {
	b.t.Helper()
	for _, desc := range img.Descriptors() {
		if err := b.Store.Verify(soon(b.t), desc.Digest, nil); err != nil {
			b.t.Errorf("%s: %v", desc.Digest, err)
		}
	}
}

// What is damaged is found, named with the images that need it, and fetched
// again: index, manifests, configs and layers, all at once.
func TestVerifyRefetches(t *testing.T) {
	t.Parallel()
	for name, refs := range map[string][]Reference{"all": nil, "an image": {app(t, "1")}} {
		b, up, img := pulled(t)
		for _, desc := range img.Descriptors() {
			b.spoil(desc.Digest)
		}
		reported := 0
		var last VerifyProgress
		res, err := b.Verify(soon(t), VerifyOptions{Refs: refs, Refetch: true, Report: func(p VerifyProgress) {
			if last = p; p.Damaged != nil {
				reported++
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		n := len(img.Descriptors())
		if len(res.Damaged) != n || reported != n || res.Blobs != n || len(res.Unread) != 0 || last.Total == 0 || last.Bytes < last.Total {
			t.Errorf("%s: %d damaged, %d reported, %d read, %v not, last %+v, want %d", name, len(res.Damaged), reported, res.Blobs, res.Unread, last, n)
		}
		for _, d := range res.Damaged {
			if d.From != up.URL() || d.Lost != "" || !slices.Equal(d.Images, []string{"docker.io/library/app:1"}) {
				t.Errorf("%s: damaged %+v", name, d)
			}
		}
		b.whole(img)
		if n := counted(up, func() { b.resolve(app(t, "1"), Hit) }); n != 0 {
			t.Errorf("%s: a pull afterwards asks upstream %d times", name, n)
		}
	}
}

// What no upstream has any more is lost, and so reported; a later pull brings
// it when it is there again.
func TestVerifyLost(t *testing.T) {
	t.Parallel()
	b, up, img := pulled(t)
	layer := img.Blobs[0]
	b.spoil(layer.Descriptor.Digest)
	up.DeleteBlob("library/app", layer.Descriptor.Digest)
	res, err := b.Verify(soon(t), VerifyOptions{Refetch: true})
	if err != nil || len(res.Damaged) != 1 {
		t.Fatalf("got %+v, %v, want one damaged", res, err)
	}
	d := res.Damaged[0]
	if d.Digest != layer.Descriptor.Digest || d.Lost == "" || d.From != "" || len(d.Images) != 1 {
		t.Errorf("lost blob: %+v", d)
	}
	if _, _, err := b.read(appRepo(), d.Digest); err == nil {
		t.Error("a lost blob was served")
	}
	up.PutBlob("library/app", layer.Data)
	if source, err := b.Refetch(soon(t), d.Digest); err != nil || source != up.URL() {
		t.Errorf("refetch: %q, %v", source, err)
	}
	b.whole(img)
}

// Nothing is fetched if that is not wanted, or the policy forbids it.
func TestVerifyAsksNobody(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	b, _, img := pulled(t, func(s *setup) { s.root = root })
	if err := b.Store.Close(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		settings Settings
		refetch  bool
		lost     string
	}{
		"not wanted": {Settings{}, false, "asked"},
		"offline":    {Settings{Mode: ModeOffline}, true, "offline"},
		"denied":     {Settings{Deny: []string{"*"}}, true, "denied"},
	} {
		up := remotestest.New(t)
		up.PutImage("library/app", "1", img)
		again := newBench(t, []*remotestest.Registry{up}, withSettings(t, c.settings), func(s *setup) { s.root = root })
		dgst := img.Blobs[0].Descriptor.Digest
		if has, _ := again.Store.Has(dgst); !has { // from the case before
			if err := again.Store.Put(soon(t), dgst, img.Blobs[0].Data, cache.Facts{}); err != nil {
				t.Fatal(err)
			}
		}
		again.spoil(dgst)
		res, err := again.Verify(soon(t), VerifyOptions{Refetch: c.refetch})
		if err != nil || len(res.Damaged) != 1 || !strings.Contains(res.Damaged[0].Lost, c.lost) {
			t.Errorf("%s: %+v, %v, want it lost: %s", name, res.Damaged, err, c.lost)
		}
		if n := len(up.Requests()); n != 0 {
			t.Errorf("%s: upstream saw %d requests", name, n)
		}
		if err := again.Store.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A blob of which no holder and no link is known is found by the images that
// name it.
func TestRefetchByImages(t *testing.T) {
	t.Parallel()
	b, up, img := pulled(t)
	dgst := img.Blobs[len(img.Blobs)-1].Descriptor.Digest
	if err := b.Store.Delete(soon(t), dgst); err != nil { // with its holders
		t.Fatal(err)
	}
	if source, err := b.Refetch(soon(t), dgst); err != nil || source != up.URL() {
		t.Errorf("refetch: %q, %v", source, err)
	}
	b.whole(img)
	if _, err := b.Refetch(soon(t), digest.FromString("nobody's")); !errdefs.IsNotFound(err) {
		t.Errorf("refetch of what nothing names: %v, want not found", err)
	}
}

// The next repository is asked if the first does not have it any more.
func TestRefetchFromAnother(t *testing.T) {
	t.Parallel()
	b, up, img := pulled(t)
	up.PutImage("library/copy", "1", img)
	layer := img.Blobs[0].Descriptor.Digest
	if err := b.Store.PutHolder(layer, "docker.io/library/copy"); err != nil {
		t.Fatal(err)
	}
	up.DeleteRepository("library/app")
	b.spoil(layer)
	res, err := b.Verify(soon(t), VerifyOptions{Refetch: true})
	if err != nil || len(res.Damaged) != 1 || res.Damaged[0].Lost != "" {
		t.Errorf("got %+v, %v, want it fetched from the copy", res, err)
	}
}

// Verify reads what was stored since a time, and no more.
func TestVerifySince(t *testing.T) {
	t.Parallel()
	b, _, img := pulled(t)
	old := img.Blobs[0].Descriptor.Digest
	long := time.Now().Add(-48 * time.Hour)
	if err := os.Chtimes(b.blobFile(old), long, long); err != nil {
		t.Fatal(err)
	}
	res, err := b.Verify(soon(t), VerifyOptions{Since: time.Now().Add(-time.Hour)})
	if n := len(img.Descriptors()); err != nil || res.Blobs != n-1 {
		t.Errorf("%d read, %v, want %d", res.Blobs, err, n-1)
	}
	if _, err := b.Verify(soon(t), VerifyOptions{Refs: []Reference{app(t, "none")}}); !errdefs.IsNotFound(err) {
		t.Errorf("an image that is not stored: %v, want not found", err)
	}
	ctx, cancel := context.WithCancel(soon(t))
	cancel()
	if _, err := b.Verify(ctx, VerifyOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("ended: %v, want the context's error", err)
	}
}

// What a private repository's upstream sends again belongs to that repository
// and to no other.
func TestRefetchOpensNothing(t *testing.T) {
	t.Parallel()
	b := newPrivateBench(t)
	img := build(1)
	b.up.PutImage(secretA().Path, "1", img)
	ctx := b.admitted(secretA(), "1")
	b.bring(ctx, secretA(), img)
	layer := img.Blobs[0].Descriptor.Digest
	b.spoil(layer)
	res, err := b.Verify(soon(t), VerifyOptions{Refetch: true})
	if err != nil || len(res.Damaged) != 1 || res.Damaged[0].Lost == "" {
		t.Errorf("without a credential: %+v, %v, want it lost", res, err)
	}
	if _, err := b.readAs(ctx, secretA(), layer); err != nil {
		t.Errorf("who may have it: %v", err)
	}
	b.settle(layer)
	if _, err := b.readAs(soon(t), publicC(), layer); err == nil {
		t.Error("a private blob that came again is everybody's")
	}
}

// The index is lost between two runs: with all upstreams off every image is
// listed and served as before.
func TestLostIndexIsRebuilt(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	b, up, img := pulled(t, func(s *setup) { s.root = root })
	byDigest := app(t, img.Manifests[0].Descriptor.Digest.String())
	b.resolve(byDigest, Hit) // a client asked for it by name
	before, err := b.Images(soon(t))
	if err != nil || len(before) != 2 {
		t.Fatalf("%d images, %v, want the tag and the digest", len(before), err)
	}
	if err := errors.Join(b.Store.Close(), os.Remove(filepath.Join(root, "index.db"))); err != nil {
		t.Fatal(err)
	}
	up.Stop()
	again := newBench(t, []*remotestest.Registry{up}, func(s *setup) { s.root = root })
	after, err := again.Images(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	// Which upstream sent a digest's bytes only the index knew.
	before[1].Source, after[1].Source = "", ""
	if !reflect.DeepEqual(after, before) {
		t.Errorf("images:\n%+v\nwant:\n%+v", after, before)
	}
	again.resolve(app(t, "1"), Hit)
	again.whole(img)
	eventually(t, "the manifests belong to their repository again", func() bool {
		for _, m := range img.Manifests {
			if !again.isLinked(appRepo(), m.Descriptor.Digest) {
				return false
			}
		}
		return true
	})
}
