package remotes

import (
	"bytes"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
)

// Inside its window a tag is served without upstream, outside it after one
// check.
func TestWindow(t *testing.T) {
	t.Parallel()
	b, up := one(t, build(1))
	ref := app(t, "1")
	b.resolve(ref, Miss)
	n := counted(up, func() {
		for range 5 {
			b.resolve(ref, Hit)
			if _, err := b.Manifest(soon(t), ref); err != nil {
				t.Error(err)
			}
		}
	})
	if n != 0 {
		t.Errorf("inside the window upstream saw %d requests, want 0", n)
	}
	b.expire(ref)
	n = counted(up, func() {
		b.resolve(ref, Hit)
		b.resolve(ref, Hit)
	})
	if n != 1 || up.Count(http.MethodHead, "/manifests/1") != 1 {
		t.Errorf("outside the window upstream saw %d requests, %d HEADs in all, want 1 and 1", n, up.Count(http.MethodHead, ""))
	}
}

// One check serves all who wait.
func TestCheckIsShared(t *testing.T) {
	t.Parallel()
	const clients = 50
	patient := DefaultFreshness()
	patient.Patience = time.Minute
	for name, stored := range map[string]bool{"first pull": false, "check": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, up := one(t, build(1), withFreshness(patient), func(s *setup) { s.upstream.HeaderTimeout = time.Minute })
			ref := app(t, "1")
			if stored {
				b.resolve(ref, Miss)
				b.expire(ref)
			}
			release := make(chan struct{})
			defer up.Fault(remotestest.Reference("1"), remotestest.GateHeader(release))()
			up.ResetRequests()
			var all sync.WaitGroup
			for range clients {
				all.Go(func() {
					if _, err := b.Resolve(soon(t), ref); err != nil {
						t.Error(err)
					}
				})
			}
			if err := up.Await(soon(t), func(reqs []remotestest.Request) bool { return len(reqs) > 0 }); err != nil {
				t.Fatal(err)
			}
			close(release)
			all.Wait()
			heads, gets := 0, 1
			if stored {
				heads, gets = 1, 0
			}
			if h, g := up.Count(http.MethodHead, ""), up.Count(http.MethodGet, ""); h != heads || g != gets {
				t.Errorf("%d clients: upstream saw %d HEAD and %d GET, want %d and %d", clients, h, g, heads, gets)
			}
		})
	}
}

// The client that began a check leaves: the others, and the store, get it.
func TestCheckOutlivesItsClient(t *testing.T) {
	t.Parallel()
	b, up := one(t, build(1), func(s *setup) { s.upstream.HeaderTimeout = time.Minute })
	release := make(chan struct{})
	up.Fault(remotestest.Reference("1"), remotestest.GateHeader(release))
	ctx, leave := contextWithCancel(t)
	done := make(chan error)
	go func() {
		_, err := b.Resolve(ctx, app(t, "1"))
		done <- err
	}()
	if err := up.Await(soon(t), func(reqs []remotestest.Request) bool { return len(reqs) == 1 }); err != nil {
		t.Fatal(err)
	}
	leave()
	if err := <-done; !errdefs.IsCanceled(err) {
		t.Errorf("who left got %v, want its own end", err)
	}
	close(release)
	eventually(t, "the tag is stored", func() bool {
		_, err := b.Store.Tag(app(t, "1").String())
		return err == nil
	})
	if n := counted(up, func() { b.resolve(app(t, "1"), Hit) }); n != 0 {
		t.Errorf("upstream saw %d more requests, want 0", n)
	}
}

// A moved tag: the old digest inside the window, the new one after it, both by
// digest ever after.
func TestMovedTagAfterWindow(t *testing.T) {
	t.Parallel()
	old, moved := build(1), build(2)
	b, up := one(t, old)
	ref := app(t, "1")
	b.resolve(ref, Miss)
	before, err := b.Store.Tag(ref.String())
	if err != nil {
		t.Fatal(err)
	}
	up.PutImage("library/app", "1", moved)
	if res := b.resolve(ref, Hit); res.Descriptor.Digest != old.Root.Digest {
		t.Errorf("inside the window: got %s, want the old manifest", res.Descriptor.Digest)
	}
	b.expire(ref)
	if res := b.resolve(ref, Miss); res.Descriptor.Digest != moved.Root.Digest {
		t.Errorf("after the window: got %s, want the new manifest", res.Descriptor.Digest)
	}
	after, err := b.Store.Tag(ref.String())
	if err != nil || !after.Created.Equal(before.Created) || !after.Moved.After(before.Moved) {
		t.Errorf("tag was %+v, is %+v, %v: want Created kept and Moved later", before, after, err)
	}
	up.Stop()
	for _, img := range []remotestest.Image{old, moved} {
		b.resolve(app(t, img.Root.Digest.String()), Hit)
	}
}

