package upstream

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
)

// memory is a registry without a network, so that a test can set the clock.
// Its tokens are good for as long as they say.
type memory struct {
	mu     sync.Mutex
	life   string // of the next token, as JSON after its value
	lasts  time.Duration
	down   bool // the token service
	given  int
	until  map[string]time.Time
	asked  int // the token service
	denied int
	wait   chan struct{} // that the token service waits for, if not nil
}

func (m *memory) RoundTrip(req *http.Request) (*http.Response, error) {
	if m.wait != nil && req.URL.Path == "/token" {
		<-m.wait
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if req.URL.Path == "/token" {
		m.asked++
	}
	w := httptest.NewRecorder()
	value, _ := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
	switch {
	case req.URL.Path == "/token" && m.down:
		w.WriteHeader(http.StatusServiceUnavailable)
	case req.URL.Path == "/token":
		m.given++
		token := fmt.Sprintf("t%d", m.given)
		m.until[token] = time.Now().Add(m.lasts)
		fmt.Fprintf(w, `{"token":%q%s}`, token, m.life)
	case !time.Now().Before(m.until[value]):
		m.denied++
		w.Header().Set("WWW-Authenticate", `Bearer realm="https://registry.example/token"`)
		w.WriteHeader(http.StatusUnauthorized)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
	resp := w.Result()
	resp.Request = req
	return resp, nil
}

// state is how many tokens were given, and how many requests refused.
func (m *memory) state() [2]int { m.mu.Lock(); defer m.mu.Unlock(); return [2]int{m.given, m.denied} }

// inMemory is a client of a registry without a network.
func inMemory(life string, lasts time.Duration) (*Client, *memory) {
	m := &memory{life: life, lasts: lasts, until: map[string]time.Time{}}
	g := &guard{base: m, wait: 10 * time.Second}
	o := Options{Credentials: keys(alice())}
	return newClient(Endpoint{Scheme: "https", Host: "registry.example"}, &Pool{options: o, guard: g}, newSite("registry.example", Host{}, o)), m
}

// TestTokenRenewedAtHalfLife uses tokens for a while. The next one is asked
// for in the second half of its life, while the old one is used; without
// expires_in a life is a minute.
func TestTokenRenewedAtHalfLife(t *testing.T) {
	t.Parallel()
	for life, lasts := range map[string]time.Duration{
		`,"expires_in":300`: 300 * time.Second, ``: time.Minute, `,"expires_in":0`: time.Minute, `,"expires_in":-5`: time.Minute,
		`,"expires_in":9000000000000000000`: maxTokenLife,
	} {
		synctest.Test(t, func(t *testing.T) {
			c, m := inMemory(life, lasts)
			step := func(want [2]int) {
				t.Helper()
				if err := resolve(t.Context(), c); !errdefs.IsNotFound(err) {
					t.Errorf("%s: %v, want not found", life, err)
				}
				synctest.Wait()
				if got := m.state(); got != want {
					t.Errorf("%s: %v tokens and refusals, want %v", life, got, want)
				}
			}
			pass := time.After
			step([2]int{1, 1}) // the challenge
			<-pass(lasts/2 - time.Second)
			step([2]int{1, 1})
			<-pass(time.Second)
			step([2]int{2, 1})
			<-pass(lasts/2 - time.Second)
			step([2]int{2, 1})
			<-pass(lasts) // idle beyond its end
			step([2]int{3, 1})
		})
	}
}

// TestOldTokenWhileServiceIsDown fails the token service at half life: the old
// token is used to its end, and the service is not asked at each request.
func TestOldTokenWhileServiceIsDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, m := inMemory(`,"expires_in":100`, 100*time.Second)
		if err := resolve(t.Context(), c); !errdefs.IsNotFound(err) {
			t.Fatal(err)
		}
		m.down = true
		for range 98 {
			<-time.After(time.Second)
			if err := resolve(t.Context(), c); !errdefs.IsNotFound(err) {
				t.Fatalf("within its life: %v, want not found", err)
			}
		}
		if m.asked > 10 {
			t.Errorf("the token service was asked %d times while it was down", m.asked)
		}
		<-time.After(2 * time.Second)
		if err := resolve(t.Context(), c); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "no token") {
			t.Errorf("beyond its life: %v, want no token", err)
		}
		m.down = false
		if err := resolve(t.Context(), c); !errdefs.IsNotFound(err) {
			t.Errorf("when the service is back: %v, want not found", err)
		}
	})
}

// TestRenewalIsNotWaitedFor hangs the token service at half life.
func TestRenewalIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, m := inMemory(`,"expires_in":100`, 100*time.Second)
		if err := resolve(t.Context(), c); !errdefs.IsNotFound(err) {
			t.Fatal(err)
		}
		<-time.After(60 * time.Second)
		m.wait = make(chan struct{})
		begun := time.Now()
		for range 10 {
			if err := resolve(t.Context(), c); !errdefs.IsNotFound(err) || time.Since(begun) != 0 {
				t.Errorf("%v after %s, want not found at once", err, time.Since(begun))
			}
		}
		close(m.wait)
		synctest.Wait()
		if got := m.state(); got != [2]int{2, 1} {
			t.Errorf("%v tokens and refusals, want 2 and 1", got)
		}
	})
}

// TestTokensAreBounded has more repositories than tokens are kept for.
func TestTokensAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, _ := inMemory("", time.Hour)
		for i := range 2 * maxTokens {
			if _, err := c.Resolve(t.Context(), fmt.Sprintf("team/app%d", i), "v1"); !errdefs.IsNotFound(err) {
				t.Fatal(err)
			}
		}
		if n := c.tokens.kept.Len(); n != maxTokens {
			t.Errorf("%d tokens are kept, want %d", n, maxTokens)
		}
	})
}

// TestRefreshLooksOnceMore finds the token of a request that ended between a
// caller's look and its request.
func TestRefreshLooksOnceMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, m := inMemory("", time.Hour)
		if err := resolve(t.Context(), c); !errdefs.IsNotFound(err) {
			t.Fatal(err)
		}
		key := c.tokens.kept.Keys()[0]
		got, err := c.tokens.refresh(t.Context(), key, tokenRequest{})
		if err != nil || got.value != "t1" || m.asked != 1 {
			t.Errorf("got %q after %d requests, %v, want t1 after 1", got.value, m.asked, err)
		}
	})
}

// TestRefusedTokenIsDroppedOnce does not drop what has replaced it.
func TestRefusedTokenIsDroppedOnce(t *testing.T) {
	t.Parallel()
	c, _ := inMemory("", time.Hour)
	c.tokens.kept.Add("k", newToken("new", 0, time.Now()))
	c.tokens.drop("k", "old")
	if !c.tokens.kept.Contains("k") {
		t.Error("the new one was dropped")
	}
	c.tokens.drop("k", "new")
	if c.tokens.kept.Contains("k") {
		t.Error("the refused one is kept")
	}
}

// TestTokenValueTooLarge refuses a token that no registry would read.
func TestTokenValueTooLarge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, _ := inMemory(`,"access_token":"`+strings.Repeat("x", maxTokenValue+1)+`"`, time.Hour)
		if err := resolve(t.Context(), c); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "token is longer than") {
			t.Errorf("%v, want that it is too long", err)
		}
	})
}
