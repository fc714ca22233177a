package upstream

import (
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
)

// failuresToOpen is how many failures in a row, other than silence, open the
// breaker. They cost no time, so a few are borne.
const failuresToOpen = 5

// verdict is what an exchange says of its upstream.
type verdict int

const (
	failing verdict = iota // it cannot be reached, or answers 5xx
	alive                  // it answered sensibly, be it with a refusal
	silent                 // it did not answer in time
	unknown                // the caller left before one could tell
)

// breaker keeps larder off an upstream that does not answer. One silence
// opens it, since the next request would wait as long; it then lets one
// exchange through after each pause.
type breaker struct {
	mu      sync.Mutex // makes one step of a change and the look before it
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

// do runs one exchange; it fails with circuitbreaker.ErrOpen, and at once,
// while the breaker is open.
func (b *breaker) do(exchange func() verdict) error {
	probe, ok := b.enter()
	if !ok {
		return circuitbreaker.ErrOpen
	}
	// Also when the exchange panics: a permit that is not given back would
	// keep the breaker half-open for ever.
	v := unknown
	defer func() { b.leave(probe, v) }()
	v = exchange()
	return nil
}

// enter asks for a permit; probe says that it is the one of a pause's end.
func (b *breaker) enter() (probe, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ok = b.circuit.TryAcquirePermit()
	return ok && b.circuit.IsHalfOpen(), ok
}

func (b *breaker) leave(probe bool, v verdict) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch v {
	case alive:
		b.circuit.RecordSuccess()
	case failing:
		b.circuit.RecordFailure()
	case silent:
		b.circuit.RecordFailure()
		b.circuit.Open()
	case unknown:
		if probe && b.circuit.IsHalfOpen() {
			// Half-open anew, with a new permit: the next caller probes.
			b.circuit.Open()
			b.circuit.HalfOpen()
		}
	}
}
