package remotes

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
)

var (
	errNo   = fmt.Errorf("status 401: %w", errdefs.ErrPermissionDenied)
	errGone = fmt.Errorf("status 404: %w", errdefs.ErrNotFound)
	errDown = fmt.Errorf("connection refused: %w", errdefs.ErrUnavailable)
)

// asked is an upstream that counts how often it is asked.
type asked struct {
	mu  sync.Mutex
	err error
	n   int
}

func (a *asked) question(context.Context, string) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.n++
	return "v1", a.err
}

func (a *asked) set(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = err
}

// want checks what admit says, and that upstream was asked n times in all.
func (a *asked) want(t *testing.T, g *grants, when string, want error, n int) {
	t.Helper()
	if err := g.admit(t.Context(), "a.example", "kim", "v1", time.Second, a.question); !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", when, err, want)
	}
	if a.n != n {
		t.Errorf("%s: upstream was asked %d times, want %d", when, a.n, n)
	}
}

// What upstream said holds for its time, and not longer.
func TestGrantHolds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, up := newGrants(Access{}), &asked{}
		up.want(t, g, "first", nil, 1)
		pass(5*time.Minute - time.Nanosecond)
		up.want(t, g, "remembered", nil, 1)
		pass(time.Nanosecond)
		up.want(t, g, "asked again", nil, 2)
		pass(4 * time.Minute)
		up.want(t, g, "remembered from there", nil, 2)
	})
}

// While upstream cannot be asked the last yes holds for the grace, counted from
// when it was said, and no longer.
func TestGrantGrace(t *testing.T) {
	t.Parallel()
	for _, down := range []error{errDown, fmt.Errorf("status 429: %w", errdefs.ErrResourceExhausted), errors.New("anything")} {
		synctest.Test(t, func(t *testing.T) {
			g, up := newGrants(Access{}), &asked{}
			up.want(t, g, "first", nil, 1)
			up.set(down)
			pass(5 * time.Minute)
			up.want(t, g, "upstream is down", nil, 2)
			up.want(t, g, "and is not asked for a moment", nil, 2)
			pass(10 * time.Second)
			up.want(t, g, "and then is again", nil, 3)
			pass(55*time.Minute - 10*time.Second - time.Nanosecond)
			up.want(t, g, "the last moment of the grace", nil, 4)
			pass(time.Nanosecond)
			up.want(t, g, "the grace is over", down, 5)
			up.want(t, g, "nothing of that is remembered", down, 6)
			up.set(nil)
			up.want(t, g, "upstream is back", nil, 7)
		})
	}
}

// A refusal takes the grant back at once, whatever would be left of its grace,
// and is remembered for a moment.
func TestGrantRevoked(t *testing.T) {
	t.Parallel()
	for _, refusal := range []error{errNo, errGone} {
		synctest.Test(t, func(t *testing.T) {
			g, up := newGrants(Access{}), &asked{}
			up.want(t, g, "first", nil, 1)
			up.set(refusal)
			pass(5 * time.Minute)
			up.want(t, g, "refused", refusal, 2)
			up.want(t, g, "remembered", refusal, 2)
			up.set(errDown)
			pass(10 * time.Second)
			up.want(t, g, "no grace is left", errDown, 3)
			up.set(nil)
			up.want(t, g, "accepted again", nil, 4)
		})
	}
}

func TestGrantDropped(t *testing.T) {
	t.Parallel()
	g, up := newGrants(Access{}), &asked{}
	up.want(t, g, "first", nil, 1)
	g.drop("kim")
	up.want(t, g, "dropped", nil, 2)
}

// That one manifest is not there says nothing of another; that a secret is
// wrong does.
func TestRefusalIsAbout(t *testing.T) {
	t.Parallel()
	g := newGrants(Access{})
	says := func(err error) question {
		return func(context.Context, string) (string, error) { return "", err }
	}
	admit := func(who, about string, says question) error {
		return g.admit(t.Context(), "a.example", who, about, 0, says)
	}
	for _, about := range []string{"", "gone"} {
		if err := admit("kim", about, says(errGone)); !errors.Is(err, errGone) {
			t.Errorf("%q: %v", about, err)
		}
		if err := admit("kim", about, says(nil)); !errors.Is(err, errGone) {
			t.Errorf("%q again: %v, want it remembered", about, err)
		}
	}
	if err := admit("kim", "there", says(nil)); err != nil {
		t.Errorf("another manifest: %v", err)
	}
	if err := admit("eve", "there", says(errNo)); !errors.Is(err, errNo) {
		t.Errorf("wrong secret: %v", err)
	}
	if err := admit("eve", "other", says(nil)); !errors.Is(err, errNo) {
		t.Errorf("wrong secret, another manifest: %v, want it remembered", err)
	}
	if err := admit("kim", "other", says(errNo)); err != nil {
		t.Errorf("another secret: %v", err)
	}
}

