package remotes

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// damage writes over a stored blob's file.
func (b *bench) damage(path string, data []byte) {
	b.t.Helper()
	if err := os.Remove(path); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o444); err != nil {
		b.t.Fatal(err)
	}
}

// A stored manifest that was damaged on disk is fetched again.
func TestDamagedManifestIsFetchedAgain(t *testing.T) {
	t.Parallel()
	img := build(1)
	whole := img.Manifests[0].Data
	flipped := append([]byte(nil), whole...)
	flipped[len(flipped)/2] ^= 1
	for name, data := range map[string][]byte{
		"flipped": flipped, "short": whole[:10], "empty": {}, "longer": append(append([]byte(nil), whole...), ' '),
		"huge": make([]byte, 5<<20),
	} {
		for _, object := range []string{"1", img.Root.Digest.String()} {
			t.Run(name+" by "+object[:1], func(t *testing.T) {
				t.Parallel()
				b, up := one(t, img)
				b.resolve(app(t, "1"), Miss)
				b.damage(b.blobFile(img.Root.Digest), data)
				m, err := b.Manifest(soon(t), app(t, object))
				if err != nil || string(m.Data) != string(whole) || m.Descriptor.Size != int64(len(whole)) {
					t.Errorf("got %v, %v, want the whole manifest", m.Resolved, err)
				}
				up.Stop()
				b.resolve(app(t, img.Root.Digest.String()), Hit)
			})
		}
	}
}

// A HEAD by digest tells the size of the manifest and not that of a damaged
// file; with upstream gone it tells nothing.
func TestDamagedManifestIsNotDescribed(t *testing.T) {
	t.Parallel()
	img := build(1)
	b, up := one(t, img)
	b.resolve(app(t, "1"), Miss)
	b.damage(b.blobFile(img.Root.Digest), []byte("x"))
	up.Stop()
	if res, err := b.Resolve(soon(t), app(t, img.Root.Digest.String())); err == nil {
		t.Errorf("got %+v, want an error", res)
	}
	up.Start()
	if res := b.resolve(app(t, img.Root.Digest.String()), Miss); res.Descriptor.Size != img.Root.Size {
		t.Errorf("size is %d, want %d", res.Descriptor.Size, img.Root.Size)
	}
}

