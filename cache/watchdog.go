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
	end    time.Time // when the timer fires
	span   time.Duration
	need   int64 // bytes that buy another span
	got    int64 // bytes since the last one
}

type watchdogKey struct{}

func newWatchdog(ctx context.Context, p FillPolicy) *watchdog {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watchdog{cancel: cancel, end: time.Now().Add(p.Stall), span: p.Stall, need: p.spanBytes()}
	w.ctx = context.WithValue(ctx, watchdogKey{}, w)
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
		w.reset(w.span)
	}
}

func (w *watchdog) reset(left time.Duration) {
	w.end = time.Now().Add(left)
	w.timer.Reset(left)
}

// Hold stops the clock that measures the speed of a fill's attempt, until
// resume is called: for a Source that itself makes the attempt wait, such as
// for its turn. ctx is the one that Open was called with. Both are called by
// the goroutine that opens or reads. Without a fill it does nothing.
func Hold(ctx context.Context) (resume func()) {
	w, ok := ctx.Value(watchdogKey{}).(*watchdog)
	if !ok {
		return func() {}
	}
	left := time.Until(w.end)
	if !w.timer.Stop() {
		return func() {} // it is over
	}
	return func() { w.reset(left) }
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
