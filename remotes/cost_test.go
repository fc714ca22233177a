package remotes

import (
	"strings"
	"testing"
	"time"

	"github.com/larder-project/larder/remotes/upstream"
)

func TestCostOf(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		pace upstream.Pace
		want float64
		why  string
	}{
		"unknown":  {upstream.Pace{}, 1, ""},
		"as usual": {upstream.Pace{Speed: 80 << 20}, 1, "quay.io gives 80 MiB/s"},
		"slow":     {upstream.Pace{Speed: 8 << 20}, 10, "quay.io gives 8.0 MiB/s"},
		"far":      {upstream.Pace{Speed: 80 << 20, Latency: 400 * time.Millisecond}, 3, "80 MiB/s"},
		"fast":     {upstream.Pace{Speed: 8 << 30}, 0.5, "GiB/s"},
		"crawling": {upstream.Pace{Speed: 1000}, mostCost, "1000 B/s"},
		"limited":  {upstream.Pace{Limited: true}, limitedCost, "quay.io limits pulls"},
	} {
		got := costOf("quay.io", c.pace)
		if got.Weight != c.want || !strings.Contains(got.Why, c.why) {
			t.Errorf("%s: %+v, want %v and %q", name, got, c.want, c.why)
		}
	}
}

// TestCostOfOffline: what may not be asked for again does not come back.
func TestCostOfOffline(t *testing.T) {
	t.Parallel()
	b, up := one(t, build(1), withSettings(t, Settings{Mode: ModeOffline}))
	if c := b.Cost(appRepo().String(), up.URL()); c.Weight != offlineCost {
		t.Errorf("cost is %+v", c)
	}
	if c := b.Cost("quay.io/other", "quay.io"); c.Weight != 1 {
		t.Errorf("cost is %+v", c)
	}
}
