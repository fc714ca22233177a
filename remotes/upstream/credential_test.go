package upstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
)

const (
	secretA = "hunter2-first"
	secretB = "hunter2-second"
)

func alice() Credential { return Credential{Username: "alice", Secret: secretA} }
func bob() Credential   { return Credential{Username: "bob", Secret: secretB} }

// keychain are Credentials that count. It gives the first one, for any
// repository, until that is refused and there is a next one.
type keychain struct {
	mu      sync.Mutex
	all     []Credential
	err     error
	asked   []string
	refused []Credential
}

func keys(all ...Credential) *keychain { return &keychain{all: all} }

func (k *keychain) Credential(ctx context.Context, host, repository string) (Credential, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked = append(k.asked, host+"/"+repository)
	if k.err != nil || ctx.Err() != nil || len(k.all) == 0 {
		return Credential{}, errors.Join(k.err, ctx.Err())
	}
	return k.all[0], nil
}

func (k *keychain) Refuse(_, _ string, refused Credential) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refused = append(k.refused, refused)
	if len(k.all) > 1 && k.all[0] == refused {
		k.all = k.all[1:]
	}
}

// rotate replaces what is given, and forgets what was counted.
func (k *keychain) rotate(all ...Credential) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.all, k.asked, k.refused = all, nil, nil
}

// lookUps and refusals since the last rotation.
func (k *keychain) lookUps() []string { k.mu.Lock(); defer k.mu.Unlock(); return slices.Clone(k.asked) }
func (k *keychain) refusals() []Credential {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.refused)
}

// with is a client of a registry that has credentials.
func with(t testing.TB, k Credentials, url string) *Client {
	t.Helper()
	return newPool(t, Options{Named: endpoints(t, url), Credentials: k}).Client(endpoint(t, url))
}

// statuses of the requests under /v2/, in order.
func statuses(reg *remotestest.Registry) (all []int) {
	for _, q := range reg.Requests() {
		if strings.HasPrefix(q.Path, "/v2/") {
			all = append(all, q.Status)
		}
	}
	return all
}

// refused are how many of them were 401 or 403.
func denials(reg *remotestest.Registry) (n int) {
	for _, code := range statuses(reg) {
		if code == http.StatusUnauthorized || code == http.StatusForbidden {
			n++
		}
	}
	return n
}

// TestNoChallengeNoLookUp asks a registry that wants nothing.
func TestNoChallengeNoLookUp(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t)
	k := keys(alice())
	c := with(t, k, reg.URL())
	for op, ask := range operations(t, img) {
		if err := ask(c); err != nil {
			t.Errorf("%s: %v", op, err)
		}
	}
	if got := k.lookUps(); len(got) != 0 {
		t.Errorf("looked up %v, want nothing", got)
	}
	for _, q := range reg.Requests() {
		if q.Header.Get("Authorization") != "" {
			t.Errorf("%s %s shows something", q.Method, q.Path)
		}
	}
}

// TestCredentialAnswersChallenge asks in every way: the first exchange is
// challenged, the others show at once what they have. Each looks up once, for
// the repository at the upstream.
func TestCredentialAnswersChallenge(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		opt    remotestest.Option
		cred   Credential
		tokens int
	}{
		"basic":    {remotestest.WithBasic("alice", secretA), alice(), 0},
		"bearer":   {remotestest.WithUser("alice", secretA), alice(), 1},
		"identity": {remotestest.WithUser("alice", secretA), Credential{Secret: secretA}, 1},
	} {
		reg := remotestest.New(t, tc.opt)
		img := image(1)
		reg.PutImage("prefix/team/app", "v1", img)
		k := keys(tc.cred)
		p := newPool(t, Options{Named: endpoints(t, reg.URL()), Credentials: k})
		c := p.Client(endpoint(t, reg.URL()+"/prefix"))
		n := 0
		for op, ask := range operations(t, img) {
			if err := ask(c); err != nil {
				t.Errorf("%s, %s: %v", name, op, err)
			}
			n++
			if got := k.lookUps(); len(got) != n || got[n-1] != reg.Host()+"/prefix/team/app" {
				t.Errorf("%s, %s: looked up %v, want %d times", name, op, got, n)
			}
		}
		// Referrers are asked by tag too, which is not there.
		if n := denials(reg); n != 1 || statuses(reg)[0] != http.StatusUnauthorized {
			t.Errorf("%s: got %v, want a challenge first and then none", name, statuses(reg))
		}
		if n := reg.Count("", "/token"); n != tc.tokens {
			t.Errorf("%s: %d token requests, want %d", name, n, tc.tokens)
		}
		if got := k.refusals(); len(got) != 0 {
			t.Errorf("%s: %v was refused", name, got)
		}
	}
}

