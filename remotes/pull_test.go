package remotes

import (
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// multi has three platforms.
func multi() remotestest.ImageSpec {
	return remotestest.ImageSpec{Seed: 5, Layers: []int64{2000, 3000}, Platforms: []string{"linux/amd64", "linux/arm64/v8", "windows/amd64"}}
}

func TestPullPlatforms(t *testing.T) {
	t.Parallel()
	img := remotestest.Build(multi())
	for name, c := range map[string]struct {
		platforms        []string
		manifests, blobs int
	}{
		"one":   {[]string{"linux/amd64"}, 2, 3},
		"two":   {[]string{"linux/amd64", "linux/arm64"}, 3, 6},
		"twice": {[]string{"linux/amd64", "linux/amd64"}, 2, 3},
		"all":   {[]string{"all"}, 4, 9},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, up := one(t, img)
			res, err := b.Pull(soon(t), app(t, "1"), PullOptions{Platforms: c.platforms})
			if err != nil {
				t.Fatal(err)
			}
			if res.Manifests != c.manifests || res.Blobs != c.blobs || res.Bytes != res.Fetched || res.Descriptor.Digest != img.Root.Digest {
				t.Errorf("got %+v, want %d manifests and %d blobs, all fetched", res, c.manifests, c.blobs)
			}
			up.Stop()
			again, err := b.Pull(soon(t), app(t, "1"), PullOptions{Platforms: c.platforms})
			if err != nil || again.Bytes != res.Bytes || again.Fetched != 0 || again.Outcome != Hit {
				t.Errorf("again: got %+v, %v, want the same bytes and none fetched", again, err)
			}
		})
	}
}

func TestPullErrors(t *testing.T) {
	t.Parallel()
	b, up := one(t, remotestest.Build(multi()))
	for name, c := range map[string]struct {
		ref       string
		platforms []string
		is        func(error) bool
		words     string
	}{
		"no such platform": {"1", []string{"linux/s390x"}, errdefs.IsNotFound, "no image for linux/s390x in the index, which has linux/amd64, linux/arm64/v8, windows/amd64"},
		"not a platform":   {"1", []string{"a/b/c/d"}, errdefs.IsInvalidArgument, `platform "a/b/c/d": want os/arch[/variant], or all`},
		"no such tag":      {"2", []string{"all"}, errdefs.IsNotFound, "2"},
	} {
		_, err := b.Pull(soon(t), app(t, c.ref), PullOptions{Platforms: c.platforms})
		if !c.is(err) {
			t.Errorf("%s: got %v", name, err)
		}
		mentions(t, err, c.words)
	}
	up.Fault(remotestest.Blobs(), remotestest.WrongBytes(1))
	if _, err := b.Pull(soon(t), app(t, "1"), PullOptions{Platforms: []string{"all"}}); !errdefs.IsDataLoss(err) {
		t.Errorf("wrong bytes: got %v, want data loss", err)
	}
}

// An index in an index, with an attestation beside the images.
func TestPullNestedIndex(t *testing.T) {
	t.Parallel()
	img := remotestest.Build(multi())
	up := remotestest.New(t)
	up.PutImage("library/app", "", img)
	att := build(9)
	up.PutImage("library/app", "", att)
	attDesc := att.Root
	attDesc.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	inner := img.Root
	outer := up.PutManifest("library/app", "1", ocispec.MediaTypeImageIndex, mustJSON(t, ocispec.Index{
		Versioned: versioned(), MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{inner, attDesc},
	}))
	b := newBench(t, []*remotestest.Registry{up})
	res, err := b.Pull(soon(t), app(t, "1"), PullOptions{Platforms: []string{"linux/amd64"}})
	if err != nil || res.Manifests != 3 || res.Blobs != 3 || res.Descriptor.Digest != outer.Digest {
		t.Errorf("got %+v, %v, want 3 manifests and 3 blobs", res, err)
	}
	if has, err := b.Store.Has(att.Root.Digest); has || err != nil {
		t.Errorf("the attestation came along: %t, %v", has, err)
	}
	if res, err = b.Pull(soon(t), app(t, "1"), PullOptions{Platforms: []string{"all"}}); err != nil || res.Manifests != 6 {
		t.Errorf("all: got %+v, %v, want 6 manifests", res, err)
	}
}

