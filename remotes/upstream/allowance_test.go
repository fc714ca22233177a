package upstream

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestParseAllowance reads what registries and the drafts say, and refuses
// what is no number.
func TestParseAllowance(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	for name, tc := range map[string]struct {
		header map[string]string
		want   allowance
		ok     bool
	}{
		"Docker Hub": {
			map[string]string{"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "76;w=21600", "docker-ratelimit-source": "192.0.2.7"},
			allowance{limit: 100, remaining: 76, window: 6 * time.Hour, source: "192.0.2.7"}, true,
		},
		"window beside the limit only": {
			map[string]string{"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "76"},
			allowance{limit: 100, remaining: 76, window: 6 * time.Hour}, true,
		},
		"draft": {
			map[string]string{"RateLimit-Limit": "100, 100;w=60", "RateLimit-Remaining": "0", "RateLimit-Reset": "17"},
			allowance{limit: 100, reset: 17 * time.Second}, true,
		},
		"X, reset as a time": {
			map[string]string{"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "59", "X-RateLimit-Reset": "1800000090"},
			allowance{limit: 60, remaining: 59, reset: 90 * time.Second}, true,
		},
		"reset in the past": {
			map[string]string{"X-RateLimit-Remaining": "59", "X-RateLimit-Reset": "1700000000"},
			allowance{limit: -1, remaining: 59}, true,
		},
		"absurd spans": {
			map[string]string{"ratelimit-remaining": "1;w=999999999999", "ratelimit-reset": "999999999"},
			allowance{limit: -1, remaining: 1, window: maxAllowanceWindow, reset: maxAllowanceWindow}, true,
		},
		"limit that is none": {
			map[string]string{"ratelimit-limit": "many", "ratelimit-remaining": "1;w=x"},
			allowance{limit: -1, remaining: 1}, true,
		},
		"limit alone":     {map[string]string{"ratelimit-limit": "100;w=21600"}, allowance{}, false},
		"negative":        {map[string]string{"ratelimit-remaining": "-1;w=21600"}, allowance{}, false},
		"no number":       {map[string]string{"ratelimit-remaining": "0x10"}, allowance{}, false},
		"overflow":        {map[string]string{"ratelimit-remaining": "99999999999999999999"}, allowance{}, false},
		"more than means": {map[string]string{"ratelimit-remaining": "1000000001"}, allowance{}, false},
		"nothing":         {nil, allowance{}, false},
	} {
		h := http.Header{}
		for k, v := range tc.header {
			h.Set(k, v)
		}
		if got, ok := parseAllowance(h, now); got != tc.want || ok != tc.ok {
			t.Errorf("%s: got %+v, %t, want %+v, %t", name, got, ok, tc.want, tc.ok)
		}
	}
}

func FuzzParseAllowance(f *testing.F) {
	f.Add("100;w=21600", "76;w=21600", "60", "192.0.2.7")
	f.Add("100, 100;w=60", "1;;w=;w=5", strconv.Itoa(1<<62), strings.Repeat("\x00é", 200))
	f.Fuzz(func(t *testing.T, limit, remaining, reset, source string) {
		h := http.Header{"Ratelimit-Limit": {limit}, "Ratelimit-Remaining": {remaining}, "X-Ratelimit-Reset": {reset}, "Docker-Ratelimit-Source": {source}}
		a, ok := parseAllowance(h, time.Unix(1_800_000_000, 0))
		switch {
		case !ok && a != allowance{}:
			t.Errorf("refused, and is %+v", a)
		case a.limit < -1 || a.limit > maxAllowance || a.remaining < 0 || a.remaining > maxAllowance:
			t.Errorf("counts: %+v", a)
		case a.window < 0 || a.window > maxAllowanceWindow || a.reset < 0 || a.reset > maxAllowanceWindow:
			t.Errorf("spans: %+v", a)
		case len(a.source) > maxSource+len("…") || strings.ContainsAny(a.source, "\x00\n\x1b"):
			t.Errorf("source is %q", a.source)
		}
	})
}
