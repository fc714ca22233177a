package remotes

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func withCompanions(s *setup) { s.companion = Companions{Fetch: true, MaxSize: 1 << 20} }

// behind runs the bench's background until the returned func, or the test, ends
// it.
func (b *bench) behind() (stop func()) {
	ctx, cancel := context.WithCancel(b.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { b.Run(ctx) })
	stop = func() {
		cancel()
		wg.Wait()
	}
	b.t.Cleanup(stop)
	return stop
}

// idle waits until all that was queued is followed.
func (b *bench) idle() {
	b.t.Helper()
	eventually(b.t, "the background is idle", func() bool {
		b.backlog.mu.Lock()
		defer b.backlog.mu.Unlock()
		return len(b.backlog.waiting) == 0
	})
}

// followed waits until a manifest's companions are all looked after.
func (b *bench) followed(dgst digest.Digest) {
	b.t.Helper()
	eventually(b.t, "companions of "+dgst.String()+" are there", func() bool {
		rf, err := b.Store.Referrers(appRepo().String(), dgst)
		return err == nil && !rf.Followed.IsZero()
	})
}

// companion is an image with all kinds of companions.
type companion struct {
	img                  remotestest.Image
	sbom, sig, sbomSig   ocispec.Descriptor // referrers; the last one of the SBOM
	cosign, attestations ocispec.Descriptor // by tag
}

func putCompanion(up *remotestest.Registry, seed uint64) companion {
	c := companion{img: build(seed)}
	mark := string(rune('a' + seed))
	up.PutImage("library/app", "1", c.img)
	c.sbom = up.PutReferrer("library/app", c.img.Root, sbomType, []byte("packages "+mark))
	c.sig = up.PutReferrer("library/app", c.img.Root, sigType, []byte("signature "+mark))
	c.sbomSig = up.PutReferrer("library/app", c.sbom, sigType, []byte("signature of packages "+mark))
	c.cosign = up.PutSignature("library/app", c.img.Root.Digest, ".sig", []byte("cosign "+mark))
	c.attestations = up.PutSignature("library/app", c.img.Root.Digest, ".att", []byte("provenance "+mark))
	return c
}

func (c companion) all() []ocispec.Descriptor {
	return []ocispec.Descriptor{c.sbom, c.sig, c.sbomSig, c.cosign, c.attestations}
}

// wantWhole checks that manifests are stored with all that they name.
func (b *bench) wantWhole(descs ...ocispec.Descriptor) {
	b.t.Helper()
	for _, d := range descs {
		m, err := b.Manifest(soon(b.t), app(b.t, d.Digest.String()))
		if err != nil || m.Outcome != Hit {
			b.t.Errorf("%s: outcome %q, %v, want it stored", d.Digest, m.Outcome, err)
			continue
		}
		doc, err := cache.ParseManifest(m.Data, "")
		if err != nil {
			b.t.Error(err)
		}
		for _, blob := range doc.Blobs {
			if _, outcome, err := b.read(appRepo(), blob.Digest); err != nil || outcome != Hit {
				b.t.Errorf("blob %s of %s: %q, %v, want it stored", blob.Digest, d.Digest, outcome, err)
			}
		}
	}
}

// TestCompanionsComeAlong: after a resolve by tag all is there without
// upstream: referrers, theirs, cosign's tags, and the lists.
func TestCompanionsComeAlong(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]remotestest.Option{"endpoint": nil, "tag schema": {remotestest.WithoutReferrers()}, "denied": {remotestest.WithDeniedUnknown()}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := remotestest.New(t, opts...)
			c := putCompanion(up, 1)
			b := newBench(t, []*remotestest.Registry{up}, withCompanions)
			stop := b.behind()
			b.resolve(app(t, "1"), Miss)
			b.followed(c.img.Root.Digest)
			stop()
			up.Stop()
			b.wantWhole(c.all()...)
			b.referrers(c.img.Root.Digest, "", Hit, 2)
			b.referrers(c.sbom.Digest, "", Hit, 1)
			b.resolve(app(t, remotestest.SignatureTag(c.img.Root.Digest, ".sig")), Hit)
			if images, err := b.Images(soon(t)); err != nil || len(images) != 3 {
				t.Errorf("images: %v, %v, want the image and two tags of cosign's", images, err)
			}
			// Who verifies asks by digest, and wants nothing listed.
			b.resolve(app(t, c.sbom.Digest.String()), Hit)
			if images, err := b.Images(soon(t)); err != nil || len(images) != 3 {
				t.Errorf("images: %v, %v, want no artifact among them", images, err)
			}
		})
	}
}

