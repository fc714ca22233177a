package remotes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
)

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// attempt is one way to ask for a digest that is stored.
type attempt struct {
	by, to   Repository // for which it was stored, and is asked
	has      bool       // upstream has it in the repository it is asked for, too
	manifest bool       // or a layer
}

// D10: what is stored for one repository is served for another only if that one
// has it, to whom it may be served there. All pairs of two private repositories
// and a public one, of manifests and layers, of secrets, with upstream up and
// down.
func TestPrivateMatrix(t *testing.T) {
	t.Parallel()
	repos := []Repository{secretA(), secretB(), publicC()}
	for _, by := range repos {
		for _, to := range repos {
			for _, has := range []bool{true, false} {
				if by == to && !has {
					continue
				}
				for _, manifest := range []bool{true, false} {
					t.Run(fmt.Sprintf("%s for %s, has it %t, manifest %t", by, to, has, manifest), func(t *testing.T) {
						t.Parallel()
						attempt{by, to, has, manifest}.run(t)
					})
				}
			}
		}
	}
}

func (a attempt) run(t *testing.T) {
	t.Helper()
	b := newPrivateBench(t)
	img, own := build(1), build(2)
	b.up.PutImage(a.by.Path, "1", img)
	if a.by != a.to {
		b.up.PutImage(a.to.Path, "own", own)
	} else {
		b.up.PutImage(a.to.Path, "own", img)
	}
	if a.has {
		b.up.PutImage(a.to.Path, "1", img)
	}
	b.bring(b.admitted(a.by, "1"), a.by, img)
	dgst := img.Blobs[0].Descriptor.Digest
	if a.manifest {
		dgst = img.Root.Digest
	}
	b.up.ResetRequests()

	known := a.by == a.to || a.by == publicC() // without asking
	for _, step := range []struct {
		down   bool
		secret string
		want   func(error) bool
	}{
		{false, "", a.unless(errdefs.IsUnauthorized, known)},
		{false, "wrong", a.unless(errdefs.IsPermissionDenied, known)},
		{true, "", a.unless(errdefs.IsUnauthorized, known)},
		{true, "wrong", a.unless(errdefs.IsPermissionDenied, known)},
		{true, "right", served(known, errdefs.IsUnavailable)},
		{false, "right", served(known || a.has, errdefs.IsNotFound)},
		// Now it is known, one way or the other.
		{true, "right", served(known || a.has, errdefs.IsNotFound)},
	} {
		name := fmt.Sprintf("down %t, secret %q", step.down, step.secret)
		if step.secret == "right" { // it is remembered when upstream goes down
			b.admitted(a.to, "own")
		}
		if step.down {
			b.up.Stop()
		}
		if a.to == publicC() && step.secret != "right" {
			// Whoever asks, it is the same: the steps below say what.
			step.want = func(error) bool { return true }
			step.secret = "skip"
		}
		if err := a.get(b, step.secret, dgst); !step.want(err) {
			t.Errorf("%s: got %v", name, err)
		}
		if step.down {
			b.up.Start()
			eventually(t, "upstream is asked again", func() bool {
				return errdefs.IsNotFound(b.Pool.Client(b.Routes.For(DockerHub)[0]).HasManifest(soon(t), "library/none", "1"))
			})
		}
	}
	for secret := range b.sent(publicC()) {
		t.Errorf("the public repository was asked with %s", secret)
	}
	for _, r := range b.up.Requests() {
		if r.Method == http.MethodHead && bytes.Contains([]byte(r.Path), []byte("/blobs/")) {
			t.Errorf("upstream saw HEAD %s", r.Path)
		}
	}
}

// unless is what who may not have it gets: in a public repository there is
// nobody like that.
func (a attempt) unless(refused func(error) bool, known bool) func(error) bool {
	if a.to == publicC() {
		return served(known, func(error) bool { return true })
	}
	return refused
}

func served(yes bool, refused func(error) bool) func(error) bool {
	if yes {
		return func(err error) bool { return err == nil }
	}
	return func(err error) bool { return err != nil && refused(err) }
}

