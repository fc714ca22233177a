package doctor

import (
	"slices"
	"testing"
)

func TestLeast(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		b                  Budget
		free, stored, want int64
	}{
		"the floor holds":            {Budget{MaxSize: 300, MinFree: 200}, 400, 0, 200},
		"the size holds":             {Budget{MaxSize: 300, MinFree: 200}, 800, 0, 500},
		"what is stored counts":      {Budget{MaxSize: 300, MinFree: 200}, 500, 200, 400},
		"the floor is under water":   {Budget{MaxSize: 300, MinFree: 200}, 100, 0, 200},
		"no floor, and a large size": {Budget{MaxSize: 900}, 500, 0, 0},
	} {
		if got := c.b.Least(c.free, c.stored); got != c.want {
			t.Errorf("%s: got %d, want %d", name, got, c.want)
		}
	}
}

func TestReached(t *testing.T) {
	t.Parallel()
	images, pods := Threshold{Free: 160, Setting: "gc"}, Threshold{Free: 100, Setting: "evict"}
	for least, want := range map[int64][]Threshold{160: nil, 159: {images}, 100: {images}, 99: {images, pods}} {
		if got := Reached(least, []Threshold{images, pods}); !slices.Equal(got, want) {
			t.Errorf("%d free: got %v, want %v", least, got, want)
		}
	}
}

func TestParseShare(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{"15%": 150, "0%": 0, "100%": 1000, "2.5%": 25, "1Gi": 1 << 30, "100Mi": 100 << 20, "20GiB": 20 << 30, "1G": 1e9, "512": 512} {
		if got, err := ParseShare(text, 1000); got != want || err != nil {
			t.Errorf("%s: got %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "%", "-1%", "101%", "NaN%", "many", "-5Gi"} {
		if got, err := ParseShare(text, 1000); err == nil {
			t.Errorf("%q: got %d, want an error", text, got)
		}
	}
}