// TestCompanionsAskOnce: inside the window nothing is asked again, also not for
// tags that do not exist; outside it all is.
func TestCompanionsAskOnce(t *testing.T) {
	t.Parallel()
	img := remotestest.Build(multi())
	b, up := one(t, img, withCompanions)
	pull := func() int {
		return counted(up, func() {
			if _, err := b.Pull(soon(t), app(t, "1"), PullOptions{Platforms: []string{"linux/amd64"}}); err != nil {
				t.Fatal(err)
			}
		})
	}
	first := pull()
	// The root, the child, three blobs; then one list and three tags for root and
	// child each.
	if want := 1 + 1 + 3 + 2*4; first != want {
		t.Errorf("first pull: %d requests, want %d", first, want)
	}
	if n := pull(); n != 0 {
		t.Errorf("second pull: %d requests, want none", n)
	}
	stop := b.behind() // what was queued was done by the pull
	b.idle()
	stop()
	if n := len(up.Requests()); n != first {
		t.Errorf("%d requests behind the pull, want none", n-first)
	}
	b.expire(app(t, "1"))
	b.outdate(img.Root.Digest)
	b.outdate(img.Manifests[0].Descriptor.Digest)
	b.negatives.entries.Purge() // seconds have passed
	if n, want := pull(), 1+2*4; n != want {
		t.Errorf("outside the window: %d requests, want %d", n, want)
	}
}

// TestCompanionsOfTagsWithoutWindow: a tag that every pull asks about does not
// have its companions asked for at every pull, also when they fail.
func TestCompanionsOfTagsWithoutWindow(t *testing.T) {
	t.Parallel()
	fresh := DefaultFreshness()
	fresh.Window = 0
	img := build(1)
	b, up := one(t, img, withCompanions, withFreshness(fresh))
	mend := up.Fault(remotestest.Or(remotestest.Referrers(), remotestest.Reference("sha256-"+img.Root.Digest.Encoded())), remotestest.Error(http.StatusForbidden, "DENIED", "x"))
	b.behind()
	b.resolve(app(t, "1"), Miss)
	eventually(t, "following failed", func() bool { return b.backlog.failures.Len() == 1 })
	n := counted(up, func() {
		b.resolve(app(t, "1"), Hit)
		b.idle()
	})
	if n != 1 {
		t.Errorf("after a failure: %d requests, want the check alone", n)
	}
	mend()
	if res, err := b.Pull(soon(t), app(t, "1"), PullOptions{}); err != nil || res.Unaccompanied != nil {
		t.Fatalf("got %+v, %v", res, err)
	}
	b.backlog.failures.Purge()
	n = counted(up, func() {
		b.resolve(app(t, "1"), Hit)
		b.idle()
	})
	if n != 1 {
		t.Errorf("after all came: %d requests, want the check alone", n)
	}
}

// TestPullBringsCompanions waits for them, reports them, and warns of what is
// missing.
func TestPullBringsCompanions(t *testing.T) {
	t.Parallel()
	up := remotestest.New(t)
	c := putCompanion(up, 1)
	b := newBench(t, []*remotestest.Registry{up}, withCompanions)
	remove := up.Fault(remotestest.Digest(c.sig.Digest), remotestest.Error(http.StatusInternalServerError, "UNKNOWN", "x"))
	res, err := b.Pull(soon(t), app(t, "1"), PullOptions{})
	if err != nil || res.Companions != 4 {
		t.Fatalf("got %+v, %v, want 4 companions", res, err)
	}
	mentions(t, res.Unaccompanied, c.sig.Digest.String(), "500")
	remove()
	var mu sync.Mutex
	reported := map[digest.Digest]Outcome{}
	res, err = b.Pull(soon(t), app(t, "1"), PullOptions{Report: func(p BlobProgress) {
		mu.Lock()
		defer mu.Unlock()
		if p.Done {
			reported[p.Digest] = p.Outcome
		}
	}})
	if err != nil || res.Companions != 5 || res.Unaccompanied != nil {
		t.Errorf("again: got %+v, %v, want 5 companions and no complaint", res, err)
	}
	if got := reported[digest.FromString("signature b")]; got != Miss {
		t.Errorf("the signature's blob was reported as %q, want miss", got)
	}
	up.Stop()
	b.wantWhole(c.all()...)
	d, err := b.Image(app(t, "1"))
	if err != nil || len(d.Companions) != 5 || d.Missing != 0 || d.Size != sizeOf(c.img) {
		t.Errorf("got %+v, %v, want 5 companions beside the image", d, err)
	}
}

