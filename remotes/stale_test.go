package remotes

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
)

func contextWithCancel(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithCancel(soon(t))
}

// Whatever goes wrong with a check, the stored image is served, and upstream
// is left alone until the next check.
func TestStaleOnAnyFailure(t *testing.T) {
	t.Parallel()
	img := build(1)
	for name, f := range map[string]remotestest.FaultFunc{
		"hang":           remotestest.Hang(),
		"abort":          remotestest.Abort(),
		"401":            remotestest.Error(http.StatusUnauthorized, "UNAUTHORIZED", "authentication required"),
		"403":            remotestest.Error(http.StatusForbidden, "DENIED", "no"),
		"404":            remotestest.Error(http.StatusNotFound, "MANIFEST_UNKNOWN", "gone"),
		"429":            remotestest.TooManyRequests(time.Hour),
		"500":            remotestest.Error(http.StatusInternalServerError, "UNKNOWN", "down"),
		"503":            remotestest.Error(http.StatusServiceUnavailable, "UNAVAILABLE", "down"),
		"odd":            remotestest.Status(http.StatusTeapot, nil, "?"),
		"no digest":      remotestest.Status(http.StatusOK, nil, ""),
		"bad digest":     remotestest.SetHeader("Docker-Content-Digest", "sha256:../../etc/passwd"),
		"unknown digest": remotestest.SetHeader("Docker-Content-Digest", emptyDigest.String()),
		"endless":        remotestest.SetHeader("Content-Length", "9000000000000000000"),
		"negative":       remotestest.SetHeader("Content-Length", "-5"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, up := one(t, img, withFault(name))
			ref := app(t, "1")
			b.resolve(ref, Miss)
			b.expire(ref)
			up.Fault(remotestest.Any(), f)
			res := b.resolve(ref, Stale)
			if res.Descriptor.Digest != img.Root.Digest || res.Problem == nil {
				t.Errorf("got %+v, want the stored manifest and the reason", res)
			}
			eventually(t, "the failure is noted", func() bool {
				tag, err := b.Store.Tag(ref.String())
				return err == nil && tag.Failures == 1 && tag.LastError != ""
			})
			n := counted(up, func() {
				m, err := b.Manifest(soon(t), ref)
				if err != nil || m.Outcome != Stale || m.Problem == nil {
					t.Errorf("in the pause: got %v, %v, want it stale", m.Outcome, err)
				}
			})
			if n != 0 {
				t.Errorf("in the pause upstream saw %d requests, want 0", n)
			}
		})
	}
}

func TestStaleOnRefusedConnection(t *testing.T) {
	t.Parallel()
	b, up := one(t, build(1))
	ref := app(t, "1")
	b.resolve(ref, Miss)
	b.expire(ref)
	up.Stop()
	b.resolve(ref, Stale)
	up.Start()
	b.resolve(ref, Stale) // the pause
	b.expire(ref)
	b.resolve(ref, Hit)
	if tag, err := b.Store.Tag(ref.String()); err != nil || tag.Failures != 0 || tag.LastError != "" {
		t.Errorf("after a good check: %+v, %v, want no failure noted", tag, err)
	}
}

// Docker Hub answers 401 for a deleted repository, to a token that is good.
func TestStaleOnDeniedRepository(t *testing.T) {
	t.Parallel()
	up := remotestest.New(t, remotestest.WithDeniedUnknown())
	up.PutImage("library/app", "1", build(1))
	b := newBench(t, []*remotestest.Registry{up})
	ref := app(t, "1")
	b.resolve(ref, Miss)
	b.expire(ref)
	up.DeleteRepository("library/app")
	if res := b.resolve(ref, Stale); !errdefs.IsPermissionDenied(res.Problem) {
		t.Errorf("the reason is %v, want that upstream denies", res.Problem)
	}
}

// The back-off is on disk: a restart does not set larder on a sick upstream.
func TestBackOffSurvivesRestart(t *testing.T) {
	t.Parallel()
	up := remotestest.New(t)
	up.PutImage("library/app", "1", build(1))
	root := t.TempDir()
	at := func(s *setup) { s.root = root }
	ref := app(t, "1")
	var next time.Time
	t.Run("before", func(t *testing.T) { //nolint:paralleltest // the second part needs its store closed
		b := newBench(t, []*remotestest.Registry{up}, at)
		b.resolve(ref, Miss)
		up.Fault(remotestest.Any(), remotestest.TooManyRequests(10*time.Minute))
		for range 2 {
			b.expire(ref)
			b.resolve(ref, Stale)
		}
		tag, err := b.Store.Tag(ref.String())
		if err != nil || tag.Failures != 1 {
			t.Fatalf("got %+v, %v, want 1 failure, and a check that was put off", tag, err)
		}
		if wait := time.Until(tag.NextCheck); wait < 9*time.Minute || wait > 10*time.Minute {
			t.Errorf("next check in %s, want what Retry-After asked for", wait)
		}
		next = tag.NextCheck
	})
	t.Run("after", func(t *testing.T) { //nolint:paralleltest // see above
		b := newBench(t, []*remotestest.Registry{up}, at)
		if n := counted(up, func() { b.resolve(ref, Stale) }); n != 0 {
			t.Errorf("after a restart upstream saw %d requests, want 0", n)
		}
		if tag, err := b.Store.Tag(ref.String()); err != nil || !tag.NextCheck.Equal(next) {
			t.Errorf("next check was %s, is %s, %v", next, tag.NextCheck, err)
		}
	})
}

