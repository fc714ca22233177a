package remotes

import (
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/larder-project/larder/remotes/upstream"
	"github.com/opencontainers/go-digest"
)

// referrers is Referrers that has to succeed, with this outcome and so many.
func (b *bench) referrers(dgst digest.Digest, artifactType string, outcome Outcome, want int) ReferrerList {
	b.t.Helper()
	got, err := b.Referrers(soon(b.t), appRepo(), dgst, artifactType)
	if err != nil || got.Outcome != outcome || len(got.Manifests) != want {
		b.t.Errorf("referrers %q: got %+v, %v, want %d, %s", artifactType, got, err, want, outcome)
	}
	return got
}

// outdate turns the clock for a list of referrers and what was followed.
func (b *bench) outdate(dgst digest.Digest) {
	b.t.Helper()
	err := b.Store.ChangeReferrers(appRepo().String(), dgst, func(rf *cache.Referrers) {
		past := -b.Freshness.Window - time.Second
		rf.Validated, rf.Followed = time.Now().Add(past), time.Now().Add(past)
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

const sigType, sbomType = "application/vnd.example.signature", "application/vnd.example.sbom"

// TestReferrersOfStored: one request a window; then the store stands in.
func TestReferrersOfStored(t *testing.T) {
	t.Parallel()
	img := build(1)
	b, up := one(t, img)
	b.resolve(app(t, "1"), Miss)
	sig := up.PutReferrer("library/app", img.Root, sigType)
	up.PutReferrer("library/app", img.Root, sbomType)
	b.referrers(img.Root.Digest, sigType, Miss, 1)
	n := counted(up, func() {
		b.referrers(img.Root.Digest, "", Hit, 2)
		if got := b.referrers(img.Root.Digest, sigType, Hit, 1); len(got.Manifests) == 1 && got.Manifests[0].Digest != sig.Digest {
			t.Errorf("got %s, want %s", got.Manifests[0].Digest, sig.Digest)
		}
		b.referrers(img.Root.Digest, "application/none", Hit, 0)
	})
	if n != 0 {
		t.Errorf("%d requests inside the window, want none", n)
	}
	up.PutReferrer("library/app", img.Root, "application/third")
	b.referrers(img.Root.Digest, "", Hit, 2)
	b.outdate(img.Root.Digest)
	b.referrers(img.Root.Digest, "", Miss, 3)
	up.Stop()
	b.referrers(img.Root.Digest, "", Hit, 3)
	b.outdate(img.Root.Digest)
	got := b.referrers(img.Root.Digest, sbomType, Stale, 1)
	mentions(t, got.Problem, "refused")
}

// TestReferrersOfDeletedRepository: what upstream no longer knows is not taken
// for an empty list, whichever way it says so.
func TestReferrersOfDeletedRepository(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]remotestest.FaultFunc{
		"404": remotestest.Error(http.StatusNotFound, "NAME_UNKNOWN", "x"), "401": remotestest.Error(http.StatusUnauthorized, "UNAUTHORIZED", "x"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			img := build(1)
			b, up := one(t, img)
			b.resolve(app(t, "1"), Miss)
			up.PutReferrer("library/app", img.Root, sigType)
			b.referrers(img.Root.Digest, "", Miss, 1)
			up.Fault(remotestest.Any(), fault)
			b.outdate(img.Root.Digest)
			b.referrers(img.Root.Digest, "", Stale, 1)
		})
	}
}

// TestReferrersWithdrawn: an empty list that upstream really gives counts.
func TestReferrersWithdrawn(t *testing.T) {
	t.Parallel()
	img := build(1)
	b, up := one(t, img)
	b.resolve(app(t, "1"), Miss)
	sig := up.PutReferrer("library/app", img.Root, sigType)
	b.referrers(img.Root.Digest, "", Miss, 1)
	up.DeleteManifest("library/app", sig.Digest)
	b.outdate(img.Root.Digest)
	b.referrers(img.Root.Digest, "", Miss, 0)
	b.referrers(img.Root.Digest, "", Hit, 0)
}

// TestNoReferrersIsRemembered, by the endpoint and by the tag schema.
func TestNoReferrersIsRemembered(t *testing.T) {
	t.Parallel()
	for _, opts := range [][]remotestest.Option{nil, {remotestest.WithoutReferrers()}} {
		img := build(1)
		up := remotestest.New(t, opts...)
		up.PutImage("library/app", "1", img)
		b := newBench(t, []*remotestest.Registry{up})
		b.resolve(app(t, "1"), Miss)
		b.referrers(img.Root.Digest, "", Miss, 0)
		up.Stop()
		b.referrers(img.Root.Digest, "", Hit, 0)
		b.outdate(img.Root.Digest)
		b.referrers(img.Root.Digest, "", Stale, 0)
	}
}

// TestReferrersOfUnknown: nothing is remembered of what is not stored.
func TestReferrersOfUnknown(t *testing.T) {
	t.Parallel()
	img := build(1)
	b, up := one(t, img)
	up.PutReferrer("library/app", img.Root, sigType)
	for range 2 {
		b.referrers(img.Root.Digest, "", Miss, 1)
	}
	if _, err := b.Store.Referrers(appRepo().String(), img.Root.Digest); !errdefs.IsNotFound(err) {
		t.Errorf("got %v, want nothing stored", err)
	}
	up.Stop()
	if _, err := b.Referrers(soon(t), appRepo(), img.Root.Digest, ""); !errdefs.IsUnavailable(err) {
		t.Errorf("got %v, want unavailable", err)
	}
}

// TestReferrersCostOneWait: a silent upstream is waited for as long as for a
// tag, and its late answer counts.
func TestReferrersCostOneWait(t *testing.T) {
	t.Parallel()
	fresh := DefaultFreshness()
	fresh.Patience = 20 * time.Millisecond
	img := build(1)
	b, up := one(t, img, withFreshness(fresh))
	b.resolve(app(t, "1"), Miss)
	b.referrers(img.Root.Digest, "", Miss, 0)
	up.PutReferrer("library/app", img.Root, sigType)
	release := make(chan struct{})
	up.Fault(remotestest.Referrers(), remotestest.GateHeader(release))
	b.outdate(img.Root.Digest)
	b.referrers(img.Root.Digest, "", Stale, 0)
	close(release)
	eventually(t, "the late answer counts", func() bool {
		rf, err := b.Store.Referrers(appRepo().String(), img.Root.Digest)
		return err == nil && len(rf.Manifests) == 1
	})
	b.referrers(img.Root.Digest, "", Hit, 1)
	eventually(t, "nobody waits any more", func() bool { return !b.overdue.has(DockerHub) })
}

// TestReferrersThatAreNone are left out.
func TestReferrersThatAreNone(t *testing.T) {
	t.Parallel()
	img := build(1)
	b, up := one(t, img)
	b.resolve(app(t, "1"), Miss)
	up.Fault(remotestest.Referrers(), remotestest.Status(http.StatusOK, nil,
		`{"schemaVersion":2,"manifests":[{"digest":"../../etc","size":1},{"digest":"`+img.Root.Digest.String()+`","size":-1},{"digest":"`+emptyDigest.String()+`","size":1}]}`))
	b.referrers(img.Root.Digest, "", Miss, 1)
}

// A page of the largest size with a million entries is refused, for little
// memory, wherever it stands, and nothing is remembered of its list.
//
//nolint:paralleltest // it measures what it allocates
func TestHostileReferrersAreCheap(t *testing.T) {
	const head, piece, tail = `{"schemaVersion":2,"manifests":[`, `{},`, `{}]}`
	page := []byte(head + strings.Repeat(piece, (upstream.MaxManifestSize-1<<10)/len(piece)) + tail)
	img := build(1)
	byTag := remotestest.Reference(strings.Replace(img.Root.Digest.String(), ":", "-", 1))
	for name, c := range map[string]struct {
		opts         []remotestest.Option
		match        remotestest.Match
		artifactType string
		further      bool // it is not the first page
	}{
		"first page":    {match: remotestest.Referrers()},
		"one type":      {match: remotestest.Referrers(), artifactType: sigType},
		"by the tag":    {match: byTag, opts: []remotestest.Option{remotestest.WithoutReferrers()}},
		"not the first": {match: remotestest.Referrers(), further: true},
	} {
		up := remotestest.New(t, c.opts...)
		up.PutImage("library/app", "1", img)
		b := newBench(t, []*remotestest.Registry{up})
		b.resolve(app(t, "1"), Miss)
		remove := up.Fault(c.match, func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			if c.further && req.URL.RawQuery == "" {
				w.Header().Set("Link", `</?page=2>; rel="next"`)
				next.ServeHTTP(w, req)
				return
			}
			_, _ = w.Write(page)
		})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		begun := time.Now()
		got, err := b.Referrers(soon(t), appRepo(), img.Root.Digest, c.artifactType)
		took := time.Since(begun)
		runtime.ReadMemStats(&after)
		grown := after.TotalAlloc - before.TotalAlloc
		t.Logf("%s: %d KiB in %s, %d KiB allocated: %v", name, len(page)>>10, took.Round(time.Millisecond), grown>>10, err)
		if grown > 10*upstream.MaxManifestSize {
			t.Errorf("%s: allocated %d KiB", name, grown>>10)
		}
		if !errdefs.IsDataLoss(err) || len(got.Manifests) != 0 {
			t.Errorf("%s: got %d, %v, want data loss", name, len(got.Manifests), err)
		} else {
			mentions(t, err, "more descriptors than the 10000 that are taken")
		}
		if rf, stored, err := b.storedReferrers(appRepo(), img.Root.Digest); stored || len(rf.Manifests) != 0 || err != nil {
			t.Errorf("%s: %d are stored, %t, %v", name, len(rf.Manifests), stored, err)
		}
		// What is remembered already is served instead.
		remove()
		up.PutReferrer("library/app", img.Root, sigType)
		b.referrers(img.Root.Digest, "", Miss, 1)
		up.Fault(c.match, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { _, _ = w.Write(page) })
		b.outdate(img.Root.Digest)
		b.referrers(img.Root.Digest, "", Stale, 1)
	}
}
