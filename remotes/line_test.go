package remotes

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/containerd/errdefs"
)

// An upstream that is slow, or whose secrets are being guessed, keeps nobody
// from being verified at another; and those who wait are not without number.
func TestVerificationsOfHosts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, up := newGrants(Access{}), &asked{}
		release := make(chan struct{})
		var wg sync.WaitGroup
		for i := range maxVerifications + maxUnverified {
			wg.Go(func() {
				if err := g.admit(t.Context(), "slow.example", fmt.Sprint("eve", i), "v1", 0, func(context.Context, string) (string, error) {
					<-release
					return "", errNo
				}); !errors.Is(err, errNo) {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		up.want(t, g, "at another host", nil, 1)
		if err := g.admit(t.Context(), "slow.example", "ann", "v1", 0, up.question); !errdefs.IsUnavailable(err) {
			t.Errorf("one more: %v, want unavailable", err)
		}
		close(release)
		wg.Wait()
		synctest.Wait()
		if len(g.lines) != 0 {
			t.Errorf("%d lines are left", len(g.lines))
		}
		if err := g.admit(t.Context(), "slow.example", "ann", "v1", 0, up.question); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}
