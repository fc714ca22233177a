package remotes

import (
	"context"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/cache/disktest"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// prefetching has so many blobs of an image prefetched at a time.
func prefetching(parallel int) func(*setup) {
	return func(s *setup) { s.prefetch.Parallel = parallel }
}

// layers makes an image of so many small layers.
func layers(seed uint64, n int) remotestest.Image {
	return remotestest.Build(remotestest.ImageSpec{Seed: seed, Layers: slices.Repeat([]int64{1 << 10}, n)})
}

// inOrder are the blobs of an image in the order of its manifest: the config first.
func inOrder(img remotestest.Image) []digest.Digest {
	var all []digest.Digest
	for _, b := range img.Blobs {
		all = append(all, b.Descriptor.Digest)
	}
	last := len(all) - 1
	return append([]digest.Digest{all[last]}, all[:last]...)
}

// live runs the bench's background, and returns when images can be prefetched.
func (b *bench) live() (stop func()) {
	b.t.Helper()
	stop = b.behind()
	eventually(b.t, "images are prefetched", func() bool {
		b.prefetches.mu.Lock()
		defer b.prefetches.mu.Unlock()
		return b.prefetches.open
	})
	return stop
}

// get asks for a manifest as a client of the mirror does by GET.
func (b *bench) get(ctx context.Context, ref Reference) Manifest {
	b.t.Helper()
	m, err := b.Manifest(ctx, ref)
	if err != nil {
		b.t.Fatalf("manifest %s: %v", ref, err)
	}
	b.ExpectPull(ref.Repository, m)
	return m
}

// begin has a client get a manifest, ask for a layer, and leave as soon as that is
// noted.
func (b *bench) begin(ctx context.Context, ref Reference, layer digest.Digest) Manifest {
	b.t.Helper()
	m := b.get(ctx, ref)
	b.notePull(ctx, ref.Repository, layer)
	return m
}

// prefetched waits until no image is prefetched any more.
func (b *bench) prefetched() {
	b.t.Helper()
	eventually(b.t, "the prefetch is over", func() bool {
		b.prefetches.mu.Lock()
		defer b.prefetches.mu.Unlock()
		for _, p := range b.prefetches.images {
			if p.cancel != nil {
				return false
			}
		}
		return true
	})
}

// blobsIn are the blobs that upstream was asked for, in that order.
func blobsIn(reqs []remotestest.Request) (all []digest.Digest) {
	for _, q := range reqs {
		if _, dgst, ok := strings.Cut(q.Path, "/blobs/"); ok {
			all = append(all, digest.Digest(dgst))
		}
	}
	return all
}

// awaitAsked waits until upstream was asked for so many blobs.
func awaitAsked(t *testing.T, up *remotestest.Registry, n int) []digest.Digest {
	t.Helper()
	var all []digest.Digest
	if err := up.Await(soon(t), func(reqs []remotestest.Request) bool {
		all = blobsIn(reqs)
		return len(all) >= n
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// wantOnce checks that upstream was asked for each of these blobs once, and for no
// other.
func wantOnce(t *testing.T, up *remotestest.Registry, want []digest.Digest) {
	t.Helper()
	got, want := slices.Clone(blobsIn(up.Requests())), slices.Clone(want)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("upstream was asked for %d blobs, want each of %d once:\n%v\n%v", len(got), len(want), got, want)
	}
}

// TestPrefetch: of an image whose manifest a client was given as many blobs as are
// allowed are under way at once, in the order of the manifest, the client joins
// them, and in the end all are stored, each asked for once.
func TestPrefetch(t *testing.T) {
	t.Parallel()
	img := layers(1, 9)
	b, up := one(t, img, prefetching(4))
	b.live()
	release := make(chan struct{})
	up.Fault(remotestest.Blobs(), remotestest.GateHeader(release))
	ctx, leave := context.WithCancel(t.Context())
	b.begin(ctx, app(t, img.Root.Digest.String()), inOrder(img)[1])
	leave() // the client may do as it likes
	first := awaitAsked(t, up, 4)
	want := inOrder(img)
	if slices.Sort(first); !slices.Equal(first, slices.Sorted(slices.Values(want[:4]))) {
		t.Errorf("asked first for %v, want config and first layers", first)
	}
	blob := make(chan Outcome)
	go func() {
		_, outcome, err := b.read(appRepo(), want[2])
		if err != nil {
			t.Error(err)
		}
		blob <- outcome
	}()
	most := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = up.Await(t.Context(), func(reqs []remotestest.Request) bool {
			most = max(most, busy(reqs))
			return len(blobsIn(reqs)) == len(want)
		})
	}()
	eventually(t, "the client asks", func() bool { return b.Store.IsRead(want[2]) })
	close(release)
	if outcome := <-blob; outcome != Fill {
		t.Errorf("the client's blob is a %s, want it to join", outcome)
	}
	b.prefetched()
	<-done
	if most > 4 {
		t.Errorf("%d blobs at a time, want at most 4", most)
	}
	wantOnce(t, up, want)
	up.Stop()
	for _, dgst := range want {
		if _, outcome, err := b.read(appRepo(), dgst); err != nil || outcome != Hit {
			t.Errorf("%s: %q, %v, want it stored", dgst, outcome, err)
		}
	}
}

// TestPrefetchOfWholeImage: of an image that is whole nothing is asked, and once that
// is known the disk is not touched either.
func TestPrefetchOfWholeImage(t *testing.T) {
	t.Parallel()
	img := layers(1, 5)
	disk := disktest.NewFaulty(cache.OSDisk())
	b, up := one(t, img, prefetching(4), func(s *setup) { s.disk = disk })
	b.live()
	if _, err := b.Pull(soon(t), app(t, "1"), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	up.ResetRequests()
	m := b.begin(soon(t), app(t, img.Root.Digest.String()), inOrder(img)[1])
	b.prefetched()
	if n := len(up.Requests()); n != 0 {
		t.Errorf("upstream saw %d requests", n)
	}
	disk.FailFrom(1, syscall.EIO)
	b.ExpectPull(appRepo(), m)
	b.notePull(soon(t), appRepo(), inOrder(img)[1])
	b.prefetched()
	if disk.Failed() {
		t.Error("the disk was asked although the image is known to be whole")
	}
	disk.Heal()
	if b.Store.Health().State != cache.StateOK {
		t.Error("the disk failed")
	}
}

// TestPrefetchAfterLoss: an image that had to be fetched anew is not taken for whole.
func TestPrefetchAfterLoss(t *testing.T) {
	t.Parallel()
	img := layers(1, 3)
	b, up := one(t, img, prefetching(8))
	b.live()
	b.begin(soon(t), app(t, img.Root.Digest.String()), inOrder(img)[1])
	b.prefetched()
	if _, err := b.Remove(soon(t), app(t, img.Root.Digest.String())); err != nil {
		t.Fatal(err)
	}
	up.ResetRequests()
	b.begin(soon(t), app(t, img.Root.Digest.String()), inOrder(img)[1])
	b.prefetched()
	wantOnce(t, up, inOrder(img))
}

// TestPrefetchOfImagesOnly: only the manifest of an image has its blobs brought, and
// only those that come from its registry.
func TestPrefetchOfImagesOnly(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		config, layer string
		subject, want bool
	}{
		"image":           {ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayerZstd, false, true},
		"docker":          {remotestest.MediaTypeDockerConfig, remotestest.MediaTypeDockerLayer, false, true},
		"artifact":        {"application/vnd.example.chart", ocispec.MediaTypeImageLayerGzip, false, false},
		"empty config":    {ocispec.MediaTypeEmptyJSON, ocispec.MediaTypeImageLayerGzip, false, false},
		"attestation":     {ocispec.MediaTypeImageConfig, "application/vnd.in-toto+json", false, false},
		"signature":       {ocispec.MediaTypeImageConfig, "application/vnd.dev.cosign.simplesigning.v1+json", false, false},
		"referrer":        {ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayerGzip, true, false},
		"Windows's layer": {ocispec.MediaTypeImageConfig, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := remotestest.New(t)
			b := newBench(t, []*remotestest.Registry{up}, prefetching(4))
			b.live()
			config := up.PutBlob("library/app", []byte("{}"))
			config.MediaType = c.config
			layer := up.PutBlob("library/app", []byte("layer"))
			layer.MediaType = c.layer
			last := up.PutBlob("library/app", []byte("last layer"))
			last.MediaType = ocispec.MediaTypeImageLayerGzip
			doc := ocispec.Manifest{
				Versioned: versioned(), MediaType: ocispec.MediaTypeImageManifest,
				Config: config, Layers: []ocispec.Descriptor{layer, layer, last},
			}
			if c.subject {
				doc.Subject = &ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("subject"), Size: 7}
			}
			root := up.PutManifest("library/app", "1", ocispec.MediaTypeImageManifest, mustJSON(t, doc))
			b.begin(soon(t), app(t, root.Digest.String()), last.Digest)
			b.prefetched()
			var want []digest.Digest
			if c.want {
				want = []digest.Digest{config.Digest, last.Digest}
			}
			if c.want && !images.IsNonDistributable(c.layer) {
				want = append(want, layer.Digest)
			}
			wantOnce(t, up, want)
		})
	}
}