// A pull waits for a check only so long, and not at all while another check on
// that registry host is overdue.
func TestDeadUpstreamCostsOneWait(t *testing.T) {
	t.Parallel()
	const tags = 10
	f := DefaultFreshness()
	f.Patience = 300 * time.Millisecond
	up := remotestest.New(t)
	b := newBench(t, []*remotestest.Registry{up}, withFreshness(f))
	img := build(1)
	var refs []Reference
	for i := range tags {
		tag := string(rune('a' + i))
		up.PutImage("library/app", tag, img)
		refs = append(refs, app(t, tag))
		b.resolve(refs[i], Miss)
		b.expire(refs[i])
	}
	release := make(chan struct{})
	up.Fault(remotestest.Any(), remotestest.GateHeader(release))
	start := time.Now()
	res := b.resolve(refs[0], Stale)
	if took := time.Since(start); took < f.Patience {
		t.Errorf("the first pull waited %s, want at least %s", took, f.Patience)
	}
	if !errdefs.IsUnavailable(res.Problem) {
		t.Errorf("the reason is %v, want that the check takes too long", res.Problem)
	}
	start = time.Now()
	for _, ref := range refs {
		b.resolve(ref, Stale)
	}
	if took := time.Since(start); took > tags*f.Patience/2 {
		t.Errorf("%d more pulls took %s: they waited again", tags, took)
	}
	// The overdue checks finish behind everybody's back and count.
	close(release)
	for _, ref := range refs {
		eventually(t, "the overdue check validates "+ref.Tag, func() bool {
			tag, err := b.Store.Tag(ref.String())
			return err == nil && f.IsFresh(tag, time.Now())
		})
	}
	eventually(t, "patience is back", func() bool { return b.patience(DockerHub).most == f.Patience })
	if n := up.Count(http.MethodHead, ""); n > 2*tags {
		t.Errorf("upstream saw %d HEADs, want at most one a tag and check", n)
	}
	b.resolve(refs[0], Hit)
}

// An overdue check moves the tag when it ends.
func TestOverdueCheckMovesTag(t *testing.T) {
	t.Parallel()
	f := DefaultFreshness()
	f.Patience = 0
	old, moved := build(1), build(2)
	b, up := one(t, old, withFreshness(f))
	ref := app(t, "1")
	b.resolve(ref, Miss)
	b.expire(ref)
	up.PutImage("library/app", "1", moved)
	release := make(chan struct{})
	up.Fault(remotestest.Method(http.MethodHead), remotestest.GateHeader(release))
	if res := b.resolve(ref, Stale); res.Descriptor.Digest != old.Root.Digest {
		t.Errorf("got %s, want the stored manifest", res.Descriptor.Digest)
	}
	close(release)
	eventually(t, "the tag moves", func() bool {
		tag, err := b.Store.Tag(ref.String())
		return err == nil && tag.Target.Digest == moved.Root.Digest
	})
}

// A tag that is removed while its check fails stays removed.
func TestFailedCheckDoesNotBringTagBack(t *testing.T) {
	t.Parallel()
	f := DefaultFreshness()
	f.Patience = 0
	b, up := one(t, build(1), withFreshness(f))
	ref := app(t, "1")
	b.resolve(ref, Miss)
	b.expire(ref)
	release := make(chan struct{})
	up.Fault(remotestest.Any(), remotestest.GateHeader(release))
	b.resolve(ref, Stale)
	if _, err := b.Remove(soon(t), ref); err != nil {
		t.Fatal(err)
	}
	up.DeleteRepository("library/app")
	close(release)
	eventually(t, "the check has ended", func() bool { return b.patience(DockerHub).most == f.Patience && !b.overdue.has(DockerHub) })
	if tag, err := b.Store.Tag(ref.String()); !errdefs.IsNotFound(err) {
		t.Errorf("got %+v, %v, want no tag", tag, err)
	}
}
