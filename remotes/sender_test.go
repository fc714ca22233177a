package remotes

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-project/larder/remotes/upstream"
	"github.com/opencontainers/go-digest"
)

func TestSendersOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b, c := upstream.Endpoint{Host: "a"}, upstream.Endpoint{Host: "b"}, upstream.Endpoint{Host: "c"}
		route := []upstream.Endpoint{a, b, c}
		s := newSenders()
		text := func() (out string) {
			for _, ep := range s.order(emptyDigest, route) {
				out += ep.Host
			}
			return out
		}
		if got := text(); got != "abc" {
			t.Errorf("at first: %s, want the route's order", got)
		}
		s.note(emptyDigest, a)
		if got := text(); got != "bca" {
			t.Errorf("after a sent: %s, want it last", got)
		}
		s.note(emptyDigest, upstream.Endpoint{Host: "gone from the route"})
		if got := text(); got != "abc" {
			t.Errorf("after a stranger sent: %s, want the route's order", got)
		}
		s.note(emptyDigest, b)
		<-time.After(senderMemory + 1)
		if got := text(); got != "abc" {
			t.Errorf("long after b sent: %s, want the route's order", got)
		}
		if route[0] != a || route[2] != c {
			t.Error("the route itself was changed")
		}
		for i := range 2 * maxSenders {
			s.note(digest.FromString(fmt.Sprint(i)), a)
		}
		if s.last.Len() > maxSenders {
			t.Errorf("%d blobs are remembered, want at most %d", s.last.Len(), maxSenders)
		}
	})
}
