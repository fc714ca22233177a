package remotes

import (
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestPullSet: what a pull of an index takes on this node is known once the
// manifests are stored, and then without them.
func TestPullSet(t *testing.T) {
	t.Parallel()
	img := remotestest.Build(multi())
	b, _ := one(t, img)
	if _, err := b.Resolve(soon(t), app(t, "1")); err != nil {
		t.Fatal(err)
	}
	if set, err := b.PullSet(img.Root.Digest); !errdefs.IsNotFound(err) {
		t.Errorf("without the platform's manifest: %v, %v", set, err)
	}
	if _, err := b.Pull(soon(t), app(t, "1"), PullOptions{Platforms: []string{"all"}}); err != nil {
		t.Fatal(err)
	}
	var want []digest.Digest // of linux/amd64 or the like: the first that the default matches
	want = append(want, img.Root.Digest)
	own, err := b.Image(app(t, "1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, child := range own.Tree.Children {
		if p := child.Platform; p.OS == "linux" && p.Architecture == runtime.GOARCH {
			want = append(want, child.Digest)
			for _, blob := range child.Children {
				want = append(want, blob.Digest)
			}
		}
	}
	for _, when := range []string{"stored", "not stored any more"} {
		set, err := b.PullSet(img.Root.Digest)
		if err != nil || !slices.Equal(set, want) {
			t.Errorf("%s: got %v, %v, want %v", when, set, err, want)
		}
		if err := b.Store.Delete(soon(t), want[1]); when == "stored" && err != nil {
			t.Fatal(err)
		}
	}
}

// TestPullSetIsBounded: indexes that are nested deep, or name very many blobs, or what is no
// manifest, end in an error.
func TestPullSetIsBounded(t *testing.T) {
	t.Parallel()
	b, _ := one(t, build(1))
	put := func(doc any) ocispec.Descriptor {
		data, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		d := ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data)), MediaType: ocispec.MediaTypeImageIndex}
		if err := b.Store.Put(soon(t), d.Digest, data, cache.Facts{}); err != nil {
			t.Fatal(err)
		}
		return d
	}
	text := put("no manifest")
	index := func(children ...ocispec.Descriptor) ocispec.Descriptor {
		return put(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: children})
	}
	layers := func(n int) ocispec.Descriptor {
		m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: text}
		for i := range n {
			m.Layers = append(m.Layers, ocispec.Descriptor{Digest: digest.FromString(fmt.Sprint(i)), MediaType: ocispec.MediaTypeImageLayer})
		}
		d := put(m)
		d.MediaType = m.MediaType
		return d
	}
	deep := index(layers(1))
	for range maxDepth - 1 {
		deep = index(deep)
	}
	for name, root := range map[string]ocispec.Descriptor{
		"deep": index(deep), "many": index(layers(maxPullSet - 2)), "text": text, "of text": index(text), "empty": index(),
	} {
		if set, err := b.PullSet(root.Digest); err == nil {
			t.Errorf("%s: %d blobs", name, len(set))
		}
	}
	for name, root := range map[string]ocispec.Descriptor{"as deep as may be": deep, "as many as may be": index(layers(maxPullSet - 3))} {
		if _, err := b.PullSet(root.Digest); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOpenSure: who hands bytes on that nobody looks at gets those that are known to
// be right, and no others.
func TestOpenSure(t *testing.T) {
	t.Parallel()
	img := build(2)
	b, _ := one(t, img)
	if _, err := b.Pull(soon(t), app(t, "1"), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	layer := img.Blobs[1].Descriptor.Digest
	repo := app(t, "1").Repository
	open := func() error {
		blob, err := b.OpenSure(soon(t), repo, layer)
		if err == nil {
			blob.Close()
		}
		return err
	}
	if err := open(); err != nil {
		t.Error(err)
	}
	if err := b.Store.Close(); err != nil {
		t.Fatal(err)
	}
	if blob, err := b.Store.OpenVerified(soon(t), layer); err != nil {
		t.Errorf("this test shows nothing: %v", err)
	} else {
		blob.Close()
	}
	if err := open(); err == nil {
		t.Error("the index cannot be read, and a blob is taken for sure")
	}
}

// TestOpenSureOfPrivate: what is private is given to no other repository, and nobody
// is asked whether it may be.
func TestOpenSureOfPrivate(t *testing.T) {
	t.Parallel()
	b := newPrivateBench(t)
	img := build(3)
	b.up.PutImage(secretA().Path, "1", img)
	b.up.PutImage(secretB().Path, "1", img)
	b.bring(b.admitted(secretA(), "1"), secretA(), img)
	asked := len(b.up.Requests())
	layer := img.Blobs[0].Descriptor.Digest
	for repo, want := range map[Repository]bool{secretA(): true, secretB(): false, publicC(): false} {
		blob, err := b.OpenSure(soon(t), repo, layer)
		if err == nil {
			blob.Close()
		}
		if (err == nil) != want || !want && !errdefs.IsPermissionDenied(err) {
			t.Errorf("%s: %v, want %t", repo, err, want)
		}
	}
	if n := len(b.up.Requests()) - asked; n > 0 {
		t.Errorf("upstream was asked %d times", n)
	}
}
