package upstream

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
)

const pause = 10 * time.Second

// passes reports whether the breaker lets an exchange with this end through.
func passes(b *breaker, v verdict) bool {
	return !errors.Is(b.do(func() verdict { return v }), circuitbreaker.ErrOpen)
}

// TestBreakerOpensOnFailures needs five failures in a row, or one silence.
func TestBreakerOpensOnFailures(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		before []verdict
		open   bool
	}{
		"nothing":               {nil, false},
		"four failures":         {[]verdict{failing, failing, failing, failing}, false},
		"five failures":         {[]verdict{failing, failing, failing, failing, failing}, true},
		"five, one alive":       {[]verdict{failing, failing, alive, failing, failing, failing}, false},
		"five, one unknown":     {[]verdict{failing, failing, unknown, failing, failing, failing}, true},
		"one silence":           {[]verdict{silent}, true},
		"silence after success": {[]verdict{alive, alive, alive, silent}, true},
		"many callers left":     {[]verdict{unknown, unknown, unknown, unknown, unknown, unknown}, false},
	} {
		b := newBreaker(pause)
		for _, v := range tc.before {
			if !passes(b, v) {
				t.Errorf("%s: open too early", name)
			}
		}
		if open := !passes(b, alive); open != tc.open {
			t.Errorf("%s: open is %t, want %t", name, open, tc.open)
		}
	}
}

// TestBreakerLetsOneThrough waits for the pause's end, in the bubble's time.
func TestBreakerLetsOneThrough(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(pause)
		passes(b, silent)
		<-time.After(pause * 8 / 10)
		if passes(b, alive) {
			t.Error("passes before the pause is over")
		}
		<-time.After(pause * 4 / 10)
		release, done := make(chan verdict), make(chan error, 1)
		go func() { done <- b.do(func() verdict { return <-release }) }()
		synctest.Wait()
		for range 3 {
			if passes(b, alive) {
				t.Error("a second exchange passes beside the first")
			}
		}
		release <- silent
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if passes(b, alive) {
			t.Error("passes although the upstream is silent still")
		}
		<-time.After(pause * 12 / 10)
		probe := passes(b, alive)
		if after := passes(b, alive); !probe || !after {
			t.Error("does not pass after the upstream came back")
		}
		if !passes(b, failing) || !passes(b, alive) {
			t.Error("one failure opens a breaker that had closed")
		}
	})
}

// TestBreakerReturnsPermit ends the one exchange of the half-open breaker
// without a verdict: the next caller must get its permit.
func TestBreakerReturnsPermit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(pause)
		passes(b, silent)
		<-time.After(2 * pause)
		for range 3 {
			if !passes(b, unknown) {
				t.Fatal("the permit of a caller who left is lost")
			}
		}
		func() {
			defer func() { _ = recover() }()
			_ = b.do(func() verdict { panic("exchange") })
		}()
		if !passes(b, alive) {
			t.Error("the permit of a panic is lost")
		}
		if !passes(b, alive) {
			t.Error("the breaker is not closed by success")
		}
	})
}

// TestBreakerLateLeaver leaves an exchange that had begun before the breaker
// opened: it must not give a second permit.
func TestBreakerLateLeaver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(pause)
		start := func() (chan verdict, chan error) {
			release, done := make(chan verdict), make(chan error, 1)
			go func() { done <- b.do(func() verdict { return <-release }) }()
			synctest.Wait()
			return release, done
		}
		early, earlyDone := start()
		passes(b, silent)
		<-time.After(2 * pause)
		probe, probeDone := start()
		early <- unknown
		if err := <-earlyDone; err != nil {
			t.Error(err)
		}
		if passes(b, alive) {
			t.Error("a second exchange passes beside the probe")
		}
		probe <- alive
		if err := <-probeDone; err != nil {
			t.Error(err)
		}
		if !passes(b, alive) {
			t.Error("closed breaker does not pass")
		}
	})
}
