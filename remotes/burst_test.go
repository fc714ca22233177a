package remotes

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes/remotestest"
)

// An upstream that fails is asked at most 1.2 times per client that asks, and far
// less if the image is stored. 100 clients ask for five tags, each as containerd
// does: HEAD, and GET behind its failure.
func TestBurstOfFailuresIsNotAmplified(t *testing.T) {
	t.Parallel()
	for _, status := range []int{500, 502, 503, 504} {
		for name, stored := range map[string]bool{"stored": true, "not stored": false} {
			t.Run(fmt.Sprintf("%d, %s", status, name), func(t *testing.T) {
				t.Parallel()
				const clients, tags = 100, 5
				up := remotestest.New(t)
				b := newBench(t, []*remotestest.Registry{up}, func(s *setup) { s.upstream.Pause = 200 * time.Millisecond })
				for i := range tags {
					up.PutImage("library/app", fmt.Sprint(i), build(uint64(i+1)))
					if stored {
						b.resolve(app(t, fmt.Sprint(i)), Miss)
						b.expire(app(t, fmt.Sprint(i)))
					}
				}
				up.Fault(remotestest.Any(), remotestest.Error(status, "UNKNOWN", "burst"))
				up.ResetRequests()
				var all sync.WaitGroup
				for i := range clients {
					all.Go(func() {
						ref := app(t, fmt.Sprint(i%tags))
						_, herr := b.Resolve(soon(t), ref)
						_, gerr := b.Manifest(soon(t), ref)
						if stored && (herr != nil || gerr != nil) || !stored && (!errdefs.IsUnavailable(herr) || !errdefs.IsUnavailable(gerr)) {
							t.Errorf("got %v and %v", herr, gerr)
						}
					})
				}
				all.Wait()
				n := len(up.Requests())
				amplification := float64(n) / (2 * clients)
				t.Logf("%d requests of clients, upstream saw %d: amplification %.2f", 2*clients, n, amplification)
				// Who asks for the same shares, and the breaker opens behind five.
				if n == 0 || amplification > 1.2 || stored && n > tags || n > 4*tags {
					t.Errorf("upstream saw %d requests for %d", n, 2*clients)
				}
			})
		}
	}
}

// Upstream is silent for a while: all stored images are served, each answer says
// that it is stale, and when upstream is back no restart is needed.
func TestOutageEndsByItself(t *testing.T) {
	t.Parallel()
	const pulls = 200
	f := DefaultFreshness()
	f.Window, f.Retry, f.Patience = time.Nanosecond, time.Nanosecond, 10*time.Second
	b, up := one(t, build(1), withFreshness(f), func(s *setup) {
		s.upstream.HeaderTimeout, s.upstream.Pause = 300*time.Millisecond, 100*time.Millisecond
	})
	ref := app(t, "1")
	b.resolve(ref, Miss)
	remove := up.Fault(remotestest.Any(), remotestest.Hang())
	up.ResetRequests()
	stale := 0
	for range pulls {
		res, err := b.Resolve(soon(t), ref)
		if err != nil {
			t.Fatal(err)
		}
		if res.Outcome == Stale && res.Problem != nil {
			stale++
		}
	}
	asked := len(up.Requests())
	if stale != pulls {
		t.Errorf("%d of %d answers say that they are stale", stale, pulls)
	}
	moved := build(2)
	up.PutImage("library/app", "1", moved)
	remove()
	back := time.Now()
	eventually(t, "the new image is seen", func() bool {
		res, err := b.Resolve(soon(t), ref)
		return err == nil && res.Descriptor.Digest == moved.Root.Digest
	})
	t.Logf("%d of %d pulls served stale in the outage, upstream was asked %d times; recovered %s after its end",
		stale, pulls, asked, time.Since(back).Round(time.Millisecond))
}

// Twenty repositories share an image: its bytes stay as long as one of them is
// recorded, and are freed with the last.
func TestSharedBytesStayUntilTheLast(t *testing.T) {
	t.Parallel()
	const repos = 20
	up := remotestest.New(t)
	img := build(1)
	b := newBench(t, []*remotestest.Registry{up})
	var refs []Reference
	for i := range repos {
		ref := Reference{Repository: Repository{Host: DockerHub, Path: fmt.Sprintf("library/app%d", i)}, Tag: "1"}
		up.PutImage(ref.Repository.Path, "1", img)
		if _, err := b.Pull(soon(t), ref, PullOptions{Platforms: []string{"all"}}); err != nil {
			t.Fatal(err)
		}
		refs = append(refs, ref)
	}
	var freed int64
	for i, ref := range refs {
		for _, desc := range img.Blobs {
			data, outcome, err := b.read(ref.Repository, desc.Descriptor.Digest)
			if err != nil || outcome != Hit || int64(len(data)) != desc.Descriptor.Size {
				t.Errorf("with %d records left: %d bytes, %s, %v, want a hit", repos-i, len(data), outcome, err)
			}
		}
		report, err := b.Remove(soon(t), ref)
		if err != nil {
			t.Fatal(err)
		}
		if freed += report.Bytes; i < repos-1 && report.Bytes != 0 {
			t.Errorf("%d bytes freed with %d records left", report.Bytes, repos-1-i)
		}
	}
	want := int64(0)
	for _, desc := range img.Descriptors() {
		want += desc.Size
		if has, err := b.Store.Has(desc.Digest); has || err != nil {
			t.Errorf("%s is there behind the last: %t, %v", desc.Digest, has, err)
		}
	}
	t.Logf("%d records, %d bytes freed with the last", repos, freed)
	if freed != want {
		t.Errorf("%d bytes freed, want %d", freed, want)
	}
}

