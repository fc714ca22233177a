package upstream

import (
	"net/http"
	"strings"
	"time"
)

// Bounds of what a registry can say of its limits: nobody means more.
const (
	maxAllowance       = 1_000_000_000
	maxAllowanceWindow = 24 * time.Hour
	maxSource          = 100 // bytes of the text that says who is counted
)

// allowance is what a registry says it still gives to whom it counts.
type allowance struct {
	limit, remaining int64         // pulls; limit is -1 if not told
	window           time.Duration // over which it counts; 0 if not told
	reset            time.Duration // until it counts anew; 0 if not told
	source           string        // whom it counts, in its own words
}

// parseAllowance reads the headers of Docker Hub ("ratelimit-limit:
// 100;w=21600", documentation of Docker Hub, "Pull usage and limits"), of the
// drafts of RateLimit fields (draft-ietf-httpapi-ratelimit-headers-07:
// "RateLimit-Reset: 60"), and the X-RateLimit fields before them. It reports
// false if they do not say how much remains.
func parseAllowance(h http.Header, now time.Time) (allowance, bool) {
	get := func(name string) string {
		if v := h.Get("Ratelimit-" + name); v != "" {
			return v
		}
		return h.Get("X-Ratelimit-" + name)
	}
	a := allowance{limit: -1}
	var ok bool
	if a.remaining, a.window, ok = parseQuota(get("Remaining")); !ok {
		return allowance{}, false
	}
	if limit, window, ok := parseQuota(get("Limit")); ok {
		a.limit = limit
		if a.window == 0 {
			a.window = window
		}
	}
	a.reset = parseReset(get("Reset"), now)
	a.source = oneLine(h.Get("Docker-Ratelimit-Source"))
	if len(a.source) > maxSource {
		a.source = strings.ToValidUTF8(a.source[:maxSource], "")
	}
	return a, true
}

// parseQuota reads "100" or "100;w=21600", the first of a list.
func parseQuota(text string) (n int64, window time.Duration, ok bool) {
	text, _, _ = strings.Cut(text, ",")
	number, params, _ := strings.Cut(text, ";")
	n, err := parseSize(strings.TrimSpace(number))
	if err != nil || n > maxAllowance {
		return 0, 0, false
	}
	for param := range strings.SplitSeq(params, ";") {
		if value, found := strings.CutPrefix(strings.TrimSpace(param), "w="); found {
			window = seconds(value)
		}
	}
	return n, window, true
}

// parseReset reads seconds, or, as some registries mean it, a Unix time.
func parseReset(text string, now time.Time) time.Duration {
	n, err := parseSize(strings.TrimSpace(text))
	if err == nil && n > maxAllowance { // no span, then: 30 years
		return min(max(0, time.Unix(n, 0).Sub(now)), maxAllowanceWindow)
	}
	return seconds(text)
}

// seconds reads a span: 0 if it is none, at most maxAllowanceWindow.
func seconds(text string) time.Duration {
	n, err := parseSize(strings.TrimSpace(text))
	if err != nil {
		return 0
	}
	return time.Duration(min(n, int64(maxAllowanceWindow/time.Second))) * time.Second
}
