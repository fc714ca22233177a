package upstream

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/larder-project/larder/remotes/remotestest"
)

// TestBreakerOpensOnSilence is silent in every way that costs time, and wants
// that it costs it once.
func TestBreakerOpensOnSilence(t *testing.T) {
	t.Parallel()
	img := image(1)
	for name, fault := range map[string]remotestest.FaultFunc{
		"header": remotestest.Hang(), "body": remotestest.HangBody(1),
		"error body": func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			remotestest.HangBody(1)(w, r, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusTeapot)
				_, _ = w.Write([]byte("long"))
			}))
		},
	} {
		for op := range operations(t, img) {
			if name != "header" && (op == "resolve" || op == "blob") {
				continue // no body; a blob's body is the fill's to watch
			}
			t.Run(name+"/"+op, func(t *testing.T) {
				t.Parallel()
				reg, _ := withImage(t)
				reg.Fault(remotestest.Any(), fault)
				c := impatient(t, reg.URL())
				err := operations(t, img)[op](c) // with the time of this test, which may have waited for its turn
				e := failure(t, err, errdefs.ErrUnavailable)
				if name == "error body" {
					if e.Status != http.StatusTeapot {
						t.Errorf("error is %v, want its status", e)
					}
					return // it answered
				}
				if !errors.Is(e, context.DeadlineExceeded) {
					t.Errorf("error is %v, want deadline exceeded", e)
				}
				leftAlone(t, c, img)
				if n := len(reg.Requests()); n != 1 {
					t.Errorf("%d requests, want 1", n)
				}
			})
		}
	}
}

// TestTimeoutIsAskedOnce names the count that TestBreakerOpensOnSilence makes
// for the token service too: containerd's client asks five times.
func TestTimeoutIsAskedOnce(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t, remotestest.WithToken())
	reg.Fault(remotestest.Tokens(), remotestest.Hang())
	c := impatient(t, reg.URL())
	_, err := c.Resolve(soon(t), "team/app", "v1")
	if e := failure(t, err, errdefs.ErrUnavailable); !errors.Is(e, context.DeadlineExceeded) {
		t.Errorf("error is %v, want deadline exceeded", e)
	}
	leftAlone(t, c, img)
	if m, n := reg.Count("", "/manifests/"), reg.Count("", "/token"); m != 1 || n != 1 {
		t.Errorf("%d requests and %d for a token, want 1 each", m, n)
	}
}

// leftAlone wants that nothing is asked any more.
func leftAlone(t *testing.T, c *Client, img remotestest.Image) {
	t.Helper()
	for op, ask := range operations(t, img) {
		if e := failure(t, ask(c), errdefs.ErrUnavailable); !errors.Is(e, circuitbreaker.ErrOpen) {
			t.Errorf("%s: %v, want that upstream is left alone", op, e)
		}
	}
}

// TestDialTimeoutOpensBreaker has the kernel take too long to connect.
func TestDialTimeoutOpensBreaker(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t)
	p := newPool(t, Options{Named: endpoints(t, reg.URL()), Pause: time.Hour})
	slow := net.Dialer{Timeout: 50 * time.Millisecond, ControlContext: func(ctx context.Context, _, _ string, _ syscall.RawConn) error {
		<-ctx.Done()
		return nil
	}}
	p.transport.DialContext = slow.DialContext
	c := p.Client(endpoint(t, reg.URL()))
	_, err := c.Resolve(soon(t), "team/app", "v1")
	if e := failure(t, err, errdefs.ErrUnavailable); !errors.Is(e, context.DeadlineExceeded) {
		t.Errorf("error is %v, want deadline exceeded", e)
	}
	leftAlone(t, c, img)
}

// TestHandshakeTimeoutOpensBreaker connects to one who does not speak.
func TestHandshakeTimeoutOpensBreaker(t *testing.T) {
	t.Parallel()
	port, _ := listener(t)
	c := impatient(t, "https://127.0.0.1:"+port)
	_, err := c.Resolve(soon(t), "team/app", "v1")
	failed(t, err, errdefs.ErrUnavailable)
	leftAlone(t, c, image(1))
}