// Manifests of the largest size that are made to cost are refused, or read, in
// little time and memory.
//
//nolint:paralleltest // it measures what it allocates
func TestHostileManifestsAreCheap(t *testing.T) {
	const size = 4 << 20
	fill := func(head, piece, tail string) []byte {
		n := (size - len(head) - len(tail)) / len(piece)
		return []byte(head + strings.Repeat(piece, n) + tail)
	}
	for name, doc := range map[string][]byte{
		"depth":               fill(``, `[`, ``),
		"depth of objects":    fill(``, `{"a":`, ``),
		"a million entries":   fill(`{"schemaVersion":2,"manifests":[`, `{},`, `{}]}`),
		"a list, and again":   fill(`{"schemaVersion":2,`, `"layers":[{}],`, `"x":0}`),
		"null, and again":     fill(`{"schemaVersion":2,`, `"layers":null,`, `"x":0}`),
		"many annotations":    fill(`{"schemaVersion":2,"manifests":[{"annotations":{"a":"b"}`, `,{"annotations":{"a":"b"}}`, `]}`),
		"URLs of the config":  fill(`{"schemaVersion":2,"layers":[],"config":{"urls":[`, `"",`, `""]}}`),
		"URLs of the subject": fill(`{"schemaVersion":2,"layers":[],"subject":{"urls":[`, `"",`, `""]}}`),
		"configs":             fill(`{"schemaVersion":2,"layers":[],`, `"config":{"digest":"x"},`, `"x":0}`),
		"many URLs":           fill(`{"schemaVersion":2,"manifests":[{"urls":[`, `"",`, `""]}]}`),
		"annotations of one":  fill(`{"schemaVersion":2,"manifests":[{"annotations":{`, `"abcdef":"ghijkl",`, `"x":""}}]}`),
		"a million keys":      fill(`{"schemaVersion":2,`, `"":0,`, `"x":0}`),
		"annotations":         fill(`{"schemaVersion":2,"layers":[],"annotations":{`, `"abcdef":"ghijkl",`, `"x":""}}`),
		"one string":          fill(`{"schemaVersion":2,"layers":[],"annotations":{"a":"`, `x`, `"}}`),
		"escapes":             fill(`{"schemaVersion":2,"layers":[],"annotations":{"a":"`, `\u0000`, `"}}`),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		begun := time.Now()
		_, err := cache.ParseManifest(doc, "")
		took := time.Since(begun)
		runtime.ReadMemStats(&after)
		t.Logf("%s: %d KiB in %s, %d KiB allocated, refused: %t", name, len(doc)>>10, took.Round(time.Millisecond), (after.TotalAlloc-before.TotalAlloc)>>10, err != nil)
		// Time depends on who else is busy; memory does not.
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 10*size {
			t.Errorf("%s: allocated %d KiB", name, grown>>10)
		}
	}
}

// An upstream that changes a manifest's Content-Type between pulls changes
// nothing that is stored.
func TestContentTypeFlips(t *testing.T) {
	t.Parallel()
	b, up := one(t, build(1))
	ref := app(t, "1")
	first := b.resolve(ref, Miss)
	up.Fault(remotestest.Manifests(), remotestest.SetHeader("Content-Type", remotestest.MediaTypeDockerList))
	for _, when := range []string{"stored", "checked"} {
		res, err := b.Resolve(soon(t), ref)
		if err != nil || res.Descriptor.MediaType != first.Descriptor.MediaType || res.Descriptor.Digest != first.Descriptor.Digest {
			t.Errorf("%s: got %v, %v, want %s", when, res.Descriptor, err, first.Descriptor.MediaType)
		}
		b.expire(ref)
	}
	if n := up.Count(http.MethodHead, "/manifests/"); n != 1 {
		t.Errorf("%d checks: the test proves nothing", n)
	}
	m, err := b.Manifest(soon(t), app(t, first.Descriptor.Digest.String()))
	if err != nil || m.Descriptor.MediaType != first.Descriptor.MediaType {
		t.Errorf("by digest: got %v, %v, want %s", m.Descriptor, err, first.Descriptor.MediaType)
	}
}
