package remotes

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
)

// By tag and by digest, by what was verified before and by what is stored:
// upstream is asked by one HEAD of a manifest: what it challenges with is known
// by then.
func TestAdmitAsksOnce(t *testing.T) {
	t.Parallel()
	img := build(1)
	layer := img.Blobs[0].Descriptor.Digest
	for name, manifest := range map[string]string{"tag": "1", "digest": img.Root.Digest.String()} {
		b := newPrivateBench(t)
		b.up.PutImage(secretA().Path, "1", img)
		if _, err := b.Admit(soon(t), secretA(), "", kim(secretA(), "right")); !errdefs.IsPermissionDenied(err) {
			t.Errorf("%s: nothing is known of the repository: %v, want it refused", name, err)
		}
		if n := len(b.up.Requests()); n != 0 {
			t.Errorf("%s: upstream saw %d requests, and could be asked about nothing", name, n)
		}
		b.bring(b.admitted(secretA(), manifest), secretA(), img)
		b.up.ResetRequests()
		b.admitted(secretA(), "")
		if _, err := b.readAs(b.admitted(secretA(), manifest), secretA(), layer); err != nil {
			t.Error(err)
		}
		if n := len(b.up.Requests()); n != 0 {
			t.Errorf("%s: remembered, and upstream saw %d requests", name, n)
		}
		// Without a memory of this caller, a stored manifest will do.
		b.grants = newGrants(Access{})
		b.admitted(secretA(), "")
		want := []string{"HEAD /v2/team/a/manifests/" + img.Root.Digest.String()}
		if got := b.paths(); !slices.Equal(got, want) {
			t.Errorf("%s: upstream saw %v, want %v", name, got, want)
		}
	}
}

// paths are the requests that upstream saw.
func (b privateBench) paths() (all []string) {
	for _, r := range b.up.Requests() {
		all = append(all, r.Method+" "+r.Path)
	}
	return all
}

func TestAdmitRefuses(t *testing.T) {
	t.Parallel()
	b := newPrivateBench(t)
	b.up.PutImage(secretA().Path, "1", build(1))
	right := kim(secretA(), "right")
	for name, c := range map[string]struct {
		cred     Credential
		manifest string
		want     func(error) bool
	}{
		"none":        {Credential{}, "1", errdefs.IsUnauthorized},
		"wrong":       {kim(secretA(), "wrong"), "1", errdefs.IsPermissionDenied},
		"another's":   {kim(secretB(), "right"), "1", errdefs.IsPermissionDenied},
		"not there":   {right, "9", errdefs.IsPermissionDenied}, // some say 404 to who may not
		"malformed":   {right, "sha256:x", errdefs.IsInvalidArgument},
		"no manifest": {right, "../1", errdefs.IsInvalidArgument},
	} {
		_, err := b.Admit(soon(t), secretA(), c.manifest, c.cred)
		if !c.want(err) || errdefs.IsNotFound(err) {
			t.Errorf("%s: got %v", name, err)
		}
		if err != nil && c.cred.Secret != "" && strings.Contains(err.Error(), c.cred.Secret) && c.cred.Secret != "right" {
			t.Errorf("%s: the error holds the secret: %v", name, err)
		}
	}
	// A grant is for one repository.
	b.up.PutImage(secretB().Path, "1", build(1))
	b.admitted(secretA(), "1")
	if _, err := b.Admit(soon(t), secretB(), "1", right); !errdefs.IsPermissionDenied(err) {
		t.Errorf("a secret of another repository: got %v", err)
	}
	b.grants = newGrants(Access{})
	b.up.Stop()
	if _, err := b.Admit(soon(t), secretA(), "2", right); !errdefs.IsUnavailable(err) {
		t.Errorf("upstream is down: %v, want unavailable", err)
	}
	// Nobody is asked for anything where nothing is private.
	ctx := soon(t)
	if got, err := b.Admit(ctx, publicC(), "1", Credential{}); got != ctx || err != nil {
		t.Errorf("public: %v, %v", got, err)
	}
}

