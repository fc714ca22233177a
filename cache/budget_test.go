package cache

import "testing"

func TestAllowance(t *testing.T) {
	t.Parallel()
	const gib = 1 << 30
	for name, c := range map[string]struct {
		budget Budget
		onDisk int64
		free   int64 // of 100 GiB
		want   int64
		bound  string
	}{
		"none":             {Budget{}, 5 * gib, 10 * gib, unbounded, ""},
		"bytes":            {Budget{MaxSize: Amount{Bytes: 20 * gib}}, 5 * gib, 50 * gib, 20 * gib, boundSize},
		"percent":          {Budget{MaxSize: Amount{Percent: 30}}, 5 * gib, 50 * gib, 30 * gib, boundSize},
		"disk is smaller":  {Budget{MaxSize: Amount{Percent: 30}}, 5 * gib, 10 * gib, 15 * gib, boundDisk},
		"free":             {Budget{MinFree: Amount{Percent: 20}}, 5 * gib, 50 * gib, 35 * gib, boundFree},
		"free bytes":       {Budget{MinFree: Amount{Bytes: 10 * gib}}, 5 * gib, 50 * gib, 45 * gib, boundFree},
		"others took all":  {Budget{MaxSize: Amount{Percent: 30}, MinFree: Amount{Percent: 20}}, 5 * gib, 1 * gib, 0, boundFree},
		"others took some": {Budget{MaxSize: Amount{Percent: 30}, MinFree: Amount{Percent: 20}}, 5 * gib, 18 * gib, 3 * gib, boundFree},
		"both":             {Budget{MaxSize: Amount{Percent: 30}, MinFree: Amount{Percent: 20}}, 5 * gib, 60 * gib, 30 * gib, boundSize},
	} {
		got, bound := c.budget.allowance(c.onDisk, Free{Total: 100 * gib, Bytes: c.free})
		if got != c.want || bound != c.bound {
			t.Errorf("%s: %d by %q, want %d by %q", name, got, bound, c.want, c.bound)
		}
	}
	if b := (Budget{High: 0.5}).withDefaults(); b.High != 0.5 || b.Low != 0.5 {
		t.Errorf("marks are %+v, want low not above high", b)
	}
}
