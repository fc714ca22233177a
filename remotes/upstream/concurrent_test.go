package upstream

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
)

// TestTokenOutlivesCaller cancels the caller whose token request others wait
// for, and one of those who wait.
func TestTokenOutlivesCaller(t *testing.T) {
	t.Parallel()
	reg, _ := withImage(t, remotestest.WithToken())
	release := make(chan struct{})
	reg.Fault(remotestest.Tokens(), remotestest.GateHeader(release))
	c := clientOf(t, reg)
	resolve := func(ctx context.Context) <-chan error {
		done := make(chan error, 1)
		go func() {
			_, err := c.Resolve(ctx, "team/app", "v1")
			done <- err
		}()
		return done
	}
	ctx, cancel := context.WithCancel(soon(t))
	defer cancel()
	first := resolve(ctx)
	if err := reg.Await(soon(t), func([]remotestest.Request) bool { return reg.Count("", "/token") > 0 }); err != nil {
		t.Fatal(err)
	}
	waits := &noticing{Context: soon(t), waits: make(chan struct{})}
	patient, other := resolve(waits), resolve(ctx)
	<-waits.waits
	cancel()
	for _, left := range []<-chan error{first, other} {
		if e := failure(t, <-left, errdefs.ErrUnavailable); !errors.Is(e, context.Canceled) {
			t.Errorf("who left got %v, want canceled", e)
		}
	}
	close(release)
	if err := <-patient; err != nil {
		t.Errorf("who stayed got %v", err)
	}
	if n := reg.Count("", "/token"); n != 1 {
		t.Errorf("%d token requests, want 1", n)
	}
}

// noticing tells when somebody waits for its end.
type noticing struct {
	context.Context
	once  sync.Once
	waits chan struct{}
}

func (c *noticing) Done() <-chan struct{} {
	c.once.Do(func() { close(c.waits) })
	return c.Context.Done()
}

// TestConcurrentUse pulls with many goroutines over one client.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t, remotestest.WithToken())
	c := clientOf(t, reg)
	var wg sync.WaitGroup
	for range 8 {
		for op, ask := range operations(t, img) {
			wg.Go(func() {
				for range 3 {
					if err := ask(c); err != nil {
						t.Errorf("%s: %v", op, err)
					}
				}
			})
		}
	}
	wg.Wait()
	if n := reg.Count("GET", "/token"); n != 1 {
		t.Errorf("%d token requests, want 1", n)
	}
}