// TestRefusedConnectionsOpenBreaker stops the upstream and starts it again.
func TestRefusedConnectionsOpenBreaker(t *testing.T) {
	t.Parallel()
	reg, _ := withImage(t)
	p := newPool(t, Options{Named: endpoints(t, reg.URL()), Pause: 50 * time.Millisecond})
	c := p.Client(endpoint(t, reg.URL()))
	reg.Stop()
	for range failuresToOpen {
		_, err := c.Resolve(soon(t), "team/app", "v1")
		if failed(t, err, errdefs.ErrUnavailable); errors.Is(err, circuitbreaker.ErrOpen) {
			t.Fatal("open too early")
		}
	}
	if !c.breaker.circuit.IsOpen() {
		t.Fatal("not open")
	}
	reg.Start()
	ctx := soon(t)
	for {
		_, err := c.Resolve(ctx, "team/app", "v1")
		if err == nil {
			break
		}
		if !errors.Is(err, circuitbreaker.ErrOpen) || ctx.Err() != nil {
			t.Fatalf("error is %v, want that it recovers", err)
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// TestBreakerIgnoresRefusals has a working upstream refuse in many ways, more
// often than it may fail.
func TestBreakerIgnoresRefusals(t *testing.T) {
	t.Parallel()
	for _, fault := range []remotestest.FaultFunc{
		remotestest.Error(404, "X", "x"), remotestest.Error(403, "X", "x"), remotestest.Error(401, "X", "x"), remotestest.TooManyRequests(0),
		remotestest.Error(416, "X", "x"), remotestest.Error(400, "X", "x"), remotestest.SetHeader("Content-Encoding", "gzip"),
	} {
		reg, img := withImage(t)
		remove := reg.Fault(remotestest.Any(), fault)
		c := clientOf(t, reg)
		for range 2 * failuresToOpen {
			for op, ask := range operations(t, img) {
				if err := ask(c); errors.Is(err, circuitbreaker.ErrOpen) {
					t.Errorf("%s: %v", op, err)
				}
			}
		}
		remove()
		if _, err := c.Resolve(soon(t), "team/app", "v1"); err != nil {
			t.Error(err)
		}
	}
}

// TestBreakerIgnoresCallersEnd has callers leave, by cancellation, by their
// deadline, and with a cause that looks like a time-out.
func TestBreakerIgnoresCallersEnd(t *testing.T) {
	t.Parallel()
	reg, _ := withImage(t)
	remove := reg.Fault(remotestest.Any(), remotestest.Hang())
	c := clientOf(t, reg)
	resolve := func(ctx context.Context, leave func()) {
		t.Helper()
		asked := len(reg.Requests())
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := c.Resolve(ctx, "team/app", "v1")
			failed(t, err, errdefs.ErrUnavailable)
			if errors.Is(err, circuitbreaker.ErrOpen) {
				t.Error("the breaker opened")
			}
		})
		if leave != nil { // else a deadline comes, maybe before the request
			if err := reg.Await(soon(t), func(all []remotestest.Request) bool { return len(all) > asked }); err != nil {
				leave()
				wg.Wait()
				t.Fatal(err)
			}
			leave()
		}
		wg.Wait()
	}
	for range 2 * failuresToOpen {
		ctx, cancel := context.WithCancel(soon(t))
		resolve(ctx, cancel)
		ctx2, cancel2 := context.WithCancelCause(soon(t))
		resolve(ctx2, func() { cancel2(&net.DNSError{IsTimeout: true}) })
		ctx3, cancel3 := context.WithTimeout(soon(t), 10*time.Millisecond)
		resolve(ctx3, nil)
		cancel3()
	}
	// The same for the one exchange of a half-open breaker.
	c.breaker.circuit.Open()
	c.breaker.circuit.HalfOpen()
	ctx, cancel := context.WithCancel(soon(t))
	resolve(ctx, cancel)
	remove()
	if _, err := c.Resolve(soon(t), "team/app", "v1"); err != nil {
		t.Errorf("the next caller: %v", err)
	}
	if !c.breaker.circuit.IsClosed() {
		t.Error("not closed by success")
	}
}
