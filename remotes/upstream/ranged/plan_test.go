package ranged

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestLeap: one connection is asked for what it brings alone while nothing else is
// tried, however fast several were before, and for no longer than until it can get
// help.
func TestLeap(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		running, target int
		want            int64
	}{
		"no more to be had": {running: 16, target: 16, want: 40e6},
		"more to be had":    {running: 2, target: 16, want: 10e6},
	} {
		synctest.Test(t, func(t *testing.T) {
			now := time.Now()
			g := &Governor{running: tc.running, target: tc.target, quiet: now.Add(2 * time.Second)}
			b := &Body{governor: g, began: now.Add(-time.Second), pos: 120e6, next: 120e6, size: 1 << 30, base: &slot{}, leapt: pace{bytes: 20e6, took: time.Second}}
			b.leap(b.base, now, false)
			if got := b.parts[0].left(); got != tc.want {
				t.Errorf("%s: a leap of %d bytes, want %d", name, got, tc.want)
			}
		})
	}
}
