package remotes

import (
	"net/http"
	"testing"
	"time"

	"github.com/larder-project/larder/remotes/remotestest"
)

// Who waits for a fill that another repository began, and which its upstream
// refuses or breaks off, fetches for itself.
func TestFillFailedForAnotherRepository(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]remotestest.FaultFunc{
		"404": remotestest.Error(http.StatusNotFound, "BLOB_UNKNOWN", "no"),
		"403": remotestest.Error(http.StatusForbidden, "DENIED", "no"),
		"500": remotestest.Error(http.StatusInternalServerError, "UNKNOWN", "no"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, up := one(t, build(1))
			layer := build(1).Blobs[0].Descriptor.Digest
			evil := Repository{Host: DockerHub, Path: "evil/app"}
			up.PutImage(evil.Path, "1", build(2))
			release := make(chan struct{})
			up.Fault(remotestest.Repo(evil.Path), func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				<-release
				fault(w, r, next)
			})
			ends := make(chan error, 1)
			go func() { _, _, err := b.read(evil, layer); ends <- err }()
			if err := up.Await(soon(t), func(all []remotestest.Request) bool { return up.Count("", "/evil/app/blobs/") > 0 }); err != nil {
				t.Fatal(err)
			}
			read, pulled := make(chan error, 1), make(chan error, 1)
			go func() { _, _, err := b.read(appRepo(), layer); read <- err }()
			go func() { _, err := b.Pull(soon(t), app(t, "1"), PullOptions{}); pulled <- err }()
			time.AfterFunc(50*time.Millisecond, func() { close(release) })
			if err := <-ends; err == nil {
				t.Error("the other repository was served")
			}
			if err := <-read; err != nil {
				t.Errorf("read: %v", err)
			}
			if err := <-pulled; err != nil {
				t.Errorf("pull: %v", err)
			}
		})
	}
}

// A companion's blob that another, private repository brought is shown by its own
// upstream when it comes along, and not only when that may be gone.
func TestCompanionsBlobIsProven(t *testing.T) {
	t.Parallel()
	b := newPrivateBench(t, withCompanions)
	img, shared := build(1), []byte("shared")
	b.up.PutImage(publicC().Path, "1", img)
	open := b.up.PutReferrer(publicC().Path, img.Root, sbomType, shared)
	blob := b.up.PutBlob(secretA().Path, shared)
	b.up.PutImage(secretA().Path, "1", build(2))
	ctx := b.admitted(secretA(), "1")
	if _, err := b.readAs(ctx, secretA(), blob.Digest); err != nil {
		t.Fatal(err)
	}
	b.settle(blob.Digest)
	res, err := b.Pull(soon(t), Reference{Repository: publicC(), Tag: "1"}, PullOptions{})
	if err != nil || res.Unaccompanied != nil || res.Companions != 1 {
		t.Fatalf("got %+v, %v", res, err)
	}
	b.up.Stop()
	if _, err := b.Manifest(soon(t), Reference{Repository: publicC(), Digest: open.Digest}); err != nil {
		t.Error(err)
	}
	if _, err := b.readAs(soon(t), publicC(), blob.Digest); err != nil {
		t.Errorf("its upstream is gone: %v", err)
	}
	if ok, err := b.belongs(secretB(), blob.Digest); !ok || err != nil {
		t.Errorf("what a public repository has shown is public: %t, %v", ok, err)
	}
}
