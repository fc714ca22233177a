package upstream

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
)

// running is how many requests for blobs an upstream answers at this moment.
func running(reqs []remotestest.Request) int {
	n := 0
	for _, q := range reqs {
		if strings.Contains(q.Path, "/blobs/") && !q.Done {
			n++
		}
	}
	return n
}

// next takes what must come.
func next[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-soon(t).Done():
		t.Fatal("nothing comes")
		panic("unreachable")
	}
}

// TestConnectionsAreBounded lets many want blobs of one upstream. What is short
// must not wait behind them, nor may another upstream.
func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t, remotestest.WithToken())
	other, _ := withImage(t)
	release := make(chan struct{})
	reg.Fault(remotestest.Blobs(), remotestest.Gate(1000, release))
	waits := make(chan struct{}, 100)
	p := newPool(t, Options{
		Named: endpoints(t, reg.URL(), other.URL()), MaxConnections: 4, Pause: time.Hour,
		Waits: func(context.Context) func() { waits <- struct{}{}; return func() {} },
	})
	c := p.Client(endpoint(t, reg.URL()))
	const clients = 10
	bodies := make(chan io.ReadCloser, clients)
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			// Each by a client of its own: the bound is the host's.
			body, _, err := p.Client(endpoint(t, reg.URL())).As(Credential{}).Blob(soon(t), "team/app", layer(img).Descriptor.Digest, 0)
			if err != nil {
				t.Error(err)
				return
			}
			bodies <- body
		})
	}
	var open []io.ReadCloser
	for range 3 {
		open = append(open, next(t, bodies))
	}
	for range clients - len(open) {
		next(t, waits)
	}
	if n := running(reg.Requests()); n != 3 {
		t.Errorf("%d blobs at a time, want 3 of 4 places", n)
	}
	for op, ask := range operations(t, img) {
		if err := ask(p.Client(endpoint(t, other.URL()))); err != nil {
			t.Errorf("%s at another upstream: %v", op, err)
		}
		if op == "blob" {
			continue
		}
		if err := ask(c.As(Credential{})); err != nil { // asks for tokens, too
			t.Errorf("%s behind the blobs: %v", op, err)
		}
	}
	// The wait is the caller's, and a full upstream is not a sick one.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 2 * failuresToOpen {
		_, _, err := c.Blob(ctx, "team/app", layer(img).Descriptor.Digest, 0)
		if e := failure(t, err, errdefs.ErrUnavailable); !errors.Is(e, context.Canceled) || !strings.Contains(e.Error(), "max_connections = 4") {
			t.Errorf("error is %v", e)
		}
	}
	if err := resolve(soon(t), c); err != nil {
		t.Errorf("the breaker is open: %v", err)
	}
	// A body that is closed, twice even, lets one on.
	for range 2 {
		open[0].Close()
	}
	open = append(open[1:], next(t, bodies))
	close(release)
	for range clients - 4 {
		for _, body := range open {
			body.Close()
		}
		open = append(open[:0], next(t, bodies))
	}
	open[0].Close()
	all.Wait()
	if !c.site.places.blobs.TryAcquire(3) || c.site.places.blobs.TryAcquire(1) {
		t.Error("places are lost, or there are too many")
	}
}

// TestPlacesComeBack fails every operation in many ways.
func TestPlacesComeBack(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t)
	p := newPool(t, Options{Named: endpoints(t, reg.URL()), MaxConnections: 2, Pause: time.Millisecond})
	c := p.Client(endpoint(t, reg.URL()))
	for name, fault := range map[string]remotestest.FaultFunc{
		"404": remotestest.Error(404, "X", "x"), "429": remotestest.TooManyRequests(0), "500": remotestest.Error(500, "X", "x"),
		"cut": remotestest.Abort(), "cut body": remotestest.CutBody(100_000), "no body": remotestest.HeaderOnly(), "loop": remotestest.RedirectTo("/v2/"),
		"coded": remotestest.SetHeader("Content-Encoding", "gzip"), "none": remotestest.Status(200, nil, ""),
	} {
		remove := reg.Fault(remotestest.Any(), fault)
		for op, ask := range operations(t, img) {
			for range 3 { // the third would wait for ever
				if err := ask(c); errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("%s, %s: %v", name, op, err)
				}
			}
		}
		remove()
	}
	if s := c.site.places; !s.blobs.TryAcquire(1) || !s.others.TryAcquire(1) {
		t.Error("a place is lost")
	}
}

