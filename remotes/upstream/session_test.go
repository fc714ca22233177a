package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
)

// TestRefusedCredential has registries refuse a password, with 401 and with
// 403. It is looked up anew, once, and the request is sent again only if there
// is another one.
func TestRefusedCredential(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]remotestest.Option{
		"401": {remotestest.WithBasic("bob", secretB)},
		"403": {remotestest.WithBasic("bob", secretB), remotestest.WithForbiddenExpired()},
	} {
		reg, img := withImage(t, opts...)
		for op, ask := range operations(t, img) {
			k := keys(alice(), bob())
			c := with(t, k, reg.URL())
			if err := ask(c); err != nil {
				t.Errorf("%s, %s: %v, want that the other one is taken", name, op, err)
			}
			if got := k.refusals(); !slices.Equal(got, []Credential{alice()}) || len(k.lookUps()) != 2 {
				t.Errorf("%s, %s: refused %v after %d look-ups, want alice after 2", name, op, got, len(k.lookUps()))
			}
			k.rotate(alice())
			reg.ResetRequests()
			for range 2 {
				e := failure(t, ask(c), errdefs.ErrPermissionDenied)
				if !strings.Contains(e.Error(), "credential of alice was refused") || fmt.Sprint(e.Status) != name {
					t.Errorf("%s, %s: %v, want that alice was refused", name, op, e)
				}
			}
			want := 2
			if op == "referrers" {
				want = 4 // by its endpoint, and by tag
			}
			if n := len(statuses(reg)); n != want || len(k.refusals()) != 2 || len(k.lookUps()) != 4 {
				t.Errorf("%s, %s: %d requests, %d refusals and %d look-ups in two exchanges, want %d, 2 and 4",
					name, op, n, len(k.refusals()), len(k.lookUps()), want)
			}
		}
	}
}

// TestRefusedAndGone has no credential left after one was refused: the request
// is not sent again, and the error still says which one it was.
func TestRefusedAndGone(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]remotestest.Option{
		"basic": remotestest.WithBasic("bob", secretB), "bearer": remotestest.WithUser("bob", secretB),
	} {
		reg, img := withImage(t, opt)
		for op, ask := range operations(t, img) {
			reg.ResetRequests()
			e := failure(t, ask(with(t, keys(alice(), Credential{}), reg.URL())), errdefs.ErrPermissionDenied)
			if !strings.Contains(e.Error(), "credential of alice was refused") {
				t.Errorf("%s, %s: %v, want that alice was refused", name, op, e)
			}
			if n := reg.Count("", "/token"); n > 1 {
				t.Errorf("%s, %s: %d token requests, want 1", name, op, n)
			}
		}
	}
}

// TestRefusedTwice has no end of wrong credentials: one more is tried, and the
// source hears of both.
func TestRefusedTwice(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]remotestest.Option{
		"basic": remotestest.WithBasic("carol", "x"), "bearer": remotestest.WithUser("carol", "x"),
	} {
		reg, _ := withImage(t, opt)
		k := keys(alice(), bob(), Credential{Username: "carol", Secret: "x"})
		e := failure(t, resolve(soon(t), with(t, k, reg.URL())), errdefs.ErrPermissionDenied)
		if !strings.Contains(e.Error(), "credential of bob was refused") {
			t.Errorf("%s: %v, want that bob was refused", name, e)
		}
		if got := k.refusals(); !slices.Equal(got, []Credential{alice(), bob()}) || len(k.lookUps()) != 2 {
			t.Errorf("%s: refused %v after %d look-ups, want both after 2", name, got, len(k.lookUps()))
		}
	}
}

