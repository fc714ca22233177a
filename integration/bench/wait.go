package main

import (
	"context"
	"time"
)

// poll waits for a state of another process, which offers no event to wait for. A wait
// that runs out is an error.
func poll(ctx context.Context, ok func() bool) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