// TestPlaces shares out numbers.
func TestPlaces(t *testing.T) {
	t.Parallel()
	for n, want := range map[int][2]int64{1: {1, 1}, 2: {1, 1}, 3: {2, 1}, 4: {3, 1}, 8: {6, 2}, 32: {24, 8}} {
		p := newPlaces(n, nil)
		if !p.blobs.TryAcquire(want[0]) || p.blobs.TryAcquire(1) || !p.others.TryAcquire(want[1]) || p.others.TryAcquire(1) {
			t.Errorf("%d: want %d for blobs and %d for others", n, want[0], want[1])
		}
	}
	for _, stream := range []bool{true, false} {
		if release, err := newPlaces(0, nil).take(t.Context(), stream); err != nil {
			t.Error(err)
		} else {
			release()
		}
	}
}

// TestHostOverridesBounds gives one host bounds of its own, however its port
// is written.
func TestHostOverridesBounds(t *testing.T) {
	t.Parallel()
	p := newPool(t, Options{MaxConnections: 8, MaxSpeed: 1 << 20, Hosts: map[string]Host{
		"a.example": {MaxConnections: 4}, "B.example:443": {MaxSpeed: 2 << 20}, "[::1]:5000": {MaxConnections: 2},
	}})
	for text, want := range map[string][2]int{
		"a.example": {4, 1 << 20}, "http://a.example": {4, 1 << 20}, "https://a.example:443/x": {4, 1 << 20}, "a.example:5000": {8, 1 << 20},
		"b.example": {8, 2 << 20}, "http://b.example": {8, 1 << 20}, "http://[::1]:5000": {2, 1 << 20}, "c.example": {8, 1 << 20},
	} {
		s := p.Client(endpoint(t, text)).site
		if got := [2]int{s.places.all, int(s.speed.Limit())}; got != want {
			t.Errorf("%s: got %v, want %v", text, got, want)
		}
	}
}

// TestStreams: it is told how many blobs can be asked for, and to who waits for a
// place, that the wait begins.
func TestStreams(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t)
	p := newPool(t, Options{Named: endpoints(t, reg.URL()), MaxConnections: 4})
	c := p.Client(endpoint(t, reg.URL()))
	wants := func(free int) {
		t.Helper()
		if got, all, ok := c.Streams(); got != free || all != 3 || !ok {
			t.Errorf("%d of %d, %t, want %d of 3", got, all, ok, free)
		}
	}
	begun := make(chan struct{}, 1)
	ctx := WithWaiting(soon(t), func() { begun <- struct{}{} })
	open := func() io.ReadCloser {
		body, _, err := c.Blob(ctx, "team/app", layer(img).Descriptor.Digest, 0)
		if err != nil {
			t.Error(err)
			return io.NopCloser(strings.NewReader(""))
		}
		return body
	}
	wants(3)
	bodies := []io.ReadCloser{open(), open(), open()}
	wants(0)
	if len(begun) > 0 {
		t.Error("a wait was told of, and there was none")
	}
	last := make(chan io.ReadCloser)
	go func() { last <- open() }()
	next(t, begun)
	bodies[0].Close()
	next(t, last).Close()
	wants(1)
	bodies[1].Close()
	bodies[2].Close()
	wants(3)
	if _, _, ok := newPool(t, Options{}).Client(endpoint(t, reg.URL())).Streams(); ok {
		t.Error("without a bound there is one")
	}
}