// TestRefusedByTokenService is about a credential that gets no token.
func TestRefusedByTokenService(t *testing.T) {
	t.Parallel()
	img := image(1)
	wrong := Credential{Secret: secretA}
	for op, ask := range operations(t, img) {
		for _, refused := range []Credential{alice(), wrong} {
			reg, _ := withImage(t, remotestest.WithUser("bob", secretB))
			k := keys(refused, bob())
			c := with(t, k, reg.URL())
			if err := ask(c); err != nil || !slices.Equal(k.refusals(), []Credential{refused}) {
				t.Errorf("%s: %v, refused %v, want the other one taken", op, err, k.refusals())
			}
			k.rotate(refused)
			reg.ResetRequests()
			e := failure(t, ask(c), errdefs.ErrPermissionDenied)
			if !strings.Contains(e.Error(), "no token: "+refused.String()+" was refused") || e.Status != http.StatusUnauthorized {
				t.Errorf("%s: %v, want that %v was refused", op, e, refused)
			}
			if n := reg.Count("", "/token"); n != 1 || len(k.refusals()) != 1 || len(statuses(reg)) != 0 {
				t.Errorf("%s: %d token requests, %d refusals, want 1 and 1", op, n, len(k.refusals()))
			}
		}
	}
	// RFC 6749 has 400 for it.
	reg, _ := withImage(t, remotestest.WithUser("bob", secretB))
	reg.Fault(remotestest.Tokens(), remotestest.Status(400, nil, `{"error":"invalid_grant"}`))
	k := keys(wrong)
	err := resolve(soon(t), with(t, k, reg.URL()))
	if !strings.Contains(fmt.Sprint(err), "an identity token was refused") || len(k.refusals()) != 1 {
		t.Errorf("400: %v, refused %v", err, k.refusals())
	}
}

// TestExpiredToken has a registry refuse tokens it gave, with 401 and with
// 403: a new one is asked for, with the same credential, which is not at
// fault.
func TestExpiredToken(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]remotestest.Option{
		"401": {remotestest.WithUser("alice", secretA)},
		"403": {remotestest.WithUser("alice", secretA), remotestest.WithForbiddenExpired()},
	} {
		reg, img := withImage(t, opts...)
		for op, ask := range operations(t, img) {
			k := keys(alice())
			c := with(t, k, reg.URL())
			for i := range 3 {
				reg.ResetRequests()
				k.rotate(alice())
				if err := ask(c); err != nil {
					t.Errorf("%s, %s: %v", name, op, err)
				}
				if n := denials(reg); n != 1 || reg.Count("", "/token") != 1 || len(k.lookUps()) != 1 || len(k.refusals()) != 0 {
					t.Errorf("%s, %s, call %d: %d refusals, %d token requests, %d look-ups, %d times refused",
						name, op, i, n, reg.Count("", "/token"), len(k.lookUps()), len(k.refusals()))
				}
				reg.RevokeTokens()
			}
		}
	}
}

// TestForbiddenForever counts how often a registry is asked that forbids what
// it is asked for, with a token that is good otherwise.
func TestForbiddenForever(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]remotestest.Option{
		"anonymous": remotestest.WithToken(), "bearer": remotestest.WithUser("alice", secretA), "basic": remotestest.WithBasic("alice", secretA),
	} {
		img := image(1)
		for op, ask := range operations(t, img) {
			reg, _ := withImage(t, opt)
			c := with(t, keys(alice()), reg.URL())
			if err := ask(c); err != nil {
				t.Errorf("%s, %s: %v", name, op, err)
			}
			reg.Fault(func(r *http.Request) bool { return !remotestest.Tokens()(r) }, remotestest.Error(403, "DENIED", "not this one"))
			for i := range 5 {
				reg.ResetRequests()
				e := failure(t, ask(c), errdefs.ErrPermissionDenied)
				if e.Status != http.StatusForbidden {
					t.Errorf("%s, %s: status %d", name, op, e.Status)
				}
				most := 1
				if i == 0 && name != "basic" {
					most = 2 // its token was not fresh
				}
				if op == "referrers" {
					most++ // by tag
				}
				if n := len(statuses(reg)); n > most {
					t.Errorf("%s, %s, call %d: %d requests, want at most %d", name, op, i, n, most)
				}
			}
		}
	}
}

// TestForbiddenUnasked has a registry forbid without having asked.
func TestForbiddenUnasked(t *testing.T) {
	t.Parallel()
	reg, _ := withImage(t)
	reg.Fault(remotestest.Any(), remotestest.Error(403, "DENIED", "no"))
	k := keys(alice())
	e := failure(t, resolve(soon(t), with(t, k, reg.URL())), errdefs.ErrPermissionDenied)
	if len(k.lookUps()) != 0 || len(reg.Requests()) != 1 || strings.Contains(e.Error(), "credential") {
		t.Errorf("%v after %d look-ups and %d requests, want 0 and 1", e, len(k.lookUps()), len(reg.Requests()))
	}
}