// Indexes that name each other many times over, or nest without end, cost
// what their number costs.
func TestPullIsBounded(t *testing.T) {
	t.Parallel()
	up := remotestest.New(t)
	index := func(tag string, children ...ocispec.Descriptor) ocispec.Descriptor {
		return up.PutManifest("library/app", tag, ocispec.MediaTypeImageIndex, mustJSON(t, ocispec.Index{
			Versioned: versioned(), MediaType: ocispec.MediaTypeImageIndex, Manifests: children,
		}))
	}
	img := build(1)
	up.PutImage("library/app", "", img)
	const width = 4 // 4^30 ways down
	level := []ocispec.Descriptor{img.Root}
	for depth := range maxDepth - 1 { // some indexes on each level, each naming all of the level below
		var next []ocispec.Descriptor
		for i := range width {
			twin := level[0]
			twin.Annotations = map[string]string{"n": string(rune('a'+depth)) + string(rune('A'+i))}
			next = append(next, index("", append([]ocispec.Descriptor{twin}, level...)...))
		}
		level = next
	}
	index("wide", level...)
	b := newBench(t, []*remotestest.Registry{up})
	res, err := b.Pull(soon(t), app(t, "wide"), PullOptions{Platforms: []string{"all"}})
	if want := 2 + width*(maxDepth-1); err != nil || res.Manifests != want {
		t.Errorf("wide: got %d manifests, %v, want %d", res.Manifests, err, want)
	}
	if d, err := b.Image(app(t, "wide")); err != nil || d.Missing != 0 {
		t.Errorf("wide: got %+v, %v", d.Image, err)
	}
	deep := img.Root
	for range maxDepth + 1 {
		deep = index("deep", deep)
	}
	if _, err := b.Pull(soon(t), app(t, "deep"), PullOptions{Platforms: []string{"all"}}); !errdefs.IsDataLoss(err) {
		t.Errorf("deep: got %v, want it refused", err)
	}
}

// A layer that stands twice in a manifest is brought once, and one that may
// not be distributed not at all.
func TestPullOddLayers(t *testing.T) {
	t.Parallel()
	up := remotestest.New(t)
	layer, config := up.PutBlob("library/app", []byte("layer")), up.PutBlob("library/app", []byte("{}"))
	foreign := ocispec.Descriptor{MediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Digest: emptyDigest, URLs: []string{"http://169.254.169.254/"}}
	up.PutManifest("library/app", "1", ocispec.MediaTypeImageManifest, mustJSON(t, ocispec.Manifest{
		Versioned: versioned(), Config: config, Layers: []ocispec.Descriptor{layer, layer, foreign, layer},
	}))
	b := newBench(t, []*remotestest.Registry{up})
	res, err := b.Pull(soon(t), app(t, "1"), PullOptions{})
	if err != nil || res.Blobs != 2 {
		t.Errorf("got %+v, %v, want 2 blobs", res, err)
	}
	if n := up.Count("", "/blobs/"); n != 2 {
		t.Errorf("upstream saw %d blob requests, want 2", n)
	}
}

func TestPullReportsProgress(t *testing.T) {
	t.Parallel()
	img := remotestest.Build(remotestest.ImageSpec{Layers: []int64{600 << 10, 10}})
	b, _ := one(t, img)
	for i, want := range []Outcome{Miss, Hit} {
		var mu sync.Mutex
		last := map[digest.Digest]BlobProgress{}
		_, err := b.Pull(soon(t), app(t, "1"), PullOptions{Report: func(p BlobProgress) {
			mu.Lock()
			defer mu.Unlock()
			if before := last[p.Digest]; p.Received < before.Received || before.Done {
				t.Errorf("progress went from %+v to %+v", before, p)
			}
			last[p.Digest] = p
		}})
		if err != nil {
			t.Fatal(err)
		}
		for _, blob := range img.Blobs {
			d := blob.Descriptor
			if p := last[d.Digest]; !p.Done || p.Received != d.Size || p.Size != d.Size || p.Outcome != want || p.MediaType != d.MediaType {
				t.Errorf("pull %d: last report on %s is %+v, want all %d bytes, %s", i, d.Digest, p, d.Size, want)
			}
		}
	}
}

// What is on disk but damaged is brought anew by a pull, too.
func TestPullMendsDamagedLayer(t *testing.T) {
	t.Parallel()
	img := build(1)
	b, _ := one(t, img)
	if _, err := b.Pull(soon(t), app(t, "1"), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	layer := img.Blobs[len(img.Blobs)-1].Descriptor
	b.damage(b.blobFile(layer.Digest), []byte("x"))
	res, err := b.Pull(soon(t), app(t, "1"), PullOptions{})
	if err != nil || res.Fetched != layer.Size {
		t.Errorf("got %+v, %v, want %d bytes fetched", res, err, layer.Size)
	}
}
