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