// All who ask at once cause one question. It outlives who caused it, and what
// it was about decides for nobody who asked for something else.
func TestVerificationIsShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGrants(Access{})
		release := make(chan error)
		var mu sync.Mutex
		var questions []string
		ask := func(about string) question {
			return func(ctx context.Context, _ string) (string, error) {
				mu.Lock()
				questions = append(questions, about)
				mu.Unlock()
				select {
				case err := <-release:
					return about, err
				case <-ctx.Done():
					return "", ctx.Err()
				}
			}
		}
		ctx, leave := context.WithCancel(t.Context())
		first := make(chan error, 1)
		go func() { first <- g.admit(ctx, "a.example", "kim", "gone", 0, ask("gone")) }()
		synctest.Wait()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if err := g.admit(t.Context(), "a.example", "kim", "there", 0, ask("there")); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		leave()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("who left got %v", err)
		}
		release <- errGone
		release <- nil
		wg.Wait()
		mu.Lock()
		defer mu.Unlock()
		if got := strings.Join(questions, " "); got != "gone there" {
			t.Errorf("upstream was asked about %q, want each once", got)
		}
	})
}

// An upstream that is silent does not keep those waiting who have a grace.
func TestGraceIsImpatient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, up := newGrants(Access{}), &asked{}
		up.want(t, g, "first", nil, 1)
		pass(6 * time.Minute)
		start := time.Now()
		silent := func(ctx context.Context, _ string) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		}
		if err := g.admit(t.Context(), "a.example", "kim", "v1", time.Second, silent); err != nil {
			t.Error(err)
		}
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("waited %s, want 1s", waited)
		}
		// Who has none waits as long as it can.
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		if err := g.admit(ctx, "a.example", "eve", "v1", time.Second, silent); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without a grace: %v", err)
		}
		if waited := time.Since(start); waited != 5*time.Second {
			t.Errorf("waited %s in all, want 5s", waited)
		}
		synctest.Wait()
		pass(checkTimeout) // the questions end by themselves
	})
}

// Who tries secrets costs upstream few requests at a time, fills no memory, and
// does not drive out who has the right one.
func TestGrantsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, up := newGrants(Access{}), &asked{}
		up.want(t, g, "first", nil, 1)
		var mu sync.Mutex
		now, most := 0, 0
		var wg sync.WaitGroup
		for i := range maxRefusals + maxVerifications {
			wg.Go(func() {
				err := g.admit(t.Context(), "a.example", fmt.Sprint("eve", i), "v1", 0, func(context.Context, string) (string, error) {
					mu.Lock()
					now++
					most = max(most, now)
					mu.Unlock()
					pass(time.Millisecond)
					mu.Lock()
					now--
					mu.Unlock()
					return "", errNo
				})
				if !errors.Is(err, errNo) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if most != maxVerifications {
			t.Errorf("%d questions at a time, want %d", most, maxVerifications)
		}
		if n := g.refusals.entries.Len(); n > maxRefusals {
			t.Errorf("%d refusals are remembered, want at most %d", n, maxRefusals)
		}
		up.want(t, g, "who is right", nil, 1)
	})
}

func TestMac(t *testing.T) {
	t.Parallel()
	g := newGrants(Access{})
	seen := map[string][]string{}
	for _, texts := range [][]string{{"a", "b"}, {"ab", ""}, {"", "ab"}, {"ab"}, {"b", "a"}, {}, {""}} {
		key := g.mac(texts...)
		if other, ok := seen[key]; ok {
			t.Errorf("%q and %q have one key", texts, other)
		}
		seen[key] = texts
		if key != g.mac(texts...) {
			t.Errorf("%q has two keys", texts)
		}
	}
	if g.mac("a") == newGrants(Access{}).mac("a") {
		t.Error("two processes have one key")
	}
}

// pass lets time pass, which costs none in a synctest bubble.
func pass(d time.Duration) { <-time.After(d) }
