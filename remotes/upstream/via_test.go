package upstream

import (
	"fmt"
	"strings"
	"testing"
)

// TestViaIsPassedOn keeps the larders of a chain, and nothing else.
func TestViaIsPassedOn(t *testing.T) {
	t.Parallel()
	reg, _ := withImage(t)
	p := named(t, reg.URL())
	c := p.Client(endpoint(t, reg.URL()))
	own := "1.1 " + p.ID()
	var ring []string
	for i := range 3 * maxHops {
		ring = append(ring, fmt.Sprintf("1.1 larder-%d", i))
	}
	for name, tc := range map[string]struct {
		via  []string
		want string
	}{
		"none":      {nil, own},
		"larders":   {[]string{"1.1 larder-a", "1.1 larder-b,1.0 larder-c"}, "1.1 larder-a, 1.1 larder-b, 1.0 larder-c, " + own},
		"others":    {[]string{"1.1 proxy.corp (secret), 1.1 larder-a", "HTTP/1.1 larder-b, 1.1 larder-", "1.1 larder-a"}, "1.1 larder-a, " + own},
		"too long":  {[]string{"1.1 larder-" + strings.Repeat("a", 65)}, own},
		"a ring":    {ring, strings.Join(ring[2*maxHops:], ", ") + ", " + own},
		"malformed": {[]string{",,", "\x00, 1.1", "1.1 larder-A\r\nX: y"}, own},
	} {
		reg.ResetRequests()
		if _, err := c.Resolve(WithVia(soon(t), tc.via), "team/app", "v1"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, q := range reg.Requests() {
			if got := q.Header.Get("Via"); got != tc.want {
				t.Errorf("%s: Via is %q, want %q", name, got, tc.want)
			}
		}
	}
}
