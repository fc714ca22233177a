package upstream

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
)

// limits answers with headers as Docker Hub has them.
func limits(remaining int) remotestest.FaultFunc {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		hubLimits(w.Header(), remaining)
		next.ServeHTTP(w, r)
	}
}

func hubLimits(h http.Header, remaining int) {
	h.Set("ratelimit-limit", "100;w=21600")
	h.Set("ratelimit-remaining", fmt.Sprintf("%d;w=21600", remaining))
	h.Set("docker-ratelimit-source", "192.0.2.7")
}

// entry is the one account of a pool's ledger.
func entry(t *testing.T, p *Pool) Account {
	t.Helper()
	all := p.Ledger()
	if len(all) != 1 {
		t.Fatalf("ledger is %+v, want one account", all)
	}
	return all[0]
}

// TestLedgerCounts asks in every way, and lets upstream answer in every way.
func TestLedgerCounts(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t)
	p := named(t, reg.URL())
	c := p.Client(endpoint(t, reg.URL()))
	if all := p.Ledger(); len(all) != 0 {
		t.Errorf("before any request: %+v", all)
	}
	if err := c.Spare(time.Now()); err != nil || len(p.Ledger()) != 0 {
		t.Errorf("a question makes an entry: %v, %+v", err, p.Ledger())
	}
	reg.Fault(remotestest.Any(), limits(76))
	for op, ask := range operations(t, img) {
		if err := ask(c); err != nil {
			t.Errorf("%s: %v", op, err)
		}
	}
	a := entry(t, p)
	if want := (Answers{OK: 6}); a.Answers != want {
		t.Errorf("answers are %+v, want %+v", a.Answers, want)
	}
	if bodies := int64(len(layer(img).Data)) + 2*img.Root.Size; a.Bytes < bodies || a.Bytes > bodies+1000 {
		t.Errorf("%d bytes, want %d and a list or two", a.Bytes, bodies)
	}
	if a.Host != reg.Host() || a.Account != Anonymous || a.Source != "192.0.2.7" || *a.Limit != 100 || *a.Remaining != 76 || a.WindowSeconds != 21600 {
		t.Errorf("got %+v", a)
	}
	if left := time.Until(a.WindowEnd); left > 6*time.Hour || left < 5*time.Hour || time.Since(a.Seen) > time.Minute {
		t.Errorf("window ends in %s, seen %s", left, a.Seen)
	}
	for _, fault := range []remotestest.FaultFunc{
		remotestest.Error(404, "X", "x"), remotestest.Error(403, "X", "x"), remotestest.Error(401, "X", "x"),
		remotestest.TooManyRequests(0), remotestest.Error(500, "X", "x"), remotestest.Abort(),
	} {
		remove := reg.Fault(remotestest.Any(), fault)
		if err := resolve(soon(t), c); err == nil {
			t.Error("no error")
		}
		remove()
	}
	if got, want := entry(t, p).Answers, (Answers{OK: 6, NotFound: 1, Refused: 2, Limited: 1, Failed: 2}); got != want {
		t.Errorf("answers are %+v, want %+v", got, want)
	}
}

// TestLedgerAccounts keeps two users of one host apart, and their secrets out.
func TestLedgerAccounts(t *testing.T) {
	t.Parallel()
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		user, _, ok := r.BasicAuth()
		if !ok {
			hubLimits(w.Header(), 1) // not for whoever answers the challenge
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if user != "carol" {
			hubLimits(w.Header(), len(user))
		}
		w.Header().Set("docker-ratelimit-source", "\u202e"+strings.Repeat("long ", 1000))
		w.WriteHeader(http.StatusNotFound)
	})
	p := named(t, url)
	c := p.Client(endpoint(t, url))
	for _, user := range []string{"carol", "bob", "alice"} {
		if err := resolve(soon(t), c.As(Credential{Username: user, Secret: "canary"})); !errdefs.IsNotFound(err) {
			t.Error(err)
		}
	}
	all := p.Ledger()
	if len(all) != 3 || all[0].Remaining == nil || all[1].Remaining == nil || all[2].Remaining != nil || all[0].Account != "alice" || *all[0].Remaining != 5 || all[1].Account != "bob" || *all[1].Remaining != 3 {
		t.Errorf("got %+v", all)
	}
	data, err := json.Marshal(all)
	if text := string(data); err != nil || strings.Contains(text, "canary") || strings.Contains(text, "\u202e") || len(text) > 1500 {
		t.Errorf("%d bytes: %s, %v", len(data), data, err)
	}
	for cred, want := range map[Credential]string{{}: Anonymous, {Secret: "canary"}: "identity token", {Username: "a\nb", Secret: "canary"}: "a b"} {
		if got := accountOf(cred); got != want {
			t.Errorf("%v: got %q, want %q", cred, got, want)
		}
	}
}

