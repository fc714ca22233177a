package remotes

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
)

// tell has a client that reads the store itself be told of a manifest.
func (b *bench) tell(ref Reference) {
	b.t.Helper()
	m, err := b.Resolve(soon(b.t), ref)
	if err != nil {
		b.t.Fatal(err)
	}
	b.ExpectPull(ref.Repository, Manifest{Resolved: m})
}

// TestAwaitBlob: a client that reads the store, and has asked for no more than the
// manifest, gets each blob of an image by its digest; with the first layer all others
// are brought, each once.
func TestAwaitBlob(t *testing.T) {
	t.Parallel()
	img := layers(1, 5)
	b, up := one(t, img, prefetching(8))
	b.live()
	b.tell(b.ref("docker.io/library/app:1"))
	blobs := inOrder(img)
	if err := b.AwaitBlob(soon(t), blobs[0], func() {}); err != nil {
		t.Fatal(err)
	}
	if got := blobsIn(up.Requests()); !slices.Equal(got, blobs[:1]) {
		t.Errorf("behind the config upstream was asked for %v", got)
	}
	if err := b.AwaitBlob(soon(t), blobs[1], func() {}); err != nil {
		t.Error(err)
	}
	awaitAsked(t, up, len(blobs))
	for _, dgst := range blobs[2:] {
		if err := b.AwaitBlob(soon(t), dgst, func() {}); err != nil {
			t.Error(err)
		}
		if has, err := b.Store.Has(dgst); !has || err != nil {
			t.Errorf("%s is not stored: %v", dgst, err)
		}
	}
	b.prefetched()
	wantOnce(t, up, blobs)
	if err := b.AwaitBlob(soon(t), blobs[1], func() {}); err != nil {
		t.Errorf("what is stored: %v", err)
	}
}

// TestAwaitBlobOfIndex: of an index that a client reads in the store it has those
// images that are there.
func TestAwaitBlobOfIndex(t *testing.T) {
	t.Parallel()
	img := remotestest.Build(remotestest.ImageSpec{Seed: 1, Layers: []int64{1 << 10}, Platforms: []string{"linux/amd64", "linux/arm64"}})
	b, up := one(t, img, prefetching(8))
	b.live()
	index := b.ref("docker.io/library/app:1")
	stored := Reference{Repository: index.Repository, Digest: img.Manifests[0].Descriptor.Digest}
	if _, err := b.Manifest(soon(t), stored); err != nil {
		t.Fatal(err)
	}
	b.tell(index)
	brought := 0
	for _, blob := range img.Blobs {
		err := b.AwaitBlob(soon(t), blob.Descriptor.Digest, func() {})
		switch {
		case err == nil:
			brought++
		case !errdefs.IsNotFound(err):
			t.Error(err)
		}
	}
	b.prefetched()
	if n := len(blobsIn(up.Requests())); brought != len(img.Blobs)/2 || n != brought {
		t.Errorf("%d of %d blobs were brought, upstream was asked for %d; want those of one platform", brought, len(img.Blobs), n)
	}
}

// TestAwaitBlobBringsNothing: without a word of whose it is, or of who may have it,
// nothing is brought.
func TestAwaitBlobBringsNothing(t *testing.T) {
	t.Parallel()
	img := layers(1, 3)
	layer := inOrder(img)[1]
	for name, c := range map[string]struct {
		change func(*setup)
		before func(b *bench, up *remotestest.Registry)
	}{
		"not told of": {prefetching(8), func(*bench, *remotestest.Registry) {}},
		"no prefetch": {prefetching(0), func(b *bench, _ *remotestest.Registry) { b.tell(b.ref("docker.io/library/app:1")) }},
		"of another": {prefetching(8), func(b *bench, up *remotestest.Registry) {
			up.PutImage("library/other", "1", layers(2, 3))
			b.tell(b.ref("docker.io/library/other:1"))
		}},
		"of two": {prefetching(8), func(b *bench, up *remotestest.Registry) {
			up.PutImage("library/other", "1", img)
			b.tell(b.ref("docker.io/library/app:1"))
			b.tell(b.ref("docker.io/library/other:1"))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, up := one(t, img, c.change)
			b.live()
			c.before(b, up)
			if err := b.AwaitBlob(soon(t), layer, func() {}); !errdefs.IsNotFound(err) {
				t.Errorf("%v, want not found", err)
			}
			if asked := blobsIn(up.Requests()); len(asked) > 0 {
				t.Errorf("upstream was asked for %v", asked)
			}
		})
	}
}

// TestAwaitBlobOfPrivate: nobody is asked for a private repository's blob without the
// secret of who wants it.
func TestAwaitBlobOfPrivate(t *testing.T) {
	t.Parallel()
	b := newPrivateBench(t, prefetching(8))
	b.live()
	img := layers(1, 3)
	b.up.PutImage(secretA().Path, "1", img)
	m, err := b.Resolve(b.admitted(secretA(), "1"), Reference{Repository: secretA(), Tag: "1"})
	if err != nil {
		t.Fatal(err)
	}
	b.ExpectPull(secretA(), Manifest{Resolved: m})
	b.up.ResetRequests()
	if err := b.AwaitBlob(soon(t), inOrder(img)[1], func() {}); !errdefs.IsNotFound(err) {
		t.Errorf("%v, want not found", err)
	}
	if n := len(b.up.Requests()); n > 0 {
		t.Errorf("upstream saw %d requests", n)
	}
}

// TestAwaitBlobEnds: who waits leaves when it wants to, and when the blob cannot be
// brought.
func TestAwaitBlobEnds(t *testing.T) {
	t.Parallel()
	img := layers(1, 2)
	b, up := one(t, img, prefetching(8))
	b.live()
	b.tell(b.ref("docker.io/library/app:1"))
	config, layer := inOrder(img)[0], inOrder(img)[1]
	up.DeleteBlob("library/app", config)
	if err := b.AwaitBlob(soon(t), config, func() {}); !errdefs.IsNotFound(err) {
		t.Errorf("%v, want upstream's not found", err)
	}
	release := make(chan struct{})
	up.Fault(remotestest.Blobs(), remotestest.GateHeader(release))
	ctx, leave := context.WithCancelCause(t.Context())
	left := errors.New("left")
	ended := make(chan error, 1)
	go func(dgst digest.Digest) { ended <- b.AwaitBlob(ctx, dgst, func() {}) }(layer)
	awaitAsked(t, up, 2)
	leave(left)
	if err := <-ended; !errors.Is(err, left) {
		t.Errorf("%v, want the cause", err)
	}
	close(release)
	b.prefetched()
	b.settle(layer)
	if has, err := b.Store.Has(layer); !has || err != nil {
		t.Errorf("what was begun is not stored: %v", err)
	}
}
