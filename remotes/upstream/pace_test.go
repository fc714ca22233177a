package upstream

import (
	"bytes"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-project/larder/remotes/remotestest"
)

// TestPace measures what upstream gives, and not what larder itself waits for.
func TestPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite("h.example", Host{MaxSpeed: 100 << 10}, Options{})
		slow := io.NopCloser(&trickle{Reader: bytes.NewReader(make([]byte, 1<<20)), wait: 10 * time.Millisecond})
		if _, err := io.Copy(io.Discard, struct{ io.Reader }{s.meter(t.Context(), Anonymous, true, slow)}); err != nil {
			t.Fatal(err)
		}
		// Parts are 400 bytes at that bound: 40,000 bytes a second.
		if p := s.pace.read(); p.Speed < 39_000 || p.Speed > 41_000 {
			t.Errorf("pace is %+v, want 40,000 bytes a second", p)
		}
		for range 100 {
			s.pace.answered(50 * time.Millisecond)
		}
		s.pace.answered(90 * time.Millisecond)
		if p := s.pace.read(); p.Latency != 55*time.Millisecond {
			t.Errorf("latency is %s, want 55ms", p.Latency)
		}
		for range 8 {
			s.pace.received(paceMemory, time.Second)
		}
		if p := s.pace.read(); p.Speed < paceMemory/2 {
			t.Errorf("pace is %+v, want what was slow long ago to fade", p)
		}
	})
}

// trickle takes time for each Read.
type trickle struct {
	*bytes.Reader
	wait time.Duration
}

func (t *trickle) Read(p []byte) (int, error) {
	time.Sleep(t.wait) //nolint:forbidigo // of the bubble: it takes no time
	return t.Reader.Read(p)
}

// TestPaceOfPool: a host that was not asked has no pace and gets no entry; one
// that speaks of limits is limited.
func TestPaceOfPool(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t)
	p := named(t, reg.URL())
	ep := endpoint(t, reg.URL())
	if pace := p.Pace(ep); pace != (Pace{}) || len(p.Ledger()) != 0 {
		t.Errorf("before any request: %+v", pace)
	}
	for op, ask := range operations(t, img) {
		if err := ask(p.Client(ep)); err != nil {
			t.Errorf("%s: %v", op, err)
		}
	}
	if pace := p.Pace(ep); pace.Latency <= 0 || pace.Limited {
		t.Errorf("pace is %+v", pace)
	}
	reg.Fault(remotestest.Any(), limits(76))
	if err := resolve(soon(t), p.Client(ep)); err != nil {
		t.Fatal(err)
	}
	if pace := p.Pace(ep); !pace.Limited {
		t.Errorf("pace is %+v, want it limited", pace)
	}
}
