package remotes

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestRemovalSparesPull: a removal has decided what is needed, then a pull
// takes a shared blob into use, and then the removal deletes.
func TestRemovalSparesPull(t *testing.T) {
	t.Parallel()
	img := build(1)
	b, _ := one(t, img)
	end := b.Store.BeginRemoval()
	if _, err := b.Pull(soon(t), app(t, "1"), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	deleted := func(desc ocispec.Descriptor) bool {
		gone, err := b.Store.DeleteUnlessHeld(soon(t), desc.Digest)
		if err != nil {
			t.Error(err)
		}
		return gone
	}
	for _, desc := range img.Descriptors() {
		if deleted(desc) {
			t.Errorf("%s was deleted under a pull", desc.Digest)
		}
	}
	end()
	for _, desc := range img.Descriptors() {
		if !deleted(desc) {
			t.Errorf("%s is held after the removal ended", desc.Digest)
		}
	}
}

// TestRemovalSparesPinnedDigestOfAnotherRepository: the manifest came through
// library/b, and is pulled and pinned by digest as library/app's.
func TestRemovalSparesPinnedDigestOfAnotherRepository(t *testing.T) {
	t.Parallel()
	img := build(1)
	b, up := one(t, img)
	up.PutImage("library/b", "1", img)
	other := Reference{Repository: Repository{Host: DockerHub, Path: "library/b"}, Tag: "1"}
	if _, err := b.Pull(soon(t), other, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	byDigest := app(t, img.Root.Digest.String())
	if _, err := b.pin(byDigest, ""); err != nil {
		t.Fatal(err)
	}
	if removed, err := b.Remove(soon(t), other); err != nil || removed.Blobs != 0 {
		t.Errorf("removed %+v, %v, want nothing: it is pinned", removed, err)
	}
	if err := b.Unpin(byDigest.name(), ""); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Pull(soon(t), byDigest, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if images, err := b.Images(soon(t)); err != nil || len(images) != 1 || images[0].Name != byDigest.String() {
		t.Errorf("images are %v, %v, want what was pulled by digest", images, err)
	}
}

// TestRemovalSparesDeepImage: an image below several indexes shares all with
// the one that is removed.
func TestRemovalSparesDeepImage(t *testing.T) {
	t.Parallel()
	img := build(1)
	b, up := one(t, img)
	up.PutImage("library/deep", "x", img)
	root := img.Root
	for i := range 6 {
		root.Platform = nil
		index, err := json.Marshal(map[string]any{
			"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "manifests": []any{root}, "annotations": map[string]string{"depth": string(rune('a' + i))},
		})
		if err != nil {
			t.Fatal(err)
		}
		root = up.PutManifest("library/deep", "1", ocispec.MediaTypeImageIndex, index)
	}
	deep := Reference{Repository: Repository{Host: DockerHub, Path: "library/deep"}, Tag: "1"}
	for _, ref := range []Reference{deep, app(t, "1")} {
		if _, err := b.Pull(soon(t), ref, PullOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if removed, err := b.Remove(soon(t), app(t, "1")); err != nil || removed.Blobs != 0 {
		t.Errorf("removed %+v, %v, want nothing: the deep image needs it", removed, err)
	}
}

// TestRemovalStopsAtUnreadableManifest: what another image needs cannot be
// told, so nothing is deleted.
func TestRemovalStopsAtUnreadableManifest(t *testing.T) {
	t.Parallel()
	b, up := one(t, remotestest.Build(remotestest.ImageSpec{Seed: 1, Layers: []int64{1000, 2000}}))
	img := remotestest.Build(remotestest.ImageSpec{Seed: 1, Layers: []int64{1000, 3000}})
	up.PutImage("library/b", "1", img)
	other := Reference{Repository: Repository{Host: DockerHub, Path: "library/b"}, Tag: "1"}
	for _, ref := range []Reference{other, app(t, "1")} {
		if _, err := b.Pull(soon(t), ref, PullOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(b.root, "blobs", "sha256", img.Root.Digest.Encoded())
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.Repeat(" ", int(img.Root.Size))), 0o600); err != nil {
		t.Fatal(err)
	}
	removed, err := b.Remove(soon(t), app(t, "1"))
	if err == nil || !strings.Contains(err.Error(), "library/b:1") || removed.Blobs != 0 {
		t.Errorf("removed %+v, %v; want nothing, and the image that cannot be read named", removed, err)
	}
}

// TestRemovalOutlivesCheck: a tag that is removed while its check is under way
// does not come back with it.
func TestRemovalOutlivesCheck(t *testing.T) {
	t.Parallel()
	fresh := DefaultFreshness()
	fresh.Patience = 0
	b, up := one(t, build(1), withFreshness(fresh))
	b.resolve(app(t, "1"), Miss)
	b.expire(app(t, "1"))
	asked, release := make(chan struct{}), make(chan struct{})
	up.Fault(remotestest.And(remotestest.Manifests(), remotestest.Method(http.MethodHead)), func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		close(asked)
		<-release
		next.ServeHTTP(w, r)
	})
	b.resolve(app(t, "1"), Stale)
	<-asked
	if _, err := b.Remove(soon(t), app(t, "1")); err != nil {
		t.Fatal(err)
	}
	close(release)
	eventually(t, "the check is over", func() bool {
		b.overdue.mu.Lock()
		defer b.overdue.mu.Unlock()
		return len(b.overdue.count) == 0
	})
	if _, err := b.Store.Tag(app(t, "1").String()); !errdefs.IsNotFound(err) {
		t.Errorf("the removed tag is back: %v", err)
	}
}

// TestRefreshSeesWhatWasPushedBefore: a check that began earlier has an old
// answer; a refresh must not take it for its own.
func TestRefreshSeesWhatWasPushedBefore(t *testing.T) {
	t.Parallel()
	fresh := DefaultFreshness()
	fresh.Patience = 0
	old := build(1)
	b, up := one(t, old, withFreshness(fresh))
	b.resolve(app(t, "1"), Miss)
	b.expire(app(t, "1"))
	asked, release := make(chan struct{}), make(chan struct{})
	up.Fault(remotestest.Manifests(), remotestest.Times(1, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		close(asked)
		<-release
		w.Header().Set("Content-Type", old.Root.MediaType)
		w.Header().Set("Docker-Content-Digest", old.Root.Digest.String())
		w.Header().Set("Content-Length", "700")
	}))
	b.resolve(app(t, "1"), Stale)
	<-asked
	want := up.PutImage("library/app", "1", build(2))
	done := make(chan Resolved)
	go func() {
		res, err := b.Refresh(soon(t), app(t, "1"))
		if err != nil {
			t.Error(err)
		}
		done <- res
	}()
	close(release)
	if res := <-done; res.Descriptor.Digest != want.Digest {
		t.Errorf("refresh found %s, want what was pushed before it, %s", res.Descriptor.Digest, want.Digest)
	}
}

// TestOneMissOthersFill: of those who wait for one manifest, one has caused
// the request upstream.
func TestOneMissOthersFill(t *testing.T) {
	t.Parallel()
	b, up := one(t, build(1))
	release := make(chan struct{})
	up.Fault(remotestest.Manifests(), remotestest.GateHeader(release))
	var mu sync.Mutex
	outcomes := map[Outcome]int{}
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			res, err := b.Resolve(soon(t), app(t, "1"))
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			outcomes[res.Outcome]++
		})
	}
	if err := up.Await(soon(t), func(rs []remotestest.Request) bool { return len(rs) > 0 }); err != nil {
		t.Fatal(err)
	}
	close(release)
	all.Wait()
	if outcomes[Miss] != 1 || outcomes[Miss]+outcomes[Fill]+outcomes[Hit] != 10 {
		t.Errorf("outcomes are %v, want one miss", outcomes)
	}
}
