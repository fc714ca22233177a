package ranged

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// run has all connections of a governor bring bytes for a while, each at a speed,
// and all together no faster than a bound.
func run(g *Governor, d time.Duration, single, shared float64) {
	const step = 10 * time.Millisecond
	for end := time.Now().Add(d); time.Now().Before(end); {
		<-time.After(step)
		g.mu.Lock()
		n := g.running
		g.mu.Unlock()
		speed := min(single*float64(n), shared)
		g.Received(int(speed * step.Seconds()))
	}
}

// grow takes all that the governor gives.
func grow(g *Governor) {
	for g.More() {
		g.Opened(10*time.Millisecond, true)
	}
}

// TestGovernor doubles connections as long as that is faster by a fifth.
func TestGovernor(t *testing.T) {
	t.Parallel()
	cores := float64(runtime.GOMAXPROCS(0))
	for name, tc := range map[string]struct {
		single, shared float64
		want           int
	}{
		"each is limited":      {3e6, 1e12, 64},
		"all together are":     {1e12, 20e6, 1},
		"both":                 {20e6, 80e6, 4},
		"worth a fifth more":   {20e6, 100e6, 8},
		"not worth a fifth":    {20e6, 90e6, 4},
		"one alone is fast":    {400e6, 1e12, 1},
		"all are fast":         {plenty * cores / 6, 1e12, 8},
		"too slow to be told":  {100, 1e12, 1},
		"slow, and each alone": {1e6, 1e12, 64},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := new(Governor)
				g.Join()
				g.Opened(10*time.Millisecond, true)
				for range 60 {
					if g.TooMany() && g.running > 1 {
						g.Leave()
						continue
					}
					if g.running < 64 {
						grow(g)
					}
					run(g, 100*time.Millisecond, tc.single, tc.shared)
				}
				for g.TooMany() && g.running > 1 {
					g.Leave()
				}
				if g.running < tc.want || tc.want < 64 && g.running != tc.want {
					t.Errorf("%d connections, want %d", g.running, tc.want)
				}
			})
		})
	}
}

// TestGovernorRests tries nothing for a while after it was wrong, and for longer
// after the upstream refused.
func TestGovernorRests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := new(Governor)
		g.Join()
		tries := 0
		watch := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); {
				if g.More() {
					tries++
					run(g, time.Second, 1e12, 20e6)
					g.Leave()
				}
				run(g, 100*time.Millisecond, 1e12, 20e6)
			}
		}
		watch(time.Minute)
		if tries < 6 || tries > 8 {
			t.Errorf("%d trials in the first minute on a line that all share, want them after 2, 4 and 8 seconds, and then every ten or so", tries)
		}
		tries = 0
		watch(time.Minute)
		if tries < 4 || tries > 6 {
			t.Errorf("%d trials in a minute later on, want one in ten seconds or so", tries)
		}
		tries = 0
		g.Refused()
		watch(backoff)
		if tries != 0 || g.Resting() != 0 {
			t.Errorf("%d trials in the minute after a refusal", tries)
		}
		watch(5 * time.Second)
		if tries != 1 {
			t.Errorf("%d trials afterwards, want 1", tries)
		}
	})
}

// TestGovernorOthers has bodies begin and end all the time: what they bring and
// take is not taken for the work of a connection more.
func TestGovernorOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := new(Governor)
		g.Join()
		for range 100 {
			if g.More() {
				t.Fatal("a connection was given without a comparison")
			}
			g.Join()
			run(g, 100*time.Millisecond, 20e6, 1e12)
			g.Leave()
			run(g, 100*time.Millisecond, 20e6, 1e12)
		}
		// They also make room: who came in addition goes first.
		run(g, time.Second, 20e6, 1e12)
		grow(g)
		run(g, 300*time.Millisecond, 20e6, 1e12)
		if g.TooMany() {
			t.Error("too many, although it was worth it")
		}
		for range 10 {
			g.Join()
		}
		if !g.TooMany() {
			t.Error("others came, and nobody makes room")
		}
	})
}

// TestGovernorGoesBack has a trial succeed by luck: what is slower afterwards than
// fewer were goes.
func TestGovernorGoesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := new(Governor)
		g.Join()
		g.More()
		run(g, 300*time.Millisecond, 20e6, 1e12)
		grow(g)
		run(g, 300*time.Millisecond, 20e6, 1e12)
		if g.TooMany() || g.running != 2 {
			t.Fatalf("%d connections", g.running)
		}
		run(g, 600*time.Millisecond, 1e12, 19e6)
		if !g.TooMany() || g.Resting() == 0 {
			t.Error("two that are slower than one was stay")
		}
	})
}

// TestGovernorForgets keeps what it found for those that come soon.
func TestGovernorForgets(t *testing.T) {
	t.Parallel()
	for after, want := range map[time.Duration]bool{memory / 2: true, memory + time.Second: false} {
		synctest.Test(t, func(t *testing.T) {
			g := new(Governor)
			g.Join()
			g.More()
			run(g, 300*time.Millisecond, 20e6, 1e12)
			grow(g)
			run(g, 300*time.Millisecond, 20e6, 1e12)
			g.Leave()
			g.Leave()
			<-time.After(after)
			g.Join()
			if got := g.More(); got != want {
				t.Errorf("after %s: %t, want %t", after, got, want)
			}
		})
	}
}

// TestGovernorSlowOpening gives a far upstream's connection time to begin.
func TestGovernorSlowOpening(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := new(Governor)
		g.Join()
		g.Opened(400*time.Millisecond, true)
		g.More()
		run(g, 1500*time.Millisecond, 20e6, 1e12)
		if g.More() {
			t.Error("it did not wait for four openings")
		}
		run(g, 200*time.Millisecond, 20e6, 1e12)
		if !g.More() {
			t.Error("no trial")
		}
	})
}