// TestPrefetchOfAskedPlatform: the index, the manifests and configs of all platforms,
// which ctr reads, and a layer that two of them have, bring nothing else. A layer of
// one platform brings that one.
func TestPrefetchOfAskedPlatform(t *testing.T) {
	t.Parallel()
	up := remotestest.New(t)
	b := newBench(t, []*remotestest.Registry{up}, prefetching(4))
	b.live()
	both := up.PutBlob("library/app", []byte("of both"))
	both.MediaType = ocispec.MediaTypeImageLayerGzip
	var configs, own, manifests []ocispec.Descriptor
	for _, arch := range []string{"amd64", "arm64"} {
		config, layer := up.PutBlob("library/app", []byte(`"`+arch+`"`)), up.PutBlob("library/app", []byte(arch))
		config.MediaType, layer.MediaType = ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayerGzip
		m := up.PutManifest("library/app", "", ocispec.MediaTypeImageManifest, mustJSON(t, ocispec.Manifest{
			Versioned: versioned(), MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{both, layer},
		}))
		m.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		configs, own, manifests = append(configs, config), append(own, layer), append(manifests, m)
	}
	up.PutManifest("library/app", "1", ocispec.MediaTypeImageIndex, mustJSON(t, ocispec.Index{
		Versioned: versioned(), MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests,
	}))
	b.get(soon(t), app(t, "1"))
	for i := range manifests {
		b.get(soon(t), app(t, manifests[i].Digest.String()))
		b.notePull(soon(t), appRepo(), configs[i].Digest)
	}
	b.notePull(soon(t), appRepo(), both.Digest)
	b.prefetched()
	wantOnce(t, up, nil)
	b.notePull(soon(t), appRepo(), own[1].Digest)
	b.prefetched()
	wantOnce(t, up, []digest.Digest{configs[1].Digest, both.Digest, own[1].Digest})
	// And again, as a warm pull does.
	up.ResetRequests()
	for i := range manifests {
		b.get(soon(t), app(t, manifests[i].Digest.String()))
	}
	b.notePull(soon(t), appRepo(), both.Digest)
	b.notePull(soon(t), appRepo(), own[1].Digest)
	b.prefetched()
	if n := len(up.Requests()); n != 0 {
		t.Errorf("a warm pull: upstream saw %d requests", n)
	}
}