// get asks as the mirror does: by HEAD and then for the whole.
func (a attempt) get(b privateBench, secret string, dgst digest.Digest) error {
	if secret == "skip" {
		return nil
	}
	var cred Credential
	if secret != "" {
		cred = kim(a.to, secret)
	}
	asked := ""
	if a.manifest {
		asked = dgst.String()
	}
	ctx, err := b.Admit(soon(b.t), a.to, asked, cred)
	if err != nil {
		return err
	}
	if !a.manifest {
		_, err := b.readAs(ctx, a.to, dgst)
		return err
	}
	ref := Reference{Repository: a.to, Digest: dgst}
	_, herr := b.Resolve(ctx, ref)
	_, err = b.Manifest(ctx, ref)
	if (herr == nil) != (err == nil) {
		b.t.Errorf("HEAD got %v, GET %v", herr, err)
	}
	return err
}

// Anybody can run a registry that answers for any digest. It gets the bytes of
// others only if it can show that it has them.
func TestRegistryMustShowBytes(t *testing.T) {
	t.Parallel()
	other := bytes.Repeat([]byte("x"), 3<<20)
	for name, answer := range map[string]http.HandlerFunc{
		"other bytes": func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(other))
		},
		"nothing": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) },
		"fewer":   func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("x")) },
	} {
		// Of a repository that is known a tag is asked for by HEAD.
		for _, known := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, known %t", name, known), func(t *testing.T) {
				t.Parallel()
				mustShowBytes(t, answer, known)
			})
		}
	}
}

func mustShowBytes(t *testing.T, answer http.HandlerFunc, known bool) {
	t.Helper()
	b := newPrivateBench(t)
	img := remotestest.Build(remotestest.ImageSpec{Seed: 1, Layers: []int64{2 << 20}})
	b.up.PutImage(secretA().Path, "1", img)
	b.bring(b.admitted(secretA(), "1"), secretA(), img)
	b.up.PutImage(publicC().Path, "1", build(9))
	b.up.PutImage(publicC().Path, "known", build(8))
	if known {
		b.resolve(Reference{Repository: publicC(), Tag: "known"}, Miss)
	}
	b.up.Fault(remotestest.And(remotestest.Repo(publicC().Path), remotestest.Blobs()),
		func(w http.ResponseWriter, r *http.Request, _ http.Handler) { answer(w, r) })
	b.up.Fault(remotestest.And(remotestest.Repo(publicC().Path), remotestest.Manifests()),
		func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			w.Header().Set("Content-Type", img.Root.MediaType)
			w.Header().Set("Docker-Content-Digest", img.Root.Digest.String())
			if r.Method != http.MethodHead {
				answer(w, r)
				return
			}
			w.Header().Set("Content-Length", fmt.Sprint(img.Root.Size))
		})
	if n, err := b.readAs(soon(t), publicC(), img.Blobs[0].Descriptor.Digest); err == nil {
		t.Errorf("blob: %d bytes were served", n)
	}
	for _, object := range []string{"1", img.Root.Digest.String()} {
		ref := inRepo(t, publicC(), object)
		if m, err := b.Manifest(soon(t), ref); err == nil {
			t.Errorf("manifest %s: %d bytes were served", object, len(m.Data))
		}
	}
	for _, dgst := range []digest.Digest{img.Root.Digest, img.Blobs[0].Descriptor.Digest} {
		if b.belongs(t.Context(), publicC(), dgst) {
			t.Errorf("%s belongs to it", dgst)
		}
	}
}

// Bytes on their way for a private repository are for no other; it gets them
// when they are whole, and only if it has them too.
func TestFillOfPrivateIsNotShared(t *testing.T) {
	t.Parallel()
	for _, has := range []bool{true, false} {
		b := newPrivateBench(t)
		img := remotestest.Build(remotestest.ImageSpec{Seed: 1, Layers: []int64{4 << 20}})
		layer := img.Blobs[0].Descriptor.Digest
		b.up.PutImage(secretA().Path, "1", img)
		if has {
			b.up.PutImage(publicC().Path, "1", img)
		}
		release := make(chan struct{})
		b.up.Fault(remotestest.And(remotestest.Blobs(), remotestest.Repo(secretA().Path)), remotestest.Gate(3<<20, release))
		ctx := b.admitted(secretA(), "1")
		first, err := b.Blob(ctx, ctx, secretA(), layer)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := b.Blob(ctx, ctx, secretA(), layer); err != nil || second.Outcome != Fill {
			t.Errorf("the same repository: %v, want it to share the fill", err)
		} else {
			second.Close()
		}
		short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := b.readAs(short, publicC(), layer); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("while it is on its way: %v, want to wait", err)
		}
		cancel()
		later := make(chan error, 1)
		go func() {
			_, err := b.readAs(soon(t), publicC(), layer)
			later <- err
		}()
		close(release)
		if err := <-later; (err == nil) != has || !has && !errdefs.IsNotFound(err) {
			t.Errorf("afterwards, it has it %t: %v", has, err)
		}
		if _, err := io.Copy(io.Discard, first); err != nil {
			t.Error(err)
		}
		first.Close()
		// The command line is no way round.
		if _, err := b.Pull(soon(t), Reference{Repository: publicC(), Digest: img.Root.Digest}, PullOptions{}); (err == nil) != has {
			t.Errorf("pull, it has it %t: %v", has, err)
		}
	}
}