// A tag moves only to a manifest that is in the store: one that cannot be had
// leaves the old one, as stale.
func TestMovedTagToUnavailableManifest(t *testing.T) {
	t.Parallel()
	old, moved := build(1), build(2)
	for name, f := range map[string]remotestest.FaultFunc{
		"500":          remotestest.Error(http.StatusInternalServerError, "UNKNOWN", "down"),
		"404":          remotestest.Error(http.StatusNotFound, "MANIFEST_UNKNOWN", "gone"),
		"cut":          remotestest.HeaderOnly(), // after some bytes, containerd's client goes on by Range
		"short":        remotestest.ShortBody(10),
		"wrong bytes":  remotestest.WrongBytes(20),
		"hang":         remotestest.Hang(),
		"wrong length": remotestest.WrongContentLength(-1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, up := one(t, old, withFault(name))
			ref := app(t, "1")
			b.resolve(ref, Miss)
			b.expire(ref)
			up.PutImage("library/app", "1", moved)
			remove := up.Fault(remotestest.And(remotestest.Manifests(), remotestest.Method(http.MethodGet)), f)
			if res := b.resolve(ref, Stale); res.Descriptor.Digest != old.Root.Digest || res.Problem == nil {
				t.Errorf("got %+v, want the old manifest and the reason", res)
			}
			if has, err := b.Store.Has(moved.Root.Digest); has || err != nil {
				t.Errorf("the broken manifest is in the store: %t, %v", has, err)
			}
			remove()
			b.expire(ref)
			if res := b.resolve(ref, Miss); res.Descriptor.Digest != moved.Root.Digest {
				t.Errorf("after the fault: got %s, want the new manifest", res.Descriptor.Digest)
			}
		})
	}
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	old, moved := build(1), build(2)
	b, up := one(t, old)
	ref := app(t, "1")
	b.resolve(ref, Miss)
	up.PutImage("library/app", "1", moved)
	if res, err := b.Refresh(soon(t), ref); err != nil || res.Descriptor.Digest != moved.Root.Digest {
		t.Errorf("got %v, %v, want the new manifest inside the window", res, err)
	}
	up.Stop()
	if res, err := b.Refresh(soon(t), ref); err == nil {
		t.Errorf("upstream down: got %v, want its error", res)
	}
	if res := b.resolve(ref, Hit); res.Descriptor.Digest != moved.Root.Digest {
		t.Errorf("after a failed refresh: got %s, want what was there", res.Descriptor.Digest)
	}
	for _, ref := range []Reference{app(t, old.Root.Digest.String()), {Repository: ref.Repository, Tag: "1", Digest: old.Root.Digest}} {
		if _, err := b.Refresh(soon(t), ref); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: got %v, want it refused", ref, err)
		}
	}
}

// What becomes of a tag that upstream has deleted is a policy.
func TestDeletedPolicy(t *testing.T) {
	t.Parallel()
	img := build(1)
	for policy, serve := range map[string]bool{DeletedServe: true, DeletedWarn: true, DeletedRefuse: false} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			log := &lockedBuffer{}
			f := DefaultFreshness()
			f.Deleted = policy
			b, up := one(t, img, withFreshness(f), withLog(log))
			ref := app(t, "1")
			b.resolve(ref, Miss)
			up.DeleteTag("library/app", "1")
			b.expire(ref)
			n := counted(up, func() {
				for range 3 { // the later ones are in the pause after a failed check
					if serve {
						b.resolve(ref, Stale)
					} else if _, err := b.Resolve(soon(t), ref); !errdefs.IsNotFound(err) {
						t.Errorf("got %v, want not found", err)
					}
				}
			})
			if n != 1 {
				t.Errorf("upstream saw %d requests, want 1 check", n)
			}
			if got, want := strings.Contains(log.String(), "upstream has deleted a tag"), policy == DeletedWarn; got != want {
				t.Errorf("warned: %t, want %t", got, want)
			}
			// By digest it is there whatever the policy.
			b.resolve(app(t, img.Root.Digest.String()), Hit)
			// The policy is about 404: a dead upstream does not delete.
			up.Stop()
			b.expire(ref)
			b.resolve(ref, Stale)
		})
	}
}

// lockedBuffer is a log that tests read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// Who looked just before another's answer came, and begins to ask just after,
// asks nothing.
func TestLateCheckAsksNothing(t *testing.T) {
	t.Parallel()
	img := build(1)
	b, up := one(t, img)
	b.resolve(app(t, "1"), Miss)
	up.ResetRequests()
	if res, err := b.check(soon(t), app(t, "1"), true); err != nil || res.Outcome != Hit || res.Descriptor.Digest != img.Root.Digest {
		t.Errorf("check of what was checked: got %+v, %v", res, err)
	}
	byDigest := app(t, img.Root.Digest.String())
	if res, err := b.bringManifest(soon(t), byDigest); err != nil || res.Descriptor.Digest != img.Root.Digest {
		t.Errorf("manifest that was brought: got %+v, %v", res, err)
	}
	if n := len(up.Requests()); n != 0 {
		t.Errorf("upstream saw %d requests, want 0", n)
	}
}

// Nor does it after a failed check, in the pause behind it.
func TestLateCheckAfterFailure(t *testing.T) {
	t.Parallel()
	f := DefaultFreshness()
	f.Window = time.Nanosecond
	b, up := one(t, build(1), withFreshness(f))
	b.resolve(app(t, "1"), Miss)
	up.Fault(remotestest.Any(), remotestest.Error(http.StatusBadGateway, "UNKNOWN", "down"))
	for _, want := range []int{1, 0} {
		up.ResetRequests()
		_, err := b.check(soon(t), app(t, "1"), true)
		mentions(t, err, "502")
		if n := len(up.Requests()); n != want {
			t.Errorf("upstream saw %d requests, want %d", n, want)
		}
	}
}