// What is missing is fetched with the caller's credential, at the repository's
// own upstreams, and larder's own work goes without it.
func TestFetchAsCaller(t *testing.T) {
	t.Parallel()
	b := newPrivateBench(t)
	img := build(1)
	b.up.PutImage(secretA().Path, "1", img)
	b.up.PutImage(publicC().Path, "1", build(2))
	ctx := b.admitted(secretA(), "1")
	b.bring(ctx, secretA(), img)
	if _, err := b.Tags(ctx, secretA(), 0, ""); err != nil {
		t.Error(err)
	}
	if _, err := b.Referrers(ctx, secretA(), img.Root.Digest, ""); err != nil {
		t.Error(err)
	}
	if got := b.sent(secretA()); len(got) != 1 || !got["kim of team/a:right"] {
		t.Errorf("upstream saw %v", got)
	}
	if _, err := b.Resolve(soon(t), Reference{Repository: publicC(), Tag: "1"}); err != nil {
		t.Error(err)
	}
	if got := b.sent(publicC()); len(got) != 0 {
		t.Errorf("for the public repository upstream saw %v", got)
	}
	// larder itself has no credential here.
	if _, err := b.Refresh(soon(t), Reference{Repository: secretA(), Tag: "1"}); !errdefs.IsPermissionDenied(err) {
		t.Errorf("larder's own refresh: %v, want it refused", err)
	}
}

// D11: what upstream refuses a caller is not served stale, its grant is gone,
// and others are none the worse for it.
func TestRevokedIsNotServedStale(t *testing.T) {
	t.Parallel()
	for _, status := range []int{401, 403, 404} {
		b := newPrivateBench(t)
		img := build(1)
		b.up.PutImage(secretA().Path, "1", img)
		ref := Reference{Repository: secretA(), Tag: "1"}
		b.bring(b.admitted(secretA(), "1"), secretA(), img)
		revoked := Credential{Username: "eve of team/a", Secret: "right"}
		eve, err := b.Admit(soon(t), secretA(), "1", revoked)
		if err != nil {
			t.Fatal(err)
		}
		b.up.Fault(remotestest.Repo(secretA().Path), func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if user, _, _ := r.BasicAuth(); strings.HasPrefix(user, "eve") {
				remotestest.Error(status, "DENIED", "revoked")(w, r, next)
				return
			}
			next.ServeHTTP(w, r)
		})
		b.expire(ref)
		if res, err := b.Resolve(eve, ref); !isRefusal(err) {
			t.Errorf("%d: the check is refused: %v, %v, want no stale answer", status, res, err)
		}
		if _, err := b.Admit(soon(t), secretA(), "", revoked); !errdefs.IsPermissionDenied(err) {
			t.Errorf("%d: the grant is still there: %v", status, err)
		}
		if tag, err := b.Store.Tag(ref.String()); err != nil || tag.Failures != 0 || !tag.NextCheck.IsZero() {
			t.Errorf("%d: the tag notes one caller's refusal: %+v, %v", status, tag, err)
		}
		if res, err := b.Resolve(b.admitted(secretA(), "1"), ref); err != nil || res.Outcome != Hit {
			t.Errorf("%d: another caller: %v, %v", status, res, err)
		}
		// Down is not refused.
		b.expire(ref)
		ctx := b.admitted(secretA(), "1")
		b.up.Stop()
		if res, err := b.Resolve(ctx, ref); err != nil || res.Outcome != Stale {
			t.Errorf("%d: upstream is down: %v, %v, want it stale", status, res, err)
		}
	}
}

// One caller's refusal is not another's: neither from memory nor by waiting for
// the same answer.
func TestRefusalIsTheCallersOwn(t *testing.T) {
	t.Parallel()
	b := newPrivateBench(t)
	img, other := build(1), build(2)
	b.up.PutImage(secretA().Path, "1", img)
	b.up.PutImage(secretA().Path, "2", other)
	b.up.Fault(remotestest.And(remotestest.Repo(secretA().Path), remotestest.Method(http.MethodGet)),
		func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if user, _, _ := r.BasicAuth(); strings.HasPrefix(user, "eve") {
				remotestest.Error(http.StatusForbidden, "DENIED", "not by GET")(w, r, next)
				return
			}
			next.ServeHTTP(w, r)
		})
	eve, err := b.Admit(soon(t), secretA(), "1", Credential{Username: "eve of team/a", Secret: "right"})
	if err != nil {
		t.Fatal(err)
	}
	ctx := b.admitted(secretA(), "1")
	for _, ask := range []func(context.Context) error{ // each stores what the next one would find
		func(ctx context.Context) error {
			_, err := b.Resolve(ctx, Reference{Repository: secretA(), Tag: "1"})
			return err
		},
		func(ctx context.Context) error {
			_, err := b.Manifest(ctx, Reference{Repository: secretA(), Digest: other.Root.Digest})
			return err
		},
		func(ctx context.Context) error {
			_, err := b.readAs(ctx, secretA(), img.Blobs[0].Descriptor.Digest)
			return err
		},
	} {
		if err := ask(eve); !errdefs.IsPermissionDenied(err) {
			t.Errorf("eve got %v", err)
		}
		if err := ask(ctx); err != nil {
			t.Errorf("kim got %v", err)
		}
	}
}

