package upstream

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
)

// TestRetryAfterIsKept counts the requests to an upstream that asked to be left
// alone, and to its token service.
func TestRetryAfterIsKept(t *testing.T) {
	t.Parallel()
	later := http.Header{"Retry-After": {"120"}}
	for name, tc := range map[string]struct {
		match remotestest.Match
		fault remotestest.FaultFunc
		kind  error
	}{
		"429":               {remotestest.Manifests(), remotestest.Status(429, later, ""), errdefs.ErrResourceExhausted},
		"503":               {remotestest.Manifests(), remotestest.Status(503, later, ""), errdefs.ErrUnavailable},
		"429 of the tokens": {remotestest.Tokens(), remotestest.Status(429, later, ""), errdefs.ErrResourceExhausted},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg, img := withImage(t, remotestest.WithToken())
			p := newPool(t, Options{Named: endpoints(t, reg.URL())})
			c := p.Client(endpoint(t, reg.URL()))
			remove := reg.Fault(tc.match, tc.fault)
			if e := failure(t, resolve(soon(t), c), tc.kind); e.Unasked || e.RetryAfter != 2*time.Minute {
				t.Errorf("the first one: %+v", e)
			}
			remove()
			reg.ResetRequests()
			for range 3 {
				for op, ask := range operations(t, img) {
					e := failure(t, ask(c), tc.kind)
					if !e.Unasked || e.Status != 0 || e.RetryAfter > 2*time.Minute || e.RetryAfter < time.Minute || !strings.Contains(e.Error(), "asked to be left alone until 2") {
						t.Errorf("%s: %+v: %v", op, e, e)
					}
				}
			}
			if n := len(reg.Requests()); n != 0 {
				t.Errorf("upstream saw %d requests, want 0", n)
			}
			// What was not sent is no answer, and no failure for the breaker.
			if a := entry(t, p).Answers; a.OK != 0 || a.Limited+a.Failed != 1 {
				t.Errorf("answers are %+v, want one", a)
			}
			now := time.Now()
			if limit := c.forbids(purpose{}, now.Add(119*time.Second)); limit == nil {
				t.Error("may be asked before the time")
			}
			if limit := c.forbids(purpose{}, now.Add(2*time.Minute)); limit != nil {
				t.Errorf("may not be asked after the time: %v", limit)
			}
			if err := c.Spare(now); !errdefs.IsUnavailable(err) && !errdefs.IsResourceExhausted(err) {
				t.Errorf("has something to spare: %v", err)
			}
		})
	}
}

// TestRetryAfterOfOthers is not the upstream's own: a host behind a redirect,
// and another account.
func TestRetryAfterOfOthers(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t, remotestest.WithBasic("alice", "canary"))
	cdn, _ := withImage(t)
	cdn.Fault(remotestest.Any(), remotestest.TooManyRequests(time.Hour))
	redirect := reg.Fault(remotestest.Blobs(), remotestest.RedirectHost(cdn.URL()))
	c := named(t, reg.URL(), cdn.URL()).Client(endpoint(t, reg.URL()))
	alice := c.As(Credential{Username: "alice", Secret: "canary"})
	_, _, err := readBlob(t, alice, "team/app", layer(img), 0)
	redirect()
	failed(t, err, errdefs.ErrResourceExhausted)
	if err := resolve(soon(t), alice); err != nil {
		t.Errorf("the storage's limit counts for the registry: %v", err)
	}
	remove := reg.Fault(remotestest.Any(), remotestest.TooManyRequests(time.Hour))
	failed(t, resolve(soon(t), alice), errdefs.ErrResourceExhausted)
	remove()
	if e := failure(t, resolve(soon(t), alice), errdefs.ErrResourceExhausted); !e.Unasked {
		t.Errorf("alice is limited, and was asked for: %v", e)
	}
	reg.SetUser("bob", "canary")
	if err := resolve(soon(t), c.As(Credential{Username: "bob", Secret: "canary"})); err != nil {
		t.Errorf("one account's limit counts for another: %v", err)
	}
}

