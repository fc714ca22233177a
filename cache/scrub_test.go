package cache

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
)

// brings is a Refetcher that has some blobs.
type brings struct {
	store *Store
	mu    sync.Mutex
	has   map[digest.Digest][]byte
	asked []digest.Digest
}

func (b *brings) Refetch(ctx context.Context, dgst digest.Digest) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = append(b.asked, dgst)
	data, ok := b.has[dgst]
	if !ok {
		return "", errors.New("nobody has it")
	}
	return "https://up.example", b.store.Put(ctx, dgst, data, Facts{Source: "https://up.example"})
}

// scrubbed is a store that is scrubbed in a bubble of its own time.
func scrubbed(t *testing.T, root string, blobs int, test func(t *testing.T, s *Store, all []digest.Digest, b *brings), opts ...Option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(root, append([]Option{quiet()}, opts...)...)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}()
		b := &brings{store: s, has: map[digest.Digest][]byte{}}
		var all []digest.Digest
		for i := range blobs {
			data, dgst := putBlob(t, s, uint64(i), 1000+i)
			b.has[dgst] = data
			all = append(all, dgst)
		}
		slices.Sort(all)
		test(t, s, all, b)
	})
}

// scrubFor scrubs for a time.
func scrubFor(t *testing.T, s *Store, d time.Duration, p ScrubPolicy, r Refetcher) ScrubState {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	s.Scrub(ctx, p, r)
	st, err := s.ScrubState()
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// TestScrub reads all, finds what is damaged, fetches it again, and says what
// is lost.
func TestScrub(t *testing.T) {
	t.Parallel()
	scrubbed(t, t.TempDir(), 20, func(t *testing.T, s *Store, all []digest.Digest, b *brings) {
		tamper(t, s, all[3], flip(7, 1))
		tamper(t, s, all[11], flip(999, 2))
		delete(b.has, all[11])
		st := scrubFor(t, s, time.Hour, ScrubPolicy{Rate: 1 << 20, Period: 720 * time.Hour}, b)
		if st.Blobs != 20 || st.Damaged != 2 || st.Lost != 1 || st.Ended.IsZero() || st.Cursor != "" {
			t.Errorf("state %+v, want 20 read, 2 damaged, 1 lost", st)
		}
		if !slices.Equal(b.asked, []digest.Digest{all[3], all[11]}) {
			t.Errorf("fetched again: %v", b.asked)
		}
		wantBlob(t, s, all[3], b.has[all[3]])
		wantNoBlob(t, s, all[11])
	})
}

// TestScrubPeriod makes one pass a period, counted from begin to begin, also
// over restarts, and also when the clock goes back.
func TestScrubPeriod(t *testing.T) {
	t.Parallel()
	shift := time.Duration(0)
	scrubbed(t, t.TempDir(), 3, func(t *testing.T, s *Store, all []digest.Digest, b *brings) {
		p := ScrubPolicy{Rate: 1 << 20, Period: 100 * time.Hour}
		first := scrubFor(t, s, 99*time.Hour, p, b)
		again := scrubFor(t, s, 30*time.Minute, p, b)
		if first.Blobs != 3 || again.Began != first.Began {
			t.Errorf("before the period is over: %+v, then %+v, want one pass", first, again)
		}
		second := scrubFor(t, s, 2*time.Hour, p, b)
		if got := second.Began.Sub(first.Began); second.Blobs != 3 || got < 100*time.Hour || got > 101*time.Hour {
			t.Errorf("second pass %v after the first: %+v", got, second)
		}
		shift = -10_000 * time.Hour
		if third := scrubFor(t, s, time.Hour, p, b); third.Blobs != 3 || !third.Began.Before(first.Began) {
			t.Errorf("with the clock set back: %+v, want a pass", third)
		}
	}, WithClock(func() time.Time { return time.Now().Add(shift) }))
}

// TestScrubGoesOn is stopped in the middle of a pass, and goes on there in
// another process.
func TestScrubGoesOn(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	p := ScrubPolicy{Delay: 5 * time.Minute, Rate: scrubSmall, Period: 720 * time.Hour} // one blob a second, from the 17th on
	var first ScrubState
	scrubbed(t, root, 60, func(t *testing.T, s *Store, all []digest.Digest, b *brings) {
		first = scrubFor(t, s, 5*time.Minute+20*time.Second, p, b)
		if first.Blobs < 10 || first.Blobs >= 60 || first.Cursor == "" {
			t.Fatalf("first: %+v, want it in the middle", first)
		}
	})
	scrubbed(t, root, 0, func(t *testing.T, s *Store, _ []digest.Digest, b *brings) {
		second := scrubFor(t, s, time.Hour, p, b)
		if second.Blobs != 60 || second.Ended.IsZero() || !second.Began.Equal(first.Began) {
			t.Errorf("second: %+v, want it to end the pass of %+v", second, first)
		}
	})
}

// TestScrubRate reads no faster than it may.
func TestScrubRate(t *testing.T) {
	t.Parallel()
	scrubbed(t, t.TempDir(), 0, func(t *testing.T, s *Store, _ []digest.Digest, b *brings) {
		for i := range 4 {
			putBlob(t, s, uint64(i), 4*verifyPiece)
		}
		st := scrubFor(t, s, time.Hour, ScrubPolicy{Rate: verifyPiece, Period: 720 * time.Hour}, b)
		// One piece is free, and each blob's end counts as a small one.
		if took := st.Ended.Sub(st.Began); st.Bytes != 16*verifyPiece || took < 15*time.Second || took > 17*time.Second {
			t.Errorf("%d bytes in %v, want 16 s", st.Bytes, took)
		}
	})
}

// TestScrubWaits reads nothing while the node is busy, but one blob an hour if
// it always is.
func TestScrubWaits(t *testing.T) {
	t.Parallel()
	scrubbed(t, t.TempDir(), 20, func(t *testing.T, s *Store, _ []digest.Digest, b *brings) {
		looks, waiting := 0, ""
		p := ScrubPolicy{Rate: 1 << 30, Period: 720 * time.Hour, Busy: func() string {
			if looks++; looks == 2 {
				st, _ := s.ScrubState()
				waiting = st.Waiting
			}
			return "the load is 9.9"
		}}
		st := scrubFor(t, s, 5*time.Hour+time.Minute, p, b)
		if st.Blobs != 5 || waiting != "the load is 9.9" {
			t.Errorf("%d blobs in five hours, waiting for %q, want 5", st.Blobs, waiting)
		}
		p.Busy = func() string { return "" }
		if st = scrubFor(t, s, time.Minute, p, b); st.Blobs != 20 || st.Waiting != "" {
			t.Errorf("on an idle node: %+v, want all", st)
		}
	})
}

// TestScrubBrakes does not empty a store whose disk fails: it rests before the
// quarantine is full, and says so.
func TestScrubBrakes(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	scrubbed(t, t.TempDir(), 3*scrubBrake, func(t *testing.T, s *Store, all []digest.Digest, b *brings) {
		for _, dgst := range all {
			tamper(t, s, dgst, flip(0, 0))
		}
		st := scrubFor(t, s, scrubRest/2, ScrubPolicy{Rate: 1 << 30, Period: 720 * time.Hour}, nil)
		if st.Damaged != scrubBrake || !bytes.Contains(log.Bytes(), []byte("disk or memory may be failing")) {
			t.Errorf("%d set aside, log:\n%s\nwant %d and a pause", st.Damaged, log.String(), scrubBrake)
		}
	}, WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
}

// TestScrubSkips what was verified since the pass began, and does nothing if it
// is off.
func TestScrubSkips(t *testing.T) {
	t.Parallel()
	scrubbed(t, t.TempDir(), 4, func(t *testing.T, s *Store, all []digest.Digest, b *brings) {
		if st := scrubFor(t, s, time.Hour, ScrubPolicy{Period: time.Hour}, b); !st.Began.IsZero() {
			t.Errorf("without a rate: %+v, want nothing", st)
		}
		busy := func() string {
			if st, _ := s.ScrubState(); st.Blobs == 0 {
				if err := s.Verify(t.Context(), all[2], nil); err != nil {
					t.Error(err)
				}
			}
			return ""
		}
		// The clock must have moved from the begin of the pass.
		now := time.Now()
		s.now = func() time.Time { now = now.Add(time.Millisecond); return now }
		if st := scrubFor(t, s, time.Hour, ScrubPolicy{Rate: 1 << 30, Period: 720 * time.Hour, Busy: busy}, b); st.Blobs != 3 {
			t.Errorf("%d read, want the three that nobody else read", st.Blobs)
		}
	})
}

// TestLoad reads what the kernel writes.
func TestLoad(t *testing.T) {
	t.Parallel()
	if load, ok := parseLoad("1.25 0.86 0.70 2/345 6789\n"); !ok || load != 1.25 {
		t.Errorf("load %v, %t, want 1.25", load, ok)
	}
	const psi = "some avg10=12.50 avg60=1.00 avg300=0.10 total=1\nfull avg10=90.00 avg60=0.50 avg300=0.05 total=1\n"
	if stalled, ok := parseStalled(psi); !ok || stalled != 12.5 {
		t.Errorf("stalled %v, %t, want 12.5", stalled, ok)
	}
	for _, text := range []string{"", "garbage", "some", "some total=1"} {
		if _, ok := parseStalled(text); ok {
			t.Errorf("%q is taken for a pressure", text)
		}
		if _, ok := parseLoad(text); ok {
			t.Errorf("%q is taken for a load", text)
		}
	}
	if why := BusyAbove(1e9)(); why != "" && !bytes.Contains([]byte(why), []byte("disks")) {
		t.Errorf("busy: %q, want it not by load", why)
	}
	if why := BusyAbove(-1)(); why == "" {
		t.Error("never busy")
	}
}