// TestCompanionsDoNotHinder: an upstream that is silent about them delays
// neither the pull nor the end of the daemon.
func TestCompanionsDoNotHinder(t *testing.T) {
	t.Parallel()
	up := remotestest.New(t)
	c := putCompanion(up, 1)
	b := newBench(t, []*remotestest.Registry{up}, withCompanions)
	blob := digest.FromString("packages b")
	release := make(chan struct{})
	up.Fault(remotestest.Digest(blob), remotestest.GateHeader(release))
	stop := b.behind()
	b.resolve(app(t, "1"), Miss)
	if err := up.Await(soon(t), func(rs []remotestest.Request) bool {
		for _, r := range rs {
			if strings.Contains(r.Path, blob.String()) {
				return true
			}
		}
		return false
	}); err != nil {
		t.Fatal(err)
	}
	b.resolve(app(t, "1"), Hit)
	for _, d := range c.img.Blobs {
		if _, _, err := b.read(appRepo(), d.Descriptor.Digest); err != nil {
			t.Error(err)
		}
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		stop()
	}()
	select {
	case <-stopped:
	case <-soon(t).Done():
		t.Error("Run does not end while a companion is on its way")
	}
	_, started, err := b.Store.Fill(soon(t), blob, -1, blobSource{registry: b.Registry, repo: appRepo(), digest: blob})
	if err != nil || started {
		t.Errorf("Run ended when the fill did, and not before it: %t, %v", started, err)
	}
	close(release)
	b.settle(blob)
}

// TestCompanionsOfSlowHost: images of a registry that does not answer hold up no
// others, however many they are.
func TestCompanionsOfSlowHost(t *testing.T) {
	t.Parallel()
	up := remotestest.New(t)
	c := putCompanion(up, 1)
	b := newBench(t, []*remotestest.Registry{up}, withCompanions, func(s *setup) { s.hosts = []string{"slow.example"} })
	slow := Repository{Host: "slow.example", Path: "team/slow"}
	release := make(chan struct{})
	defer close(release)
	up.Fault(remotestest.And(remotestest.Repo(slow.Path), remotestest.Referrers()), remotestest.GateHeader(release))
	stop := b.behind()
	for i := range followers + 1 {
		img := build(uint64(10 + i))
		up.PutImage(slow.Path, "1", img)
		if _, err := b.Resolve(soon(t), Reference{Repository: slow, Digest: img.Root.Digest}); err != nil {
			t.Fatal(err)
		}
	}
	b.resolve(app(t, "1"), Miss)
	b.followed(c.img.Root.Digest)
	b.wantWhole(c.all()...)
	stop()
}

