package credentials

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

// oracle answers questions as a test says, and counts them.
type oracle struct {
	mu    sync.Mutex
	asked int
	life  time.Duration
	takes time.Duration
	err   error
}

// ask answers v1, v2 and so on.
func (o *oracle) ask(ctx context.Context) (string, time.Duration, error) {
	o.mu.Lock()
	o.asked++
	value, life, takes, err := fmt.Sprintf("v%d", o.asked), o.life, o.takes, o.err
	o.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return "", 0, ctx.Err()
	}
	if err != nil {
		return "", 0, err
	}
	return value, life, nil
}

func (o *oracle) set(f func(*oracle)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f(o)
}

func testMemory() (*memory[string], *logs) {
	l := &logs{}
	return newMemory[string]("test", 10*time.Second, l.reporter()), l
}

// expect gets a value, and lets what runs behind it end.
func expect(t *testing.T, m *memory[string], o *oracle, value string, asked int) func() {
	t.Helper()
	got, refuse, err := m.get(t.Context(), "k", o.ask)
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	if got != value || err != nil || o.asked != asked {
		t.Errorf("got %q, %v after %d questions, want %q after %d", got, err, o.asked, value, asked)
	}
	return refuse
}

func TestRefreshAtHalfLife(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, _ := testMemory()
		o := &oracle{life: 12 * time.Hour}
		expect(t, m, o, "v1", 1)
		<-time.After(6*time.Hour - time.Second)
		expect(t, m, o, "v1", 1)
		<-time.After(time.Second)
		expect(t, m, o, "v1", 2) // at once, and asked behind it
		expect(t, m, o, "v2", 2)
		<-time.After(13 * time.Hour)
		o.set(func(o *oracle) { o.takes = time.Second })
		expect(t, m, o, "v3", 3) // expired: waited for
	})
}

func TestStaleWhenRefreshFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, l := testMemory()
		o := &oracle{life: time.Hour}
		expect(t, m, o, "v1", 1)
		o.set(func(o *oracle) { o.err = fmt.Errorf("broken: %w", errdefs.ErrUnavailable) })
		<-time.After(31 * time.Minute)
		expect(t, m, o, "v1", 2)
		expect(t, m, o, "v1", 2) // the failure is not repeated at once
		<-time.After(failurePause)
		expect(t, m, o, "v1", 3)
		<-time.After(48 * time.Hour)
		expect(t, m, o, "v1", 4) // expired, and still better than nothing
		if n := strings.Count(l.String(), "not renewed"); n != 2 {
			t.Errorf("logged %d times, want once in %s:\n%s", n, quiet, l)
		}
		o.set(func(o *oracle) { o.err = nil })
		<-time.After(failurePause)
		expect(t, m, o, "v5", 5)
	})
}

func TestFailureIsRememberedBriefly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, _ := testMemory()
		o := &oracle{life: time.Hour, err: errdefs.ErrUnavailable}
		for range 3 {
			if _, _, err := m.get(t.Context(), "k", o.ask); !errdefs.IsUnavailable(err) {
				t.Errorf("got %v, want the failure", err)
			}
		}
		if o.asked != 1 {
			t.Errorf("asked %d times, want once", o.asked)
		}
		<-time.After(failurePause)
		o.err = nil
		expect(t, m, o, "v2", 2)
	})
}

func TestNothingIsAnAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, _ := testMemory()
		o := &oracle{err: &noneError{"nothing there"}}
		nothing := func(asked int) {
			t.Helper()
			_, _, err := m.get(t.Context(), "k", o.ask)
			synctest.Wait()
			if _, ok := errors.AsType[*noneError](err); !ok || o.asked != asked {
				t.Errorf("got %v after %d questions, want nothing after %d", err, o.asked, asked)
			}
		}
		nothing(1)
		<-time.After(nothingLife - time.Second)
		o.set(func(o *oracle) { o.takes = 5 * time.Second })
		begun := time.Now()
		nothing(2)
		if waited := time.Since(begun); waited > 0 {
			t.Errorf("waited %s for nothing, want it at once", waited)
		}
		<-time.After(10 * time.Second)
	})
}

// What a source had and now has not may be a passing fault of the source.
func TestNothingDoesNotReplaceAValue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, _ := testMemory()
		o := &oracle{life: time.Hour}
		expect(t, m, o, "v1", 1)
		o.err = &noneError{"nothing there"}
		<-time.After(2 * time.Hour)
		expect(t, m, o, "v1", 2)
	})
}

func TestZeroLifeIsNotRemembered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, _ := testMemory()
		o := &oracle{}
		expect(t, m, o, "v1", 1)
		expect(t, m, o, "v2", 2)
		if e, _ := m.entries.Peek("k"); e.last.value != "" {
			t.Errorf("%q is remembered", e.last.value)
		}
	})
}

func TestManyCallersAskOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, _ := testMemory()
		o := &oracle{life: time.Hour, takes: time.Second}
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if got, _, err := m.get(t.Context(), "k", o.ask); got != "v1" || err != nil {
					t.Errorf("got %q, %v, want v1", got, err)
				}
			})
		}
		all.Wait()
		if o.asked != 1 {
			t.Errorf("asked %d times for 100 callers, want once", o.asked)
		}
	})
}

func TestCallerLeavesQuestionStays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, _ := testMemory()
		o := &oracle{life: time.Hour, takes: 5 * time.Second}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := m.get(ctx, "k", o.ask); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the caller's deadline", err)
		}
		<-time.After(5 * time.Second)
		expect(t, m, o, "v1", 1)
	})
}

func TestQuestionsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, _ := testMemory()
		var mu sync.Mutex
		running, most := 0, 0
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				_, _, _ = m.get(t.Context(), fmt.Sprint(i), func(ctx context.Context) (string, time.Duration, error) {
					mu.Lock()
					running++
					most = max(most, running)
					mu.Unlock()
					<-ctx.Done() // a program that hangs
					mu.Lock()
					running--
					mu.Unlock()
					return "", 0, ctx.Err()
				})
			})
		}
		begun := time.Now()
		all.Wait()
		if most != maxAsking {
			t.Errorf("%d questions ran at a time, want %d", most, maxAsking)
		}
		if took := time.Since(begun); took > m.limit {
			t.Errorf("took %s, want %s for all", took, m.limit)
		}
	})
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	m, _ := testMemory()
	o := &oracle{life: time.Hour}
	for i := range 2 * maxRemembered {
		if _, _, err := m.get(t.Context(), fmt.Sprint(i), o.ask); err != nil {
			t.Fatal(err)
		}
	}
	if n := m.entries.Len(); n != maxRemembered {
		t.Errorf("%d entries, want %d", n, maxRemembered)
	}
}

func TestRefusalForcesOneQuestion(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, _ := testMemory()
		o := &oracle{life: time.Hour}
		refuse1 := expect(t, m, o, "v1", 1)
		refuse1()
		refuse2 := expect(t, m, o, "v2", 2)
		refuse2() // too early
		expect(t, m, o, "v2", 2)
		<-time.After(refusalPause)
		refuse1() // of a value that is gone
		expect(t, m, o, "v2", 2)
		o.set(func(o *oracle) { o.err = errdefs.ErrUnavailable })
		refuse2()
		expect(t, m, o, "v2", 3) // no other can be had
	})
}
