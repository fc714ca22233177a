package remotes

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
)

// reserving is larder's default reserve.
func reserving(s *setup) { s.upstream.Reserve = 5 }

// allows answers as Docker Hub does with so many pulls left of 100 in 6 hours.
func allows(remaining int) remotestest.FaultFunc {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		w.Header().Set("ratelimit-limit", "100;w=21600")
		w.Header().Set("ratelimit-remaining", fmt.Sprintf("%d;w=21600", remaining))
		next.ServeHTTP(w, r)
	}
}

// many resolves a tag ten thousand times, a hundred at a time.
func (b *bench) many(ref Reference, want Outcome) {
	b.t.Helper()
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			for range 100 {
				res, err := b.Resolve(soon(b.t), ref)
				if err != nil || res.Outcome != want {
					b.t.Errorf("got %q, %v (%v), want %q", res.Outcome, err, res.Problem, want)
					return
				}
			}
		})
	}
	all.Wait()
}

// TestTenThousandPulls counts the checks of a tag inside its window, and
// outside it with little left of the upstream's allowance: there are none.
func TestTenThousandPulls(t *testing.T) {
	t.Parallel()
	b, up := one(t, build(1), reserving)
	ref := app(t, "1")
	up.Fault(remotestest.Any(), allows(5))
	b.resolve(ref, Miss)
	if n := counted(up, func() { b.many(ref, Hit) }); n != 0 {
		t.Errorf("inside the window upstream saw %d requests, want 0", n)
	}
	b.expire(ref)
	if n := counted(up, func() { b.many(ref, Stale) }); n != 0 {
		t.Errorf("with 5 pulls left upstream saw %d requests, want 0", n)
	}
	tag, err := b.Store.Tag(ref.String())
	if err != nil || !strings.Contains(tag.LastError, "upstream allows 5 more pulls until ") || !strings.Contains(tag.LastError, up.Host()) {
		t.Errorf("the tag says %q, %v", tag.LastError, err)
	}
	if wait := time.Until(tag.NextCheck); tag.Failures != 0 || wait > 6*time.Hour || wait < 5*time.Hour {
		t.Errorf("%d failures, next check in %s, want none and the end of the allowance's window", tag.Failures, wait)
	}
	if img, err := b.Image(ref); err != nil || img.Tag.LastError != tag.LastError {
		t.Errorf("show says %+v, %v", img, err)
	}
}

// TestPostponedAtMostForWindow: a tag that is to be checked every hour does not
// wait for six.
func TestPostponedAtMostForWindow(t *testing.T) {
	t.Parallel()
	f := DefaultFreshness()
	f.Window = time.Hour
	b, up := one(t, build(1), reserving, withFreshness(f))
	ref := app(t, "1")
	up.Fault(remotestest.Any(), allows(3))
	b.resolve(ref, Miss)
	b.expire(ref)
	if n := counted(up, func() { b.resolve(ref, Stale); b.resolve(ref, Stale) }); n != 0 {
		t.Errorf("upstream saw %d requests, want 0", n)
	}
	tag, err := b.Store.Tag(ref.String())
	if wait := time.Until(tag.NextCheck); err != nil || wait > time.Hour || wait < 59*time.Minute {
		t.Errorf("next check in %s, %v, want the tag's window", wait, err)
	}
	// A person who asks for a check gets it, and what came of it ends the wait.
	if n := counted(up, func() {
		if _, err := b.Refresh(soon(t), ref); err != nil {
			t.Error(err)
		}
	}); n != 1 {
		t.Errorf("refresh: upstream saw %d requests, want 1", n)
	}
	if tag, err := b.Store.Tag(ref.String()); err != nil || tag.LastError != "" || !tag.NextCheck.IsZero() {
		t.Errorf("after the refresh: %+v, %v", tag, err)
	}
}

// TestLastPullsAreForMisses spends what is left for what is not stored.
func TestLastPullsAreForMisses(t *testing.T) {
	t.Parallel()
	b, up := one(t, build(1), reserving)
	remove := up.Fault(remotestest.Any(), allows(1))
	if _, err := b.Pull(soon(t), app(t, "1"), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	other := build(2)
	up.PutImage("library/app", "2", other)
	if _, err := b.Pull(soon(t), app(t, "2"), PullOptions{}); err != nil {
		t.Errorf("a second image, with 1 pull left: %v", err)
	}
	// The answer to the last one says that none is left; its blobs come all
	// the same, and nothing else does.
	third := build(3)
	up.PutImage("library/app", "3", third)
	remove()
	up.Fault(remotestest.And(remotestest.Manifests(), remotestest.Method(http.MethodGet)), allows(0))
	if _, err := b.Pull(soon(t), app(t, "3"), PullOptions{}); err != nil {
		t.Errorf("the last image: %v", err)
	}
	var err error
	n := counted(up, func() { _, err = b.Resolve(soon(t), app(t, "4")) })
	if n != 0 || !errdefs.IsResourceExhausted(err) {
		t.Errorf("upstream saw %d requests, %v", n, err)
	}
	mentions(t, err, "allows 0 more pulls until 2")
}

// TestLimitedUpstreamIsPassedOver goes on to the next one of the route, for
// misses and for checks, and leaves alone who asked for it.
func TestLimitedUpstreamIsPassedOver(t *testing.T) {
	t.Parallel()
	img := build(1)
	for name, fault := range map[string]remotestest.FaultFunc{
		"Retry-After": remotestest.TooManyRequests(time.Hour),
		"503":         remotestest.Status(http.StatusServiceUnavailable, http.Header{"Retry-After": {"600"}}, ""),
		"none left":   allows(0),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, second := remotestest.New(t), remotestest.New(t)
			for _, up := range []*remotestest.Registry{first, second} {
				up.PutImage("library/app", "1", img)
			}
			b := newBench(t, []*remotestest.Registry{first, second}, reserving)
			first.Fault(remotestest.Any(), fault)
			ref := app(t, "1")
			if _, err := b.Pull(soon(t), ref, PullOptions{}); err != nil {
				t.Fatal(err)
			}
			told := len(first.Requests())
			b.expire(ref)
			if n := counted(second, func() { b.resolve(ref, Hit) }); n != 1 {
				t.Errorf("the second upstream saw %d requests for a check, want 1", n)
			}
			// Now neither may be asked.
			second.Fault(remotestest.Any(), fault)
			b.expire(ref)
			_, _ = b.Refresh(soon(t), ref) // tells
			all := len(second.Requests())
			b.expire(ref)
			b.resolve(ref, Stale)
			_, err := b.Resolve(soon(t), app(t, "2"))
			if !errdefs.IsResourceExhausted(err) && !errdefs.IsUnavailable(err) {
				t.Errorf("a miss: %v", err)
			}
			mentions(t, err, "until 2")
			if told != len(first.Requests()) || all != len(second.Requests()) || told != 1 && name != "none left" {
				t.Errorf("the first one saw %d requests, then %d; the second one %d, then %d",
					told, len(first.Requests()), all, len(second.Requests()))
			}
		})
	}
}