// Who waits for a fill that another caller began, and which upstream refuses
// that one, fetches for itself.
func TestFillRefusedToAnotherCaller(t *testing.T) {
	t.Parallel()
	b := newPrivateBench(t)
	img := build(1)
	layer := img.Blobs[0].Descriptor.Digest
	b.up.PutImage(secretA().Path, "1", img)
	release := make(chan struct{})
	b.up.Fault(remotestest.And(remotestest.Blobs(), remotestest.Repo(secretA().Path)),
		func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if user, _, _ := r.BasicAuth(); strings.HasPrefix(user, "eve") {
				<-release
				remotestest.Error(http.StatusForbidden, "DENIED", "no layers")(w, r, next)
				return
			}
			next.ServeHTTP(w, r)
		})
	eve, err := b.Admit(soon(t), secretA(), "1", Credential{Username: "eve of team/a", Secret: "right"})
	if err != nil {
		t.Fatal(err)
	}
	ctx := b.admitted(secretA(), "1")
	ends := make(chan error, 2)
	go func() { _, err := b.readAs(eve, secretA(), layer); ends <- err }()
	if err := b.up.Await(soon(t), func(all []remotestest.Request) bool {
		return slices.ContainsFunc(all, func(r remotestest.Request) bool {
			return strings.Contains(r.Path, "/blobs/") && r.Header.Get("Authorization") != ""
		})
	}); err != nil {
		t.Fatal(err)
	}
	joined := make(chan error, 1)
	go func() { _, err := b.readAs(ctx, secretA(), layer); joined <- err }()
	close(release)
	if err := <-ends; !errdefs.IsPermissionDenied(err) {
		t.Errorf("eve got %v", err)
	}
	if err := <-joined; err != nil {
		t.Errorf("kim got %v", err)
	}
}

// Lists are upstream's, for this caller; those of the store only if upstream
// cannot be asked.
func TestPrivateLists(t *testing.T) {
	t.Parallel()
	b := newPrivateBench(t)
	img := build(1)
	b.up.PutImage(secretA().Path, "1", img)
	ctx := b.admitted(secretA(), "1")
	b.bring(ctx, secretA(), img)
	remove := b.up.Fault(remotestest.Tags(), remotestest.Error(http.StatusForbidden, "DENIED", "no"))
	if list, err := b.Tags(ctx, secretA(), 0, ""); !errdefs.IsPermissionDenied(err) {
		t.Errorf("refused: got %v, %v", list, err)
	}
	remove()
	b.up.Stop()
	if list, err := b.Tags(ctx, secretA(), 0, ""); err != nil || list.Outcome != Stale || !slices.Equal(list.Tags, []string{"1"}) {
		t.Errorf("down: got %v, %v", list, err)
	}
}

// A secret is in no error, in no log line, and in nothing that is printed.
func TestSecretsAreNotPrinted(t *testing.T) {
	t.Parallel()
	const canary = "canary-hunter2"
	log := &lockedBuffer{}
	b := newPrivateBench(t, withLog(log))
	b.up.PutImage(secretA().Path, "1", build(1))
	ctx := withCaller(t.Context(), caller{credential: kim(secretA(), canary), id: "x"})
	who, _ := callerOf(ctx)
	printed := fmt.Sprintf("%v %+v %#v %v %+v", who, who, who, ctx, []any{who})
	_, err := b.Admit(soon(t), secretA(), "1", kim(secretA(), canary))
	if err == nil {
		t.Fatal("accepted")
	}
	_, lerr := b.Resolve(ctx, Reference{Repository: secretA(), Tag: "1"})
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, berr := b.readAs(ctx, secretA(), digest.FromString("x"))
	for _, text := range []string{printed, err.Error(), fmt.Sprintf("%#v", err), fmt.Sprint(lerr, berr), log.String(), strings.Join(append(b.grants.granted.Keys(), b.grants.refusals.entries.Keys()...), " ")} {
		if strings.Contains(text, canary) {
			t.Errorf("the secret is in %.300q", text)
		}
	}
}
