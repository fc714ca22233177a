package upstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestSpeedIsShared reads several bodies of one upstream at once. All move on
// together, and all of them together keep to the speed. The clock is a
// bubble's.
func TestSpeedIsShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const bodies, size, speed = 8, 256 << 10, 64 << 10
		held := 0
		var mu sync.Mutex
		s := newSite("h.example", Host{}, Options{MaxSpeed: speed, Waits: func(context.Context) func() {
			mu.Lock()
			defer mu.Unlock()
			held++
			return func() { mu.Lock(); defer mu.Unlock(); held-- }
		}})
		start := time.Now()
		var all sync.WaitGroup
		for range bodies {
			body := s.meter(t.Context(), Anonymous, true, io.NopCloser(bytes.NewReader(make([]byte, size))))
			all.Go(func() {
				buf := make([]byte, 256<<10)
				last := start
				for {
					n, err := body.Read(buf)
					if pause := time.Since(last); pause > time.Second {
						t.Errorf("one body waited %s", pause)
					}
					last = time.Now()
					if errors.Is(err, io.EOF) {
						break
					}
					if n > speed/speedParts || err != nil {
						t.Errorf("read %d bytes at once, %v", n, err)
					}
				}
				if took := time.Since(start); took < 30*time.Second {
					t.Errorf("one body was preferred: %s", took)
				}
			})
		}
		// Manifests are not slowed down.
		if data, err := io.ReadAll(s.meter(t.Context(), Anonymous, false, io.NopCloser(bytes.NewReader(make([]byte, size))))); len(data) != size || err != nil || time.Since(start) != 0 {
			t.Errorf("a manifest: %d bytes, %v, after %s", len(data), err, time.Since(start))
		}
		all.Wait()
		if took, want := time.Since(start), bodies*size/speed*time.Second; took < want-time.Second || took > want+time.Second {
			t.Errorf("took %s, want %s", took, want)
		}
		if got := s.ledger()[0].Bytes; got != (bodies+1)*size {
			t.Errorf("ledger has %d bytes, want %d", got, (bodies+1)*size)
		}
		if held != 0 {
			t.Errorf("%d waits have no end", held)
		}
	})
}

// TestSpeedWaitEnds cancels who waits for the speed.
func TestSpeedWaitEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite("h.example", Host{}, Options{MaxSpeed: 1})
		ctx, cancel := context.WithCancel(t.Context())
		body := s.meter(ctx, Anonymous, true, io.NopCloser(bytes.NewReader(make([]byte, 100))))
		time.AfterFunc(1500*time.Millisecond, cancel)
		if data, err := io.ReadAll(body); !errors.Is(err, context.Canceled) || len(data) != 2 {
			t.Errorf("%d bytes, %v, want 2 and canceled", len(data), err)
		}
	})
}

// TestSpeedOfClient is the same through a Client; only blobs are slow, and
// bytes are the right ones.
func TestSpeedOfClient(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t)
	p := newPool(t, Options{Named: endpoints(t, reg.URL()), MaxSpeed: 3 * 300_000})
	c := p.Client(endpoint(t, reg.URL()))
	start := time.Now()
	data, _, err := readBlob(t, c, "team/app", layer(img), 0)
	if err != nil || !bytes.Equal(data, layer(img).Data) {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	if took := time.Since(start); took < 250*time.Millisecond {
		t.Errorf("took %s, want a third of a second", took)
	}
	ctx, cancel := context.WithCancel(soon(t))
	body, _, err := c.Blob(ctx, "team/app", layer(img).Descriptor.Digest, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	cancel()
	if _, err := io.Copy(io.Discard, body); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v, want canceled", err)
	}
	if err := resolve(soon(t), c); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