// The index is lost between two runs, and its snapshot, too: digests are served
// all the same, with their types.
func TestLostIndex(t *testing.T) {
	t.Parallel()
	up := remotestest.New(t)
	root := t.TempDir()
	at := func(s *setup) { s.root = root }
	docker := remotestest.Build(remotestest.ImageSpec{Seed: 1, Docker: true, Platforms: []string{"linux/amd64", "linux/arm64"}})
	oci := remotestest.Build(remotestest.ImageSpec{Seed: 2, Platforms: []string{"linux/amd64", "linux/arm64"}})
	t.Run("before", func(t *testing.T) { //nolint:paralleltest // the second part needs its store closed
		b := newBench(t, []*remotestest.Registry{up}, at)
		for tag, img := range map[string]remotestest.Image{"docker": docker, "oci": oci} {
			up.PutImage("library/app", tag, img)
			if _, err := b.Pull(soon(t), app(t, tag), PullOptions{Platforms: []string{"all"}}); err != nil {
				t.Fatal(err)
			}
		}
	})
	for _, name := range []string{"index.db", "index.json"} {
		if err := os.Remove(filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	up.Stop()
	t.Run("after", func(t *testing.T) { //nolint:paralleltest // see above
		b := newBench(t, []*remotestest.Registry{up}, at)
		for _, img := range []remotestest.Image{docker, oci} {
			for _, m := range img.Manifests {
				res := b.resolve(app(t, m.Descriptor.Digest.String()), Hit)
				if res.Descriptor.MediaType != m.Descriptor.MediaType || res.Descriptor.Size != m.Descriptor.Size {
					t.Errorf("got %+v, want %+v", res.Descriptor, m.Descriptor)
				}
			}
			for _, blob := range img.Blobs {
				if data, outcome, err := b.read(app(t, "x").Repository, blob.Descriptor.Digest); err != nil || outcome != Hit || string(data) != string(blob.Data) {
					t.Errorf("blob: got %d bytes, %q, %v", len(data), outcome, err)
				}
				// A layer is no manifest, whatever the index has lost.
				if _, err := b.storedManifest(soon(t), blob.Descriptor.Digest); !errdefs.IsNotFound(err) {
					t.Errorf("blob %s as a manifest: got %v, want not found", blob.Descriptor.Digest, err)
				}
			}
		}
		if _, err := b.Resolve(soon(t), app(t, "oci")); err == nil {
			t.Error("a tag outlived the index")
		}
	})
}

// Anyone's manifest may name a popular manifest as a layer, or a layer as a
// manifest. What a blob is does not depend on who was pulled first.
func TestClaimsDoNotChangeTypes(t *testing.T) {
	t.Parallel()
	popular := build(1)
	evil := remotestest.New(t)
	up := remotestest.New(t)
	up.PutImage("library/app", "1", popular)
	config := evil.PutBlob("library/app", []byte("{}"))
	as := func(mediaType string) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: mediaType, Digest: popular.Root.Digest, Size: popular.Root.Size}
	}
	evil.PutBlob("library/app", popular.Manifests[0].Data)
	evil.PutManifest("library/app", "layer", ocispec.MediaTypeImageManifest, mustJSON(t, ocispec.Manifest{
		Versioned: versioned(), MediaType: ocispec.MediaTypeImageManifest, Config: config,
		Layers: []ocispec.Descriptor{as(ocispec.MediaTypeImageLayerGzip)},
	}))
	evil.PutManifest("library/app", "index", ocispec.MediaTypeImageIndex, mustJSON(t, ocispec.Index{
		Versioned: versioned(), MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{as(ocispec.MediaTypeImageIndex)},
	}))
	for i := range 4 {
		claim, bytesFirst := []string{"layer", "index"}[i%2], i > 1
		b := newBench(t, []*remotestest.Registry{up, evil})
		b.resolve(app(t, claim), Miss)
		if bytesFirst { // as a blob, with only the claim to tell its type
			if _, _, err := b.read(appRepo(), popular.Root.Digest); err != nil {
				t.Fatal(err)
			}
			b.settle(popular.Root.Digest)
		}
		for again := range 3 {
			m, err := b.Manifest(soon(t), app(t, popular.Root.Digest.String()))
			if err != nil || m.Descriptor.MediaType != popular.Root.MediaType {
				t.Errorf("claim %s: got %v, %v, want type %s", claim, m.Resolved, err, popular.Root.MediaType)
			}
			if (again > 0 || bytesFirst) && m.Outcome != Hit {
				t.Errorf("claim %s, bytes first %t: outcome %q, want hit", claim, bytesFirst, m.Outcome)
			}
		}
	}
}

// A layer that someone asks for as a manifest is neither served as one nor
// set aside.
func TestLayerIsNoManifest(t *testing.T) {
	t.Parallel()
	img := remotestest.Build(remotestest.ImageSpec{Layers: []int64{6 << 20, 1000}})
	b, up := one(t, img)
	if _, err := b.Pull(soon(t), app(t, "1"), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, blob := range img.Blobs {
		if m, err := b.Manifest(soon(t), app(t, blob.Descriptor.Digest.String())); !errdefs.IsNotFound(err) {
			t.Errorf("%s: got %v, %v, want not found", blob.Descriptor.MediaType, m.Resolved, err)
		}
	}
	up.Stop()
	for _, blob := range img.Blobs {
		if _, outcome, err := b.read(app(t, "1").Repository, blob.Descriptor.Digest); err != nil || outcome != Hit {
			t.Errorf("%s: got %q, %v, want it still there", blob.Descriptor.MediaType, outcome, err)
		}
	}
}

// A manifest that another repository brought belongs to this one too, once
// its upstream says so.
func TestManifestSharedByRepositories(t *testing.T) {
	t.Parallel()
	img := build(1)
	b, up := one(t, img)
	up.PutImage("library/other", "1", img)
	up.PutImage("library/other", "0", build(2))
	other, older := library(t, "other", "1"), library(t, "other", "0")
	b.resolve(app(t, "1"), Miss)
	b.resolve(older, Miss) // else its first tag is got whatever it is
	if heads, gets := sent(up, func() { b.resolve(other, Miss) }); heads != 1 || gets != 0 {
		t.Errorf("upstream saw %d HEAD and %d GET, want the manifest not to be got again", heads, gets)
	}
	for _, ref := range []Reference{app(t, "1"), other} {
		if _, err := b.Store.Link(ref.Repository.String(), img.Root.Digest); err != nil {
			t.Errorf("%s: %v", ref, err)
		}
	}
}