// TestPrefetchPatience: a manifest that no client goes on from is forgotten; who asks
// TestPrefetchBringsNothing: where the disk or upstream has nothing to spare, and
// where upstream is not asked at all, nothing is prefetched, and clients are served
// TestPrefetchEndsWithRun: when the background ends nothing more is begun, however
// TestPrefetchMakesWay: half of the connections for blobs are the clients', and one
// that needs another has it at once: the oldest prefetch that nobody reads ends, and
// TestPrefetchOfPrivate: what is prefetched of a private repository is asked for with
// the secret of the client that pulls, and what is stored for another repository has
// to be shown by this one's upstream, as for that client.
func TestPrefetchOfPrivate(t *testing.T) {
	t.Parallel()
	b := newPrivateBench(t, prefetching(8))
	b.live()
	img := layers(1, 3)
	b.up.PutImage(secretA().Path, "1", img)
	b.up.PutImage(secretB().Path, "1", img)
	lacks := img.Blobs[1].Descriptor.Digest
	b.up.DeleteBlob(secretB().Path, lacks)
	for _, repo := range []Repository{secretA(), secretB()} {
		b.up.ResetRequests()
		release := make(chan struct{})
		remove := b.up.Fault(remotestest.Blobs(), remotestest.GateHeader(release))
		ctx := b.admitted(repo, "1")
		b.begin(ctx, Reference{Repository: repo, Digest: img.Root.Digest}, inOrder(img)[1])
		awaitAsked(t, b.up, len(img.Blobs)) // before one fails
		remove()
		close(release)
		b.prefetched()
		wantOnce(t, b.up, inOrder(img)) // of the second one a sample is all of so small a blob
		if sent := b.sent(repo); len(sent) != 1 || !sent["kim of "+repo.Path+":right"] {
			t.Errorf("%s: upstream was shown %v, want the client's secret only", repo, sent)
		}
		b.up.ResetRequests()
		for _, dgst := range inOrder(img) {
			_, err := b.readAs(ctx, repo, dgst)
			if refused := repo == secretB() && dgst == lacks; (err != nil) != refused {
				t.Errorf("%s for %s: %v", dgst, repo, err)
			}
		}
		if n := len(b.up.Requests()); n != 0 {
			t.Errorf("%s: upstream saw %d more requests, and the answers were known", repo, n)
		}
	}
	// A client that is refused later takes nothing from who may have it.
	if _, err := b.Admit(soon(t), secretA(), "1", kim(secretA(), "wrong")); err == nil {
		t.Error("a wrong secret was accepted")
	}
}