// A pull by the command line, too, brings nothing that the repository lacks: here
// it has the manifest, and the layer is another's, stored or on its way.
func TestPullProvesBlobs(t *testing.T) {
	t.Parallel()
	for _, stored := range []bool{true, false} {
		b := newPrivateBench(t)
		img := remotestest.Build(remotestest.ImageSpec{Seed: 1, Layers: []int64{4 << 20}})
		layer := img.Blobs[0].Descriptor.Digest
		b.up.PutImage(secretA().Path, "1", img)
		b.up.PutImage(publicC().Path, "1", img)
		b.up.DeleteBlob(publicC().Path, layer)
		ctx := b.admitted(secretA(), "1")
		release := make(chan struct{})
		if stored {
			close(release)
		}
		b.up.Fault(remotestest.And(remotestest.Blobs(), remotestest.Repo(secretA().Path)), remotestest.Gate(3<<20, release))
		blob, err := b.Blob(ctx, ctx, secretA(), layer)
		if err != nil {
			t.Fatal(err)
		}
		if stored {
			b.settle(layer)
		}
		pulled := make(chan error, 1)
		ref := Reference{Repository: publicC(), Tag: "1"}
		started, first := make(chan struct{}), sync.Once{}
		go func() {
			_, err := b.Pull(soon(t), ref, PullOptions{Report: func(p BlobProgress) {
				if p.Digest == layer {
					first.Do(func() { close(started) })
				}
			}})
			pulled <- err
		}()
		if !stored {
			<-started // it has joined the fill
			close(release)
		}
		if err := <-pulled; !errdefs.IsNotFound(err) {
			t.Errorf("stored %t: pull: %v, want the layer not found", stored, err)
		}
		blob.Close()
		if b.belongs(t.Context(), publicC(), layer) {
			t.Errorf("stored %t: the layer belongs to it", stored)
		}
	}
}

// Which repositories are private their policies say now. What was public when it
// came is kept from others as soon as it is not, and what everybody may have
// is not asked for.
func TestPolicyDecidesNow(t *testing.T) {
	t.Parallel()
	b := newPrivateBench(t, func(s *setup) { s.policies = Policies{} })
	img := build(1)
	b.up.PutImage(publicC().Path, "1", img)
	layer := img.Blobs[0].Descriptor.Digest
	b.bring(soon(t), publicC(), img)
	b.up.ResetRequests()
	for name, c := range map[string]struct {
		private []string
		want    bool
	}{
		"none is":      {nil, true},
		"another is":   {[]string{"b.example"}, true},
		"its own is":   {[]string{DockerHub}, false},
		"both are":     {[]string{DockerHub, "a.example"}, false},
		"the asked is": {[]string{"a.example"}, true},
	} {
		b.Policies = withPrivate(t, c.private...)
		for _, dgst := range []digest.Digest{layer, img.Root.Digest} {
			if got := b.belongs(t.Context(), secretA(), dgst); got != c.want {
				t.Errorf("%s: belongs to another repository: %t, want %t", name, got, c.want)
			}
			if !b.belongs(t.Context(), publicC(), dgst) {
				t.Errorf("%s: does not belong to its own", name)
			}
		}
	}
	if n := len(b.up.Requests()); n != 0 {
		t.Errorf("upstream saw %d requests", n)
	}
}

