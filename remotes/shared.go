package remotes

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/singleflight"
)

// checkTimeout bounds what is asked of upstreams for clients that wait, with all
// upstreams and the download of a manifest: nobody waits that long, but the next
// pull may use it.
const checkTimeout = 30 * time.Second

// shared is work that clients wait for, done once for all who want the same at
// the time. The zero shared is ready; it is safe for concurrent use.
type shared[T any] struct{ running singleflight.Group }

// haste is how long somebody waits who can do without.
type haste struct {
	most time.Duration
	// ended, if set, is called when that was not enough, and what it returns
	// when the work is over.
	ended func() (done func())
}

// do begins the work of a key, or joins it, and waits: as long as ctx lasts and,
// unless p is nil, no longer than that. mine says that this call began it. The
// error is the work's, with whatever value came with it; errdefs.ErrUnavailable
// if haste ended it, or the context's, and then it says what was waited for.
func (s *shared[T]) do(ctx context.Context, key, what string, p *haste, work func(context.Context) (T, error)) (value T, mine bool, err error) {
	began := false // set by the work before its result is sent
	results := s.running.DoChan(key, func() (any, error) {
		began = true
		// It serves all who wait and those who come later: it does not end with
		// the client that happened to begin it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTimeout)
		defer cancel()
		return work(ctx)
	})
	var expired <-chan time.Time
	if p != nil {
		t := time.NewTimer(p.most)
		defer t.Stop()
		expired = t.C
	}
	select {
	case res := <-results:
		return res.Val.(T), began, res.Err
	case <-expired:
		if p.ended != nil {
			done := p.ended()
			go func() { // ends with the work, which checkTimeout bounds
				<-results
				done()
			}()
		}
		return value, false, fmt.Errorf("%s takes longer than a pull waits for it, and goes on: %w", what, errdefs.ErrUnavailable)
	case <-ctx.Done():
		return value, false, fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
}
