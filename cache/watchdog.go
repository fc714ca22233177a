package cache

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
)

// stallError says that an attempt was too slow. It is errdefs.ErrUnavailable.
type stallError struct {
	need int64
	span time.Duration
}

func (e *stallError) Error() string { return fmt.Sprintf("slower than %d bytes in %s", e.need, e.span) }
func (e *stallError) Unwrap() error { return errdefs.ErrUnavailable }

// watchdog ends an attempt that is slower than the policy allows: each span
// of policy.Stall must bring MinSpeed bytes for each of its seconds.
type watchdog struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	span   time.Duration
	need   int64 // bytes that buy another span
	got    int64 // bytes since the last one
}

func newWatchdog(ctx context.Context, p FillPolicy) *watchdog {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watchdog{ctx: ctx, cancel: cancel, span: p.Stall, need: p.spanBytes()}
	w.timer = time.AfterFunc(p.Stall, func() {
		cancel(&stallError{need: w.need, span: p.Stall})
	})
	return w
}

// progress is called by the one goroutine that reads.
func (w *watchdog) progress(n int) {
	w.got += int64(n)
	if w.got >= w.need {
		w.got = 0
		w.timer.Reset(w.span)
	}
}

// explain replaces "context canceled" by the reason for it.
func (w *watchdog) explain(err error) error {
	if w.ctx.Err() == nil {
		return err
	}
	return fmt.Errorf("%w (%w)", context.Cause(w.ctx), err)
}

func (w *watchdog) stop() {
	w.timer.Stop()
	w.cancel(nil)
}
