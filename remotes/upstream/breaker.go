package upstream

import (
	"context"
	"errors"
	"time"

	"github.com/containerd/errdefs"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
)

// failuresToOpen is how many failures in a row, other than a time-out, open
// the breaker. They cost no time, so a few are borne.
const failuresToOpen = 5

// breaker keeps larder off an upstream that does not answer. One time-out
// opens it, since the next request would wait as long; it then lets one
// request through after each pause.
type breaker struct {
	circuit circuitbreaker.CircuitBreaker[any]
}

func newBreaker(pause time.Duration) *breaker {
	return &breaker{circuit: circuitbreaker.NewBuilder[any]().
		WithFailureThreshold(failuresToOpen).
		WithSuccessThreshold(1).
		WithDelay(pause).
		WithJitterFactor(0.1).
		Build()}
}

// do runs one exchange, or fails at once while the breaker is open.
func (b *breaker) do(ctx context.Context, exchange func() error) error {
	if !b.circuit.TryAcquirePermit() {
		return circuitbreaker.ErrOpen
	}
	err := exchange()
	switch {
	case timedOut(ctx, err):
		b.circuit.RecordFailure()
		b.circuit.Open()
	case isAlive(err):
		b.circuit.RecordSuccess()
	case ctx.Err() != nil && b.circuit.IsClosed():
		// The caller left: that says nothing of the upstream.
	default:
		b.circuit.RecordFailure()
	}
	return err
}

// isAlive reports whether the upstream answered sensibly, be it with a
// refusal. Refusals of our own say nothing against it either.
func isAlive(err error) bool {
	if err == nil || errors.As(err, new(*addressError)) || errors.Is(err, errdefs.ErrNotFound) {
		return true
	}
	e := newError("", "", "", err)
	return e.Status > 0 && e.Status < 500
}
