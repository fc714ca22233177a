package remotes

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
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
	if !b.belongs(t.Context(), secretB(), blob.Digest) {
		t.Error("what a public repository has shown is not public")
	}
}

// Companions of what is private are fetched by larder itself, as who it is, and
// never with the secret of the client behind whose pull they come. They are as
// private as the image.
func TestPrivateCompanions(t *testing.T) {
	t.Parallel()
	own := Credential{Username: "larder of " + secretA().Path, Secret: "right"}
	b := newPrivateBench(t, withCompanions, func(s *setup) { s.upstream.Credentials = lardersOwn{own} })
	b.behind()
	img := build(1)
	b.up.PutImage(secretA().Path, "1", img)
	sbom := b.up.PutReferrer(secretA().Path, img.Root, sbomType, []byte("secret packages"))
	sig := b.up.PutSignature(secretA().Path, img.Root.Digest, ".sig", []byte("secret signature"))
	if _, err := b.Manifest(b.admitted(secretA(), "1"), Reference{Repository: secretA(), Tag: "1"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the companions come along", func() bool {
		rf, err := b.Store.Referrers(secretA().String(), img.Root.Digest)
		return err == nil && !rf.Followed.IsZero()
	})
	for _, r := range b.up.Requests() {
		user, _, ok := (&http.Request{Header: r.Header}).BasicAuth()
		isImage := strings.HasSuffix(r.Path, "/manifests/1") || strings.HasSuffix(r.Path, "/manifests/"+img.Root.Digest.String())
		if ok && isImage != (user != own.Username) {
			t.Errorf("%s %s was asked as %s", r.Method, r.Path, user)
		}
	}
	b.up.PutImage(publicC().Path, "1", build(2))
	for _, dgst := range []digest.Digest{sbom.Digest, sig.Digest, digest.FromString("secret packages"), digest.FromString("secret signature")} {
		if has, err := b.Store.Has(dgst); !has || err != nil {
			t.Errorf("%s is not stored, %v", dgst, err)
		}
		if n, err := b.readAs(soon(t), publicC(), dgst); err == nil {
			t.Errorf("%s: another repository got %d bytes", dgst, n)
		}
		if m, err := b.Manifest(soon(t), Reference{Repository: publicC(), Digest: dgst}); err == nil {
			t.Errorf("%s: another repository got it as a manifest of %d bytes", dgst, len(m.Data))
		}
	}
	if list, err := b.Referrers(soon(t), publicC(), img.Root.Digest, ""); err != nil || len(list.Manifests) != 0 {
		t.Errorf("another repository lists %v, %v", list.Manifests, err)
	}
}

// lardersOwn is what larder itself shows, everywhere.
type lardersOwn struct{ own Credential }

func (o lardersOwn) Credential(context.Context, string, string) (Credential, error) {
	return o.own, nil
}
func (o lardersOwn) Refuse(string, string, Credential) {}

// Nobody can be verified where no upstream is asked.
func TestOfflineVerifiesNobody(t *testing.T) {
	t.Parallel()
	b := newPrivateBench(t)
	b.up.PutImage(secretA().Path, "1", build(1))
	b.bring(b.admitted(secretA(), "1"), secretA(), build(1))
	b.Policies = newPolicies(t, []Rule{{
		ECRRepositoryPrefix: "private", UpstreamRegistryURL: "a.example", Settings: Settings{Private: PrivateVerify, Mode: ModeOffline},
	}})
	b.grants = newGrants(Access{}) // as after a start with that configuration
	_, err := b.Admit(soon(t), secretA(), "1", kim(secretA(), "right"))
	if !errdefs.IsUnavailable(err) {
		t.Errorf("got %v, want unavailable", err)
	}
	mentions(t, err, `offline by rule "private"`)
	if _, err := b.Resolve(soon(t), Reference{Repository: secretA(), Tag: "1"}); err != nil {
		t.Errorf("larder itself: %v", err)
	}
}

// A tag that has the form of cosign's and points to the image itself makes it no
// companion, which is not listed where it is asked for by digest.
func TestImageIsNotItsOwnCompanion(t *testing.T) {
	t.Parallel()
	img := build(1)
	b, up := one(t, img, withCompanions)
	ref, _ := companionTag(appRepo(), img.Root.Digest, ".sig")
	up.PutImage("library/app", ref.Tag, img)
	if res, err := b.Pull(soon(t), app(t, "1"), PullOptions{}); err != nil || res.Unaccompanied != nil {
		t.Fatalf("got %+v, %v", res, err)
	}
	b.resolve(app(t, img.Root.Digest.String()), Hit)
	if link, err := b.Store.Link(appRepo().String(), img.Root.Digest); err != nil || link.Companion || !link.Asked {
		t.Errorf("got %+v, %v, want it asked for", link, err)
	}
}

// A companion's blob that is on its way for another repository comes along
// whatever becomes of it there.
func TestCompanionsBlobIsOnItsWay(t *testing.T) {
	t.Parallel()
	for _, fails := range []bool{true, false} {
		b := newPrivateBench(t, withCompanions)
		img, shared := build(1), []byte("shared")
		b.up.PutImage(publicC().Path, "1", img)
		sbom := b.up.PutReferrer(publicC().Path, img.Root, sbomType, shared)
		blob := b.up.PutBlob(secretA().Path, shared)
		b.up.PutImage(secretA().Path, "1", build(2))
		ctx := b.admitted(secretA(), "1")
		release := make(chan struct{})
		b.up.Fault(remotestest.And(remotestest.Repo(secretA().Path), remotestest.Blobs()), func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			<-release
			if fails {
				next = http.NotFoundHandler()
			}
			next.ServeHTTP(w, r)
		})
		ends := make(chan error, 1)
		go func() { _, err := b.readAs(ctx, secretA(), blob.Digest); ends <- err }()
		if err := b.up.Await(soon(t), func([]remotestest.Request) bool { return b.up.Count("", "/team/a/blobs/") > 0 }); err != nil {
			t.Fatal(err)
		}
		pulled := make(chan PullResult, 1)
		go func() {
			res, err := b.Pull(soon(t), Reference{Repository: publicC(), Tag: "1"}, PullOptions{})
			if err != nil {
				t.Error(err)
			}
			pulled <- res
		}()
		eventually(t, "its manifest is there", func() bool { has, err := b.Store.Has(sbom.Digest); return has && err == nil })
		time.AfterFunc(50*time.Millisecond, func() { close(release) })
		if err := <-ends; (err != nil) != fails {
			t.Errorf("fails %t: the other repository got %v", fails, err)
		}
		if res := <-pulled; res.Unaccompanied != nil || res.Companions != 1 {
			t.Errorf("fails %t: got %+v", fails, res)
		}
		if !b.belongs(t.Context(), publicC(), blob.Digest) {
			t.Errorf("fails %t: the blob is not the companion's", fails)
		}
	}
}