// TestWindowEnd says when a window ends of which only the length is told.
func TestWindowEnd(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_800_000_000, 0)
	s := newSite("h.example", Host{}, Options{})
	for _, step := range []struct {
		after     time.Duration
		remaining int
		end       time.Duration
	}{
		{0, 90, 6 * time.Hour},
		{time.Hour, 80, 6 * time.Hour}, // the same window
		{2 * time.Hour, 80, 6 * time.Hour},
		{3 * time.Hour, 99, 9 * time.Hour}, // more than before: another one
		{10 * time.Hour, 50, 16 * time.Hour},
	} {
		h := http.Header{}
		hubLimits(h, step.remaining)
		s.noteHeaders(Anonymous, h, start.Add(step.after))
		if got := s.ledger()[0].WindowEnd.Sub(start); got != step.end {
			t.Errorf("%d left after %s: window ends after %s, want %s", step.remaining, step.after, got, step.end)
		}
	}
}

// TestLedgerIsBounded has more hosts and accounts than are remembered.
func TestLedgerIsBounded(t *testing.T) {
	t.Parallel()
	p := newPool(t, Options{})
	used := endpoint(t, "used.example")
	p.Client(used).site.noteEnd(Anonymous, nil, time.Now())
	for i := range 2 * maxClients {
		c := p.Client(Endpoint{Scheme: "https", Host: fmt.Sprintf("h%d.example", i)})
		if c.site != p.site(c.endpoint) {
			t.Fatal("a client and the pool disagree on the site")
		}
		c.site.noteEnd(Anonymous, nil, time.Now())
		p.Client(used)
	}
	all := p.Ledger()
	if len(all) > maxClients || !slices.ContainsFunc(all, func(a Account) bool { return a.Host == used.Host }) {
		t.Errorf("%d accounts, want at most %d, and the one that is in use", len(all), maxClients)
	}
	s := newSite("h.example", Host{}, Options{})
	now := time.Now()
	s.noteEnd("larder", &Error{Status: 429, RetryAfter: time.Hour, kind: errdefs.ErrResourceExhausted}, now)
	c := &Client{caller: true}
	for i := range 2 * maxAccounts {
		s.noteEnd(c.accountOf(Credential{Username: fmt.Sprint("eve", i), Secret: "x"}), nil, now)
	}
	if n := len(s.ledger()); n != maxAccounts+1 || s.resting("larder", now) == nil {
		t.Errorf("%d accounts, and larder's own is to rest: %v", n, s.resting("larder", now))
	}
	for i := range 2 * maxAccounts {
		s.noteEnd(fmt.Sprint("user", i), nil, time.Now())
	}
	if n := len(s.ledger()); n > 2*maxAccounts {
		t.Errorf("%d accounts of one host, want at most %d", n, 2*maxAccounts)
	}
}

// TestWrongSecretsStopNobody: who tries secrets under somebody's name, larder's
// or that of nobody, is told to wait, and nobody else.
func TestWrongSecretsStopNobody(t *testing.T) {
	t.Parallel()
	basic := remotestest.RequireBasic(func(_, password string) bool { return password == "canary" })
	for name, opts := range map[string][]remotestest.Option{"token": {remotestest.WithToken()}, "basic": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg, _ := withImage(t, opts...)
			later := remotestest.Status(http.StatusTooManyRequests, http.Header{"Retry-After": {"3600"}}, "")
			reg.Fault(remotestest.Any(), func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if _, password, ok := r.BasicAuth(); ok && password != "canary" {
					later(w, r, next)
					return
				}
				next.ServeHTTP(w, r)
			})
			if opts == nil {
				reg.Fault(remotestest.Manifests(), basic)
			}
			alice := Credential{Username: "alice", Secret: "canary"}
			p := newPool(t, Options{Named: endpoints(t, reg.URL()), Credentials: onlyThis(alice)})
			c := p.Client(endpoint(t, reg.URL()))
			for _, wrong := range []Credential{
				{Username: "alice", Secret: "wrong"}, {Username: "alice", Secret: "wronger"}, {Username: Anonymous, Secret: "wrong"},
			} {
				for range 2 {
					failed(t, resolve(soon(t), c.As(wrong)), errdefs.ErrResourceExhausted)
				}
				if e := failure(t, resolve(soon(t), c.As(wrong)), errdefs.ErrResourceExhausted); !e.Unasked {
					t.Errorf("%s was told to wait, and is asked for again: %v", wrong.Username, e)
				}
			}
			if err := c.Spare(time.Now()); err != nil {
				t.Errorf("larder itself: %v", err)
			}
			for who, right := range map[string]*Client{"larder itself": c, "who has the right secret": c.As(alice)} {
				if err := resolve(soon(t), right); err != nil {
					t.Errorf("%s: %v", who, err)
				}
			}
			// The ledger knows names, and each once.
			all := p.Ledger()
			if len(all) != 2 || all[0].Account != "alice" || all[1].Account != Anonymous || all[0].Answers.Limited != 2 || all[0].Answers.OK != 2 {
				t.Errorf("ledger is %+v", all)
			}
		})
	}
}
