package cache

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// TestHold stops the watchdog's clock while the source waits for reasons of its
// own, when it opens and between two pieces. The time before and after counts
// together.
func TestHold(t *testing.T) {
	t.Parallel()
	policy := FillPolicy{Stall: 30 * time.Second, MinSpeed: 1 << 10, Attempts: 1}
	data, dgst := blobOf(1, 90<<10)
	for name, tc := range map[string]struct {
		before, held, after time.Duration
		stored              bool
	}{
		"long wait":       {time.Second, time.Hour, time.Second, true},
		"just in time":    {10 * time.Second, time.Hour, 19 * time.Second, true},
		"too slow beside": {10 * time.Second, time.Hour, 21 * time.Second, false},
		"no wait":         {10 * time.Second, 0, 21 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				s := openStore(t, root, WithFillPolicy(policy))
				wait := func(ctx context.Context) error {
					if err := sleep(ctx, tc.before); err != nil {
						return err
					}
					resume := Hold(ctx)
					err := sleep(ctx, tc.held)
					resume()
					return errors.Join(err, sleep(ctx, tc.after))
				}
				src := sourceFunc(func(ctx context.Context, offset int64) (Stream, error) {
					if err := wait(ctx); err != nil {
						return Stream{}, err
					}
					body := &heldBody{ctx: ctx, data: data[offset:], wait: wait}
					return Stream{Body: body, Size: int64(len(data)), Upstream: "upstream.test"}, nil
				})
				if err := startFill(t, s, dgst, -1, src).Wait(t.Context()); (err == nil) != tc.stored {
					t.Errorf("fill: %v, stored is %t, want %t", err, err == nil, tc.stored)
				}
			})
		})
	}
	Hold(t.Context())() // nobody's
}

// heldBody sends 30 KiB at a time, and waits before all but the first.
type heldBody struct {
	ctx  context.Context
	data []byte
	wait func(context.Context) error
	sent int
}

func (b *heldBody) Read(p []byte) (int, error) {
	if len(b.data) == 0 {
		return 0, io.EOF
	}
	if b.sent > 0 {
		if err := b.wait(b.ctx); err != nil {
			return 0, err
		}
	}
	n := copy(p[:min(len(p), 30<<10)], b.data)
	b.data, b.sent = b.data[n:], b.sent+n
	return n, nil
}

func (b *heldBody) Close() error { return nil }
