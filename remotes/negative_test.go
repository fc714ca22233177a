package remotes

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
)

// containerd sends a GET behind a refused HEAD, and asks again for a pod that
// restarts: upstream hears of it once.
func TestRefusalIsRemembered(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault remotestest.FaultFunc
		is    func(error) bool
	}{
		"not found": {remotestest.Error(http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown"), errdefs.IsNotFound},
		"denied":    {remotestest.Error(http.StatusForbidden, "DENIED", "no"), errdefs.IsPermissionDenied},
	} {
		for _, object := range []string{"1", emptyDigest.String()} {
			t.Run(name+" "+object[:1], func(t *testing.T) {
				t.Parallel()
				b, up := one(t, build(1))
				up.Fault(remotestest.Manifests(), c.fault)
				ref := app(t, object)
				n := counted(up, func() {
					for range 3 {
						_, herr := b.Resolve(soon(t), ref)
						_, gerr := b.Manifest(soon(t), ref)
						if !c.is(herr) || !c.is(gerr) {
							t.Errorf("got %v and %v, want upstream's refusal", herr, gerr)
						}
					}
				})
				if n != 1 {
					t.Errorf("upstream saw %d requests for HEAD and GET, want 1", n)
				}
			})
		}
	}
}

// A refusal is remembered only of what is not stored, and by Refresh not at
// all.
func TestRefusalYieldsToStoreAndRefresh(t *testing.T) {
	t.Parallel()
	b, up := one(t, build(1))
	img := build(2)
	if _, err := b.Resolve(soon(t), app(t, "2")); !errdefs.IsNotFound(err) {
		t.Fatalf("got %v, want not found", err)
	}
	up.PutImage("library/app", "2", img)
	if _, err := b.Resolve(soon(t), app(t, "2")); !errdefs.IsNotFound(err) {
		t.Errorf("a moment later: got %v, want the remembered refusal", err)
	}
	if res, err := b.Refresh(soon(t), app(t, "2")); err != nil || res.Descriptor.Digest != img.Root.Digest {
		t.Fatalf("refresh: got %v, %v, want the new image", res, err)
	}
	b.resolve(app(t, "2"), Hit)

	// Stored by way of another tag: the remembered refusal does not count.
	other := build(3)
	if _, err := b.Resolve(soon(t), app(t, other.Root.Digest.String())); !errdefs.IsNotFound(err) {
		t.Fatalf("got %v, want not found", err)
	}
	up.PutImage("library/app", "3", other)
	b.resolve(app(t, "3"), Miss)
	b.resolve(app(t, other.Root.Digest.String()), Hit)
}

// Who pulls by hand has just put right what was wrong.
func TestPullAsksAnew(t *testing.T) {
	t.Parallel()
	b, up := one(t, build(1))
	for i, name := range []string{"tag", "digest"} {
		img := build(uint64(2 + i))
		ref := app(t, "2")
		if name == "digest" {
			ref = app(t, img.Root.Digest.String())
		}
		if _, err := b.Resolve(soon(t), ref); !errdefs.IsNotFound(err) {
			t.Fatalf("%s: got %v, want not found", name, err)
		}
		up.PutImage("library/app", "2", img)
		if res, err := b.Pull(soon(t), ref, PullOptions{}); err != nil || res.Descriptor.Digest != img.Root.Digest {
			t.Errorf("%s: got %v, %v, want the image", name, res, err)
		}
	}
}

// Only upstream's word is remembered, and not that it did not answer.
func TestFailureIsNotRemembered(t *testing.T) {
	t.Parallel()
	b, up := one(t, build(1))
	remove := up.Fault(remotestest.Manifests(), remotestest.Error(http.StatusBadGateway, "UNKNOWN", "down"))
	if _, err := b.Resolve(soon(t), app(t, "1")); !errdefs.IsUnavailable(err) {
		t.Fatalf("got %v, want unavailable", err)
	}
	remove()
	b.resolve(app(t, "1"), Miss)
}

func TestNegativesExpire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNegatives(maxNegatives, negativeTTL)
		n.note("a", fmt.Errorf("x: %w", errdefs.ErrNotFound))
		n.note("b", fmt.Errorf("x: %w", errdefs.ErrUnavailable))
		if n.recall("a") == nil || n.recall("b") != nil || n.recall("c") != nil {
			t.Errorf("got %v, %v, %v, want only the first", n.recall("a"), n.recall("b"), n.recall("c"))
		}
		<-time.After(negativeTTL - 1)
		if n.recall("a") == nil {
			t.Error("forgotten too early")
		}
		<-time.After(1)
		if err := n.recall("a"); err != nil {
			t.Errorf("remembered too long: %v", err)
		}
		if n.entries.Len() != 0 {
			t.Errorf("%d entries are kept that nobody can see", n.entries.Len())
		}
	})
}

func TestNegativesAreBounded(t *testing.T) {
	t.Parallel()
	n := newNegatives(maxNegatives, negativeTTL)
	for i := range 3 * maxNegatives {
		n.note(fmt.Sprint(i), errdefs.ErrNotFound)
	}
	if n.entries.Len() > maxNegatives {
		t.Errorf("%d names are remembered, want at most %d", n.entries.Len(), maxNegatives)
	}
}