// A tag that was taken on its upstream's word alone, while nothing was private,
// is no way to what has become private since.
func TestTagFromBeforePrivacy(t *testing.T) {
	t.Parallel()
	b := newPrivateBench(t, func(s *setup) { s.policies = Policies{} })
	img := build(1)
	b.up.PutImage("team/open", "1", img) // not asked for a password
	open := Repository{Host: "a.example", Path: "team/open"}
	b.resolve(Reference{Repository: open, Tag: "1"}, Miss)
	tag := Reference{Repository: publicC(), Tag: "claim"}
	b.up.PutImage(publicC().Path, "other", build(2))
	b.resolve(Reference{Repository: publicC(), Tag: "other"}, Miss) // else upstream would have to send what it claims
	b.up.Fault(remotestest.Reference("claim"), func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", img.Root.MediaType)
		w.Header().Set("Docker-Content-Digest", img.Root.Digest.String())
		w.Header().Set("Content-Length", fmt.Sprint(img.Root.Size))
	})
	b.resolve(tag, Miss)
	b.resolve(tag, Hit)
	b.Policies = withPrivate(t, "a.example")
	for _, when := range []string{"upstream claims it still", "upstream is down"} {
		if res, err := b.Resolve(soon(t), tag); err == nil {
			t.Errorf("%s: got %v", when, res)
		}
		b.up.Stop()
	}
}

// An index that was lost has forgotten who has what. Where something is private,
// upstream is asked once; where nothing is, nothing changes.
func TestLostIndexOpensNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ private, has, down, want bool }{
		"private, it lacks it":      {true, false, false, false},
		"private, it has it":        {true, true, false, true},
		"private, upstream is down": {true, true, true, false},
		"nothing is private":        {false, false, true, true},
	} {
		root := filepath.Join(t.TempDir(), "store")
		b := newPrivateBench(t, func(s *setup) { s.root = root })
		img := build(1)
		b.up.PutImage(secretA().Path, "1", img)
		b.bring(b.admitted(secretA(), "1"), secretA(), img)
		if err := b.Store.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(root, "index.db")); err != nil {
			t.Fatal(err)
		}
		again := newPrivateBench(t, func(s *setup) {
			s.root = root
			if !c.private {
				s.policies = Policies{}
			}
		})
		if c.has {
			again.up.PutImage(publicC().Path, "1", img)
		}
		if c.down {
			again.up.Stop()
		}
		for _, when := range []string{"first", "second"} {
			if _, err := again.readAs(soon(t), publicC(), img.Blobs[0].Descriptor.Digest); (err == nil) != c.want {
				t.Errorf("%s: %s: got %v, want it served: %t", name, when, err, c.want)
			}
		}
		if n := again.up.Count(http.MethodGet, "/blobs/"); c.private && !c.down && n != 1 || !c.private && n != 0 {
			t.Errorf("%s: upstream was asked %d times for the blob", name, n)
		}
	}
}

// Who knows a part of a blob has one try, under whatever name.
func TestSampleIsTheSameForAll(t *testing.T) {
	t.Parallel()
	b := newPrivateBench(t)
	img := remotestest.Build(remotestest.ImageSpec{Seed: 1, Layers: []int64{4 << 20}})
	layer := img.Blobs[0].Descriptor.Digest
	b.up.PutImage(secretA().Path, "1", img)
	b.bring(b.admitted(secretA(), "1"), secretA(), img)
	places := map[string]int{}
	for i := range 10 {
		guess := Repository{Host: DockerHub, Path: fmt.Sprintf("guess/%d", i%5)}
		b.up.PutImage(guess.Path, "1", build(9))
		remove := b.up.Fault(remotestest.And(remotestest.Repo(guess.Path), remotestest.Blobs()),
			func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(make([]byte, len(img.Blobs[0].Data))))
			})
		if _, err := b.readAs(soon(t), guess, layer); !errdefs.IsDataLoss(err) {
			t.Errorf("%s: got %v", guess, err)
		}
		remove()
	}
	for _, r := range b.up.Requests() {
		if strings.HasPrefix(r.Path, "/v2/guess/") {
			places[r.Header.Get("Range")]++
		}
	}
	if len(places) != 1 {
		t.Errorf("asked for %v, want one place", places)
	}
	other := newPrivateBench(t)
	blob, err := b.Store.Open(layer)
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	mine, _, err := b.sample(blob)
	theirs, _, err2 := other.sample(blob)
	if mine == theirs || err != nil || err2 != nil {
		t.Errorf("another larder asks for the same place: %d, %d, %v, %v", mine, theirs, err, err2)
	}
}