// TestCredentialRotates gives another credential later on: it is shown at
// once, and what the old one got is left alone.
func TestCredentialRotates(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		option func(username, password string) remotestest.Option
		tokens int
	}{"basic": {remotestest.WithBasic, 0}, "bearer": {remotestest.WithUser, 1}} {
		reg, _ := withImage(t, tc.option("alice", secretA))
		k := keys(alice())
		c := with(t, k, reg.URL())
		for _, cred := range []Credential{alice(), bob()} {
			if err := resolve(soon(t), c); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			reg.SetUser("bob", secretB)
			k.rotate(bob())
			if cred == alice() {
				reg.ResetRequests()
			}
		}
		if n := denials(reg); n != 0 || reg.Count("", "/token") != tc.tokens {
			t.Errorf("%s: %d refusals and %d token requests, want 0 and %d", name, n, reg.Count("", "/token"), tc.tokens)
		}
	}
}

// owners is a registry where a repository opens to the token, or the password,
// of its owner only.
func owners(t *testing.T, basic bool, of map[string]Credential) (url string, tokens *sync.Map) {
	t.Helper()
	tokens = &sync.Map{}
	url = serve(t, func(w http.ResponseWriter, req *http.Request) {
		username, password, _ := req.BasicAuth()
		if req.URL.Path == "/token" {
			scope := strings.Join(req.URL.Query()["scope"], " ")
			tokens.Store(username+" "+scope, true)
			fmt.Fprintf(w, `{"token":"%s-%s"}`, username, password)
			return
		}
		parts := strings.Split(req.URL.Path, "/")
		owner := of[parts[2]]
		if basic && (Credential{Username: username, Secret: password}) == owner ||
			!basic && req.Header.Get("Authorization") == fmt.Sprintf("Bearer %s-%s", owner.Username, owner.Secret) {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		challenge := fmt.Sprintf(`Bearer realm="%s/token",service=s,scope="repository:%s/app:pull"`, url, parts[2])
		if basic {
			challenge = `Basic realm="x"`
		}
		w.Header().Set("WWW-Authenticate", challenge)
		w.WriteHeader(http.StatusUnauthorized)
	})
	return url, tokens
}

// byRepository are Credentials by the first part of the repository.
type byRepository map[string]Credential

func (b byRepository) Credential(_ context.Context, _, repository string) (Credential, error) {
	owner, _, _ := strings.Cut(repository, "/")
	return b[owner], nil
}

func (byRepository) Refuse(string, string, Credential) {}

// TestCredentialPerRepository has two credentials for one host. Each goes to
// its own repository, by turns, and so do their tokens.
func TestCredentialPerRepository(t *testing.T) {
	t.Parallel()
	of := map[string]Credential{"a": alice(), "b": bob()}
	for _, basic := range []bool{true, false} {
		url, tokens := owners(t, basic, of)
		c := with(t, byRepository(of), url)
		for range 3 {
			for owner := range of {
				if _, err := c.Resolve(soon(t), owner+"/app", "v1"); !errdefs.IsNotFound(err) {
					t.Errorf("basic %t, %s: %v, want not found", basic, owner, err)
				}
			}
		}
		tokens.Range(func(key, _ any) bool {
			if key != "alice repository:a/app:pull" && key != "bob repository:b/app:pull" {
				t.Errorf("a token was asked for %q", key)
			}
			return true
		})
	}
}

// TestAs shows the credential of a caller, and not the Pool's; neither gets
// what the other one was given.
func TestAs(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]remotestest.Option{
		"basic": remotestest.WithBasic("alice", secretA), "bearer": remotestest.WithUser("alice", secretA),
	} {
		reg, img := withImage(t, opt)
		k := keys(alice())
		c := with(t, k, reg.URL())
		if err := resolve(soon(t), c); err != nil {
			t.Fatal(err)
		}
		k.rotate(alice())
		reg.ResetRequests()
		for op, ask := range operations(t, img) {
			for who, own := range map[string]*Client{"bob": c.As(bob()), "nobody": c.As(Credential{})} {
				if err := ask(own); !errdefs.IsPermissionDenied(err) {
					t.Errorf("%s, %s as %s: %v, want permission denied", name, op, who, err)
				}
			}
			if err := ask(c.As(alice())); err != nil {
				t.Errorf("%s, %s as its owner: %v", name, op, err)
			}
		}
		if got := k.lookUps(); len(got) != 0 {
			t.Errorf("%s: the Pool's credentials were asked: %v", name, got)
		}
		if err := resolve(soon(t), c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLookUpFails fails the source of credentials. That says nothing of the
// upstream, and is not remembered.
func TestLookUpFails(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t, remotestest.WithUser("alice", secretA))
	for op, ask := range operations(t, img) {
		k := keys(alice())
		c := with(t, k, reg.URL())
		k.err = fmt.Errorf("helper exited 1: %w", errdefs.ErrNotFound)
		for range 2 * failuresToOpen {
			e := failure(t, ask(c), errdefs.ErrUnavailable)
			if !strings.Contains(e.Error(), "look up the credential for "+reg.Host()+": helper exited 1") || errdefs.IsNotFound(e) {
				t.Errorf("%s: %v, want the reason", op, e)
			}
		}
		if n := len(k.lookUps()); n != 2*failuresToOpen {
			t.Errorf("%s: %d look-ups, want one an exchange", op, n)
		}
		k.err = nil
		if err := ask(c); err != nil {
			t.Errorf("%s, when it is back: %v", op, err)
		}
	}
}

// TestLookUpEndsWithCaller looks up with the caller's context.
func TestLookUpEndsWithCaller(t *testing.T) {
	t.Parallel()
	reg, _ := withImage(t, remotestest.WithBasic("alice", secretA))
	c := with(t, waiting{}, reg.URL())
	ctx, cancel := context.WithCancel(soon(t))
	done := make(chan error, 1)
	go func() { done <- resolve(ctx, c) }()
	if err := reg.Await(soon(t), func(all []remotestest.Request) bool { return len(all) > 0 && all[0].Done }); err != nil {
		t.Fatal(err)
	}
	cancel()
	if e := failure(t, <-done, errdefs.ErrUnavailable); !errors.Is(e, context.Canceled) {
		t.Errorf("error is %v, want canceled", e)
	}
}

// waiting are Credentials that never come.
type waiting struct{}

func (waiting) Credential(ctx context.Context, _, _ string) (Credential, error) {
	<-ctx.Done()
	return Credential{}, ctx.Err()
}
func (waiting) Refuse(string, string, Credential) {}

// TestCredentialText formats credentials, and what holds them, in every way.
func TestCredentialText(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	c := named(t).Client(Endpoint{Scheme: "https", Host: "a.example"}).As(alice())
	c.tokens.kept.Add("k", newToken("personal-1", 0, time.Now()))
	for _, v := range []any{alice(), new(alice()), struct{ C Credential }{alice()}, []Credential{alice()}, Credential{Secret: secretA}, c, *c, c.tokens} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
			fmt.Fprintf(&log, verb+"\n", v)
		}
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
	}
	for _, secret := range []string{secretA, "personal-"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%q is in the text:\n%s", secret, log.String())
		}
	}
	if got := alice().String(); got != "credential of alice" {
		t.Errorf("got %q", got)
	}
}