// TestCompanionBounds: what is too large, lies about its size, or does not name
// its subject does not come along.
func TestCompanionBounds(t *testing.T) {
	t.Parallel()
	img := build(1)
	b, up := one(t, img, withCompanions)
	large := up.PutReferrer("library/app", img.Root, sbomType, make([]byte, 1<<19), make([]byte, 1<<19+1))
	small := up.PutReferrer("library/app", img.Root, sbomType, []byte("small"))
	res, err := b.Pull(soon(t), app(t, "1"), PullOptions{})
	if err != nil || res.Unaccompanied != nil {
		t.Errorf("got %+v, %v", res, err)
	}
	b.wantWhole(small)
	for _, n := range []int{1 << 19, 1<<19 + 1} {
		if has, _ := b.Store.Has(digest.FromBytes(make([]byte, n))); has {
			t.Error("a blob of the large artifact came along")
		}
	}
	b.referrers(img.Root.Digest, "", Hit, 2) // it is listed all the same
	if _, outcome, err := b.read(appRepo(), digest.FromBytes(make([]byte, 1<<19))); err != nil || outcome != Miss {
		t.Errorf("a client gets it: %q, %v", outcome, err)
	}

	liar, foreign := build(2), build(3)
	up.PutImage("library/app", "2", liar)
	up.PutImage("library/app", "", foreign)
	long := up.PutBlob("library/app", make([]byte, 2000))
	long.Size = 10
	lie := up.PutManifest("library/app", "", ocispec.MediaTypeImageManifest, mustJSON(t, ocispec.Manifest{
		Versioned: versioned(), Config: long, Layers: []ocispec.Descriptor{}, Subject: &liar.Root,
	}))
	index := mustJSON(t, ocispec.Index{Versioned: versioned(), Manifests: []ocispec.Descriptor{lie, foreign.Root, {MediaType: ocispec.MediaTypeImageManifest, Digest: large.Digest, Size: 1}}})
	up.Fault(remotestest.And(remotestest.Referrers(), remotestest.Digest(liar.Root.Digest)), remotestest.Status(http.StatusOK, nil, string(index)))
	res, err = b.Pull(soon(t), app(t, "2"), PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	mentions(t, res.Unaccompanied, "its manifest says", foreign.Root.Digest.String()+" is listed as a referrer", "does not name it")
	if has, _ := b.Store.Has(long.Digest); has {
		t.Error("a blob longer than its manifest says came along")
	}
	if has, _ := b.Store.Has(foreign.Blobs[0].Descriptor.Digest); has {
		t.Error("blobs of another image came along")
	}
	if link, err := b.Store.Link(appRepo().String(), foreign.Root.Digest); err == nil && link.Companion {
		t.Error("another image became a companion")
	}
}

// TestCompanionsShareABound: artifacts that are each small enough are too much
// together.
func TestCompanionsShareABound(t *testing.T) {
	t.Parallel()
	img := build(1)
	b, up := one(t, img, withCompanions)
	const size = 900 << 10 // of a MiB that one may have
	var all [][]byte
	for i := range maxShares + 2 {
		data := bytes.Repeat([]byte{byte(i)}, size)
		up.PutReferrer("library/app", img.Root, sbomType, data)
		all = append(all, data)
	}
	if res, err := b.Pull(soon(t), app(t, "1"), PullOptions{}); err != nil || res.Unaccompanied != nil {
		t.Errorf("got %+v, %v", res, err)
	}
	came := 0
	for _, data := range all {
		if has, _ := b.Store.Has(digest.FromBytes(data)); has {
			came++
		}
	}
	if came != maxShares {
		t.Errorf("%d of %d artifacts came along, want %d", came, len(all), maxShares)
	}
	b.referrers(img.Root.Digest, "", Hit, len(all))
}

// TestManyReferrers: only so many come along, and all are listed.
func TestManyReferrers(t *testing.T) {
	t.Parallel()
	img := build(1)
	b, up := one(t, img, withCompanions)
	for i := range maxReferrers + 20 {
		up.PutReferrer("library/app", img.Root, sbomType, []byte{byte(i)})
	}
	res, err := b.Pull(soon(t), app(t, "1"), PullOptions{})
	if err != nil || res.Companions != maxReferrers || res.Unaccompanied != nil {
		t.Errorf("got %+v, %v, want %d companions", res, err, maxReferrers)
	}
	b.referrers(img.Root.Digest, "", Hit, maxReferrers+20)
}

// TestNewReferrerComesAlong: a client's look at the list brings what is new in
// it; so does a refresh of the tag.
func TestNewReferrerComesAlong(t *testing.T) {
	t.Parallel()
	img := build(1)
	b, up := one(t, img, withCompanions)
	b.behind()
	b.resolve(app(t, "1"), Miss)
	b.followed(img.Root.Digest)
	first := up.PutReferrer("library/app", img.Root, sbomType, []byte("first"))
	has := func(d ocispec.Descriptor) func() bool {
		return func() bool { ok, err := b.Store.Has(d.Digest); return ok && err == nil }
	}
	b.outdate(img.Root.Digest)
	b.referrers(img.Root.Digest, "", Miss, 1)
	eventually(t, "what a client saw comes along", has(first))
	second := up.PutReferrer("library/app", img.Root, sbomType, []byte("second"))
	sig := up.PutSignature("library/app", img.Root.Digest, ".sig", []byte("later"))
	if _, err := b.Refresh(soon(t), app(t, "1")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a refresh brings the referrer", has(second))
	eventually(t, "a refresh brings the signature", has(sig))
}

// TestOfflineFetchesNoCompanions, nor does larder while a check is overdue.
func TestOfflineFetchesNoCompanions(t *testing.T) {
	t.Parallel()
	up := remotestest.New(t)
	putCompanion(up, 1)
	b := newBench(t, []*remotestest.Registry{up}, withCompanions)
	done := b.overdue.add(DockerHub)
	if res, err := b.Pull(soon(t), app(t, "1"), PullOptions{}); err != nil || res.Companions != 0 {
		t.Errorf("while a check is overdue: %+v, %v", res, err)
	}
	done()
	b.Policies = NewPolicies(Policy{Mode: ModeOffline})
	if res, err := b.Pull(soon(t), app(t, "1"), PullOptions{}); err != nil || res.Companions != 0 {
		t.Errorf("offline: %+v, %v", res, err)
	}
	b.Policies = Policies{}
	if res, err := b.Pull(soon(t), app(t, "1"), PullOptions{}); err != nil || res.Companions != 5 {
		t.Errorf("afterwards: %+v, %v", res, err)
	}
}

func TestSubjectOf(t *testing.T) {
	t.Parallel()
	hex := strings.Repeat("a", 64)
	for tag, want := range map[string]digest.Digest{
		"sha256-" + hex + ".sig": digest.Digest("sha256:" + hex), "sha256-" + hex + ".att": digest.Digest("sha256:" + hex),
		"sha256-" + hex + ".sbom": digest.Digest("sha256:" + hex), "sha256-" + hex: "", "sha256-" + hex + ".sig.sig": "",
		"sha256-" + hex[1:] + ".sig": "", "sha256-" + strings.ToUpper(hex) + ".sig": "", "1.29": "", ".sig": "", "sha512-" + hex + ".sig": "",
	} {
		if got := cache.SubjectOf(tag); got != want {
			t.Errorf("%s: got %q, want %q", tag, got, want)
		}
	}
}