// TestMaintenanceIsBounded: a 503 may say anything.
func TestMaintenanceIsBounded(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := newSite("h.example", Host{}, Options{})
	s.noteEnd(Anonymous, &Error{Status: 503, RetryAfter: maxRetryAfter, kind: errdefs.ErrUnavailable}, now)
	if s.resting(Anonymous, now.Add(maxAlone-time.Second)) == nil || s.resting(Anonymous, now.Add(maxAlone)) != nil {
		t.Errorf("left alone until %s", s.ledger()[0].AloneUntil.Sub(now))
	}
	// A shorter one that comes later does not end it.
	s.noteEnd(Anonymous, &Error{Status: 503, RetryAfter: time.Second, kind: errdefs.ErrUnavailable}, now)
	if s.resting(Anonymous, now.Add(time.Minute)) == nil {
		t.Error("ended early")
	}
}

// TestSpare says what may be spent for a check, and what for a miss.
func TestSpare(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		limit, remaining string
		spare, miss      bool
	}{
		"much":            {"100;w=60", "76;w=60", true, true},
		"above":           {"100;w=60", "6;w=60", true, true},
		"at the reserve":  {"100;w=60", "5;w=60", false, true},
		"one":             {"100;w=60", "1;w=60", false, true},
		"none":            {"100;w=60", "0;w=60", false, false},
		"no limit told":   {"", "5;w=60", false, true},
		"small limit":     {"4;w=60", "3;w=60", true, true},
		"half of small":   {"4;w=60", "2;w=60", false, true},
		"no window":       {"100", "0", true, true},
		"nothing":         {"", "", true, true},
		"limit of none":   {"0;w=60", "0;w=60", false, false},
		"what is no word": {"x", "y", true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg, img := withImage(t)
			reg.Fault(remotestest.Any(), func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				w.Header().Set("ratelimit-limit", tc.limit)
				w.Header().Set("ratelimit-remaining", tc.remaining)
				next.ServeHTTP(w, r)
			})
			c := newPool(t, Options{Named: endpoints(t, reg.URL()), Reserve: 5}).Client(endpoint(t, reg.URL()))
			if err := resolve(soon(t), c); err != nil {
				t.Fatal(err)
			}
			now := time.Now()
			err := c.Spare(now)
			if (err == nil) != tc.spare {
				t.Errorf("spare: %v, want %t", err, tc.spare)
			}
			if err != nil {
				e := failure(t, err, errdefs.ErrResourceExhausted)
				if !e.Unasked || e.RetryAfter <= 0 || e.RetryAfter > time.Minute || !strings.Contains(e.Error(), "upstream allows ") {
					t.Errorf("%+v: %v", e, e)
				}
			}
			if err := resolve(soon(t), c); (err == nil) != tc.miss {
				t.Errorf("miss: %v, want %t", err, tc.miss)
			}
			// Blobs are not counted: what was allowed must be completed.
			if _, _, err := readBlob(t, c, "team/app", layer(img), 0); err != nil {
				t.Errorf("blob: %v", err)
			}
			if err := c.Spare(now.Add(2 * time.Minute)); err != nil {
				t.Errorf("after the window: %v", err)
			}
		})
	}
}

// TestRestBeginsAmidExchange: between its token and its request, an exchange
// learns that others were told to wait. That is no failure of the upstream.
func TestRestBeginsAmidExchange(t *testing.T) {
	t.Parallel()
	reg, _ := withImage(t, remotestest.WithToken())
	release := make(chan struct{})
	reg.Fault(remotestest.Tokens(), remotestest.GateHeader(release))
	c := clientOf(t, reg)
	done := make(chan error, 1)
	go func() { done <- resolve(soon(t), c) }()
	if err := reg.Await(soon(t), func([]remotestest.Request) bool { return reg.Count("", "/token") > 0 }); err != nil {
		t.Fatal(err)
	}
	c.site.noteEnd(Anonymous, &Error{Status: 503, RetryAfter: time.Hour, kind: errdefs.ErrUnavailable}, time.Now())
	close(release)
	err := <-done
	if e := failure(t, err, errdefs.ErrUnavailable); !e.Unasked || judge(t.Context(), e, err) != unknown {
		t.Errorf("%+v, verdict %d", e, judge(t.Context(), e, err))
	}
	if n := len(reg.Requests()); n != 2 {
		t.Errorf("%d requests, want 2: the challenge and the token", n)
	}
}