// TestNoCredentialKnown says where to name one.
func TestNoCredentialKnown(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		opt  remotestest.Option
		cred []Credential
		want string
	}{
		"basic":    {remotestest.WithBasic("alice", secretA), nil, "no credential is known for "},
		"bearer":   {remotestest.WithUser("alice", secretA), nil, "no credential is known for "},
		"identity": {remotestest.WithBasic("alice", secretA), []Credential{{Secret: secretA}}, "wants a user name and a password"},
	} {
		reg, img := withImage(t, tc.opt)
		for op, ask := range operations(t, img) {
			c := with(t, keys(tc.cred...), reg.URL())
			for range 2 {
				reg.ResetRequests()
				e := failure(t, ask(c), errdefs.ErrPermissionDenied)
				if !strings.Contains(e.Error(), tc.want) || !strings.Contains(e.Error(), reg.Host()) || !strings.Contains(e.Error(), "docs/credentials.md") {
					t.Errorf("%s, %s: %v, want %q and where to read on", name, op, e, tc.want)
				}
				if n := reg.Count("", "/manifests/v1"); name != "bearer" && n > 1 {
					t.Errorf("%s, %s: %d requests, want no second one without anything to show", name, op, n)
				}
			}
		}
		if err := resolve(soon(t), clientOf(t, reg)); name != "identity" && !strings.Contains(fmt.Sprint(err), tc.want) {
			t.Errorf("%s, without Credentials: %v, want %q", name, err, tc.want)
		}
	}
	reg, _ := withImage(t, remotestest.WithToken())
	reg.Fault(remotestest.Tokens(), remotestest.Error(403, "DENIED", "no"))
	err := resolve(soon(t), clientOf(t, reg))
	if !strings.Contains(fmt.Sprint(err), "no token: no credential is known for "+reg.Host()) {
		t.Errorf("refused by the token service: %v", err)
	}
}

// TestBlobResumesWithNewToken cuts a blob whose token is not good any more.
func TestBlobResumesWithNewToken(t *testing.T) {
	t.Parallel()
	for _, opts := range [][]remotestest.Option{
		{remotestest.WithUser("alice", secretA)},
		{remotestest.WithUser("alice", secretA), remotestest.WithForbiddenExpired()},
	} {
		reg, img := withImage(t, opts...)
		cut := remotestest.CutBody(100_000)
		reg.Fault(remotestest.Blobs(), remotestest.Times(1, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			reg.RevokeTokens()
			cut(w, r, next)
		}))
		data, _, err := readBlob(t, with(t, keys(alice()), reg.URL()), "team/app", layer(img), 0)
		if err != nil || len(data) != len(layer(img).Data) {
			t.Errorf("%d bytes, %v", len(data), err)
		}
	}
}

// TestForbiddenThenMoved sends a request again after a 403, and is redirected
// within the registry: the new token goes along.
func TestForbiddenThenMoved(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t, remotestest.WithUser("alice", secretA), remotestest.WithForbiddenExpired())
	there := fmt.Sprintf("/v2/team/app/blobs/%s?moved=1", layer(img).Descriptor.Digest)
	reg.Fault(func(r *http.Request) bool { return remotestest.Blobs()(r) && !r.URL.Query().Has("moved") }, remotestest.RedirectTo(there))
	c := with(t, keys(alice()), reg.URL())
	for range 2 {
		if data, _, err := readBlob(t, c, "team/app", layer(img), 0); err != nil || len(data) != len(layer(img).Data) {
			t.Errorf("%d bytes, %v", len(data), err)
		}
		reg.RevokeTokens()
	}
}

// TestManyCallersOneToken lets many callers find a cold upstream at once.
func TestManyCallersOneToken(t *testing.T) {
	t.Parallel()
	const callers = 100
	reg, _ := withImage(t, remotestest.WithUser("alice", secretA))
	release := make(chan struct{})
	reg.Fault(remotestest.Tokens(), remotestest.GateHeader(release))
	c := with(t, &gate{Credentials: keys(alice()), left: callers, open: release}, reg.URL())
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			if err := resolve(soon(t), c); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	n := 0
	for _, q := range reg.Requests() {
		if q.Path == "/token" {
			n++
			if username, _, _ := (&http.Request{Header: q.Header}).BasicAuth(); username != "alice" {
				t.Errorf("a token was asked for %q", username)
			}
		}
	}
	if n != 1 {
		t.Errorf("%d token requests, want 1", n)
	}
}

// gate opens when so many have looked up.
type gate struct {
	Credentials
	mu   sync.Mutex
	left int
	open chan struct{}
}