// TestUnaskedTellsLess: that one upstream was passed over is not the error, if
// another one was asked and failed; unless that one only did not have it.
func TestUnaskedTellsLess(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		second remotestest.FaultFunc
		is     func(error) bool
	}{
		"down":      {remotestest.Error(http.StatusBadGateway, "UNKNOWN", "down"), errdefs.IsUnavailable},
		"not found": {remotestest.Error(http.StatusNotFound, "MANIFEST_UNKNOWN", "unknown"), errdefs.IsResourceExhausted},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, second := remotestest.New(t), remotestest.New(t)
			first.PutImage("library/app", "1", build(1))
			b := newBench(t, []*remotestest.Registry{first, second}, reserving)
			ref := app(t, "1")
			first.Fault(remotestest.Any(), allows(2))
			b.resolve(ref, Miss)
			second.Fault(remotestest.Any(), tc.second)
			b.expire(ref)
			if res := b.resolve(ref, Stale); !tc.is(res.Problem) {
				t.Errorf("got %v", res.Problem)
			}
		})
	}
}

// TestPullMethods counts what a whole pull sends: blobs are only got, and so are
// manifests, but for a tag of a repository that is known.
func TestPullMethods(t *testing.T) {
	t.Parallel()
	up := remotestest.New(t, remotestest.WithToken())
	img := remotestest.Build(remotestest.ImageSpec{Seed: 1, Layers: []int64{1000, 2 << 20}, Platforms: []string{"linux/amd64", "linux/arm64"}})
	next := build(2)
	up.PutImage("library/app", "1", img)
	up.PutImage("library/app", "2", next)
	b := newBench(t, []*remotestest.Registry{up})
	for _, step := range []struct {
		tag  string
		want map[string]int
	}{
		{"1", map[string]int{"GET manifests": 3, "GET blobs": len(img.Blobs)}},
		{"2", map[string]int{"HEAD manifests": 1, "GET manifests": 1, "GET blobs": len(next.Blobs)}},
	} {
		up.ResetRequests()
		if _, err := b.Pull(soon(t), app(t, step.tag), PullOptions{Platforms: []string{"all"}}); err != nil {
			t.Fatal(err)
		}
		got := map[string]int{}
		for _, q := range up.Requests() {
			if q.Status == http.StatusUnauthorized {
				continue
			}
			parts := strings.Split(q.Path, "/")
			got[q.Method+" "+parts[max(1, len(parts)-2)]]++
		}
		if delete(got, "GET token"); !maps.Equal(got, step.want) {
			t.Errorf("tag %s: upstream saw %v, want %v", step.tag, got, step.want)
		}
	}
}

// One caller's limit puts no check off for others.
func TestLimitIsTheCallersOwn(t *testing.T) {
	t.Parallel()
	b := newPrivateBench(t)
	img := build(1)
	b.up.PutImage(secretA().Path, "1", img)
	ref := Reference{Repository: secretA(), Tag: "1"}
	b.bring(b.admitted(secretA(), "1"), secretA(), img)
	eve, err := b.Admit(soon(t), secretA(), "1", Credential{Username: "eve of team/a", Secret: "right"})
	if err != nil {
		t.Fatal(err)
	}
	b.up.Fault(remotestest.Repo(secretA().Path), func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if user, _, _ := r.BasicAuth(); strings.HasPrefix(user, "eve") {
			remotestest.TooManyRequests(time.Hour)(w, r, next)
			return
		}
		next.ServeHTTP(w, r)
	})
	b.expire(ref)
	for _, when := range []string{"429", "left alone"} {
		if res, err := b.Resolve(eve, ref); err != nil || res.Outcome != Stale {
			t.Errorf("%s: eve got %v, %v, want it stale", when, res, err)
		}
		if tag, err := b.Store.Tag(ref.String()); err != nil || tag.Failures != 0 || !tag.NextCheck.IsZero() || tag.LastError != "" {
			t.Errorf("%s: the tag notes one caller's limit: %+v, %v", when, tag, err)
		}
	}
	if n := counted(b.up, func() { _, _ = b.Resolve(eve, ref) }); n != 0 {
		t.Errorf("eve is asked for %d times more", n)
	}
	if res, err := b.Resolve(b.admitted(secretA(), "1"), ref); err != nil || res.Outcome != Hit {
		t.Errorf("kim got %v, %v, want a check", res, err)
	}
}
