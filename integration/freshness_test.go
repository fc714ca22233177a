package integration

import (
	"net/http"
	"strings"
	"testing"

	"github.com/larder-project/larder/remotes/remotestest"
)

// A tag that moves upstream: the old digest inside the window, the new one after
// it, or at once by the verb refresh. The old image stays.
func TestTagMovedUpstream(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder")
	upstream := remotestest.New(t)
	old := remotestest.Build(remotestest.ImageSpec{Seed: 70})
	moved := remotestest.Build(remotestest.ImageSpec{Seed: 71})
	l := b.larder("[[freshness.tags]]\nmatch = \"*:quick\"\nwindow = \"1ns\"\n" + noCompanions + dockerHub(upstream.URL()))
	slow, quick := manifestURL(l.URL, "library/app", "slow"), manifestURL(l.URL, "library/app", "quick")
	for tag, url := range map[string]string{"slow": slow, "quick": quick} {
		upstream.PutImage("library/app", tag, old)
		if a := get(t, url); !a.whole(old.Root.Digest) {
			t.Fatalf("%s: first pull: %v", tag, a)
		}
		upstream.PutImage("library/app", tag, moved)
	}

	before := len(upstream.Requests())
	if a := get(t, slow); !a.whole(old.Root.Digest) || a.cache() != "hit" {
		t.Errorf("inside the window: got %v, X-Larder-Cache %q, want the old manifest as a hit", a, a.cache())
	}
	if n := len(upstream.Requests()) - before; n != 0 {
		t.Errorf("inside the window: upstream saw %d requests, want 0", n)
	}
	eventually(t, "the moved tag is seen after its window", func() bool {
		return get(t, quick).whole(moved.Root.Digest)
	})
	run(t, l, "refresh", "docker.io/library/app:slow")
	if a := get(t, slow); !a.whole(moved.Root.Digest) {
		t.Errorf("after refresh: got %v, want the new manifest", a)
	}
	if a := get(t, manifestURL(l.URL, "library/app", old.Root.Digest.String())); !a.whole(old.Root.Digest) || a.cache() != "hit" {
		t.Errorf("old digest: got %v, X-Larder-Cache %q, want it as a hit", a, a.cache())
	}
}

// Each way in which an upstream can fail leaves a stale tag served, Docker Hub's
// 401 for a deleted repository included.
func TestStaleOnAnyFailure(t *testing.T) {
	t.Parallel()
	faults := map[string]remotestest.FaultFunc{
		"401":       remotestest.Error(http.StatusUnauthorized, "UNAUTHORIZED", "authentication required"),
		"403":       remotestest.Error(http.StatusForbidden, "DENIED", "requested access to the resource is denied"),
		"404":       remotestest.Error(http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown"),
		"429":       remotestest.TooManyRequests(0),
		"500":       remotestest.Error(http.StatusInternalServerError, "UNKNOWN", "down"),
		"hang":      remotestest.Hang(),
		"no answer": remotestest.Abort(),
		"short":     remotestest.ShortBody(10),
	}
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "larder")
			upstream := remotestest.New(t)
			img := remotestest.Build(remotestest.ImageSpec{Seed: 72})
			upstream.PutImage("library/app", "1", img)
			l := b.larder(impatient + "[freshness]\nwindow = \"1ns\"\n" + dockerHub(upstream.URL()))
			url := manifestURL(l.URL, "library/app", "1")
			if a := get(t, url); !a.whole(img.Root.Digest) {
				t.Fatalf("first pull: %v", a)
			}
			upstream.PutImage("library/app", "1", remotestest.Build(remotestest.ImageSpec{Seed: 73}))
			upstream.Fault(remotestest.Any(), f)
			for range 3 {
				a := get(t, url)
				if !a.whole(img.Root.Digest) || a.cache() != "stale" {
					t.Errorf("got %v, X-Larder-Cache %q, want the stored manifest as stale", a, a.cache())
				}
				if a.took > answerLimit {
					t.Errorf("header after %v, want at most %v", a.took, answerLimit)
				}
			}
		})
	}
}

// A dead upstream costs one short wait and not one per pull.
func TestDeadUpstreamCostsOneWait(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder")
	upstream := remotestest.New(t)
	upstream.Fault(remotestest.Any(), remotestest.Hang())
	config := strings.Replace(impatient, `pause = "100ms"`, `pause = "10m"`, 1)
	l := b.larder(config + dockerHub(upstream.URL()))
	const pulls = 20
	for range pulls {
		if a := get(t, manifestURL(l.URL, "library/app", "1")); a.status < 400 || a.status == http.StatusTooManyRequests {
			t.Fatalf("got %v, want an error that sends containerd on", a)
		}
	}
	if n := len(upstream.Requests()); n >= pulls/2 {
		t.Errorf("%d pulls asked the hanging upstream %d times: the breaker never opened", pulls, n)
	}
}