func (g *gate) Credential(ctx context.Context, host, repository string) (Credential, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.left--; g.left == 0 {
		close(g.open)
	}
	return g.Credentials.Credential(ctx, host, repository)
}

// TestForeignChallenge has a blob's store, another origin, ask for the
// credential.
func TestForeignChallenge(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t, remotestest.WithUser("alice", secretA))
	store, _ := withImage(t, remotestest.WithBasic("alice", secretA))
	reg.Fault(remotestest.Blobs(), remotestest.RedirectHost(store.URL()))
	k := keys(alice())
	c := newPool(t, Options{Named: endpoints(t, reg.URL(), store.URL()), Credentials: k}).Client(endpoint(t, reg.URL()))
	_, _, err := readBlob(t, c, "team/app", layer(img), 0)
	if e := failure(t, err, errdefs.ErrPermissionDenied); !strings.Contains(e.Error(), store.Host()+" answered 401") {
		t.Errorf("%v, want that the store refuses", e)
	}
	for _, q := range store.Requests() {
		if q.Header.Get("Authorization") != "" {
			t.Errorf("the store was shown %v", q.Header)
		}
	}
	// A link that is refused is asked for anew.
	if n := len(store.Requests()); n != 2 || len(k.refusals()) != 0 {
		t.Errorf("the store got %d requests, want 2; refused %v", n, k.refusals())
	}
	// What the store forbids is not the registry's doing.
	forbidding, _ := withImage(t)
	forbidding.Fault(remotestest.Any(), remotestest.Error(403, "X", "expired"))
	moved, _ := withImage(t, remotestest.WithUser("alice", secretA))
	moved.Fault(remotestest.Blobs(), remotestest.RedirectHost(forbidding.URL()))
	c2 := newPool(t, Options{Named: endpoints(t, moved.URL(), forbidding.URL()), Credentials: keys(alice())}).Client(endpoint(t, moved.URL()))
	for range 3 {
		_, _, err = readBlob(t, c2, "team/app", layer(img), 0)
		if e := failure(t, err, errdefs.ErrPermissionDenied); strings.Contains(e.Error(), "credential") {
			t.Errorf("%v, want no word of the credential", e)
		}
	}
	if n, m := len(forbidding.Requests()), moved.Count("", "/token"); n != 6 || m != 1 {
		t.Errorf("the store got %d requests and the token service %d, want 6 and 1", n, m)
	}
	req := request(t, store.URL()+"/v2/")
	if err := c.newSession("team/app").Authorize(soon(t), req); err != nil || req.Header.Get("Authorization") != "" {
		t.Errorf("a request to the store was authorized: %v", err)
	}
}

// TestUpstreamRepeatsSecrets has a registry and its token service say in
// errors what they were shown.
func TestUpstreamRepeatsSecrets(t *testing.T) {
	t.Parallel()
	echo := func(w http.ResponseWriter, req *http.Request, status int) {
		username, password, _ := req.BasicAuth()
		said := fmt.Sprintf("%s %s %s %s", req.Header.Get("Authorization"), username, password, req.PostFormValue("refresh_token"))
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Basic error=%q`, said))
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"errors":[{"code":"X","message":"you said %s"}]}`, said)
	}
	img := image(1)
	for _, status := range []int{400, 401, 403, 500} {
		for _, at := range []string{"basic", "token", "registry"} {
			var url string
			url = serve(t, func(w http.ResponseWriter, req *http.Request) {
				switch {
				case req.URL.Path == "/token" && at == "token", req.URL.Path != "/token" && req.Header.Get("Authorization") != "":
					echo(w, req, status)
				case req.URL.Path == "/token":
					fmt.Fprint(w, `{"access_token":"`+secretB+`"}`)
				case at == "basic":
					w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
					w.WriteHeader(http.StatusUnauthorized)
				default:
					w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token"`, url))
					w.WriteHeader(http.StatusUnauthorized)
				}
			})
			for op, ask := range operations(t, img) {
				for _, cred := range []Credential{alice(), {Secret: secretA}} {
					err := ask(with(t, keys(cred), url))
					if _, ok := errors.AsType[*Error](err); !ok {
						t.Fatalf("%s at %s, %d: %v", op, at, status, err)
					}
					for _, secret := range []string{secretA, secretB, "YWxpY2U6aHVudGVyMi1maXJzdA"} {
						if strings.Contains(err.Error(), secret) {
							t.Errorf("%s at %s, %d: %v", op, at, status, err)
						}
					}
				}
			}
		}
	}
}
