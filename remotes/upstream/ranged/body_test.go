package ranged

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// limited is a line on which more connections are faster.
func limited() *line { return &line{opening: 50 * time.Millisecond, single: 20e6} }

var errTest = errors.New("a fault of the test")

// once is a fault that comes once.
func once() func() bool {
	var mu sync.Mutex
	came := false
	return func() bool {
		mu.Lock()
		defer mu.Unlock()
		old := came
		came = true
		return !old
	}
}

// isPart tells what is received into memory from what is read at once.
func isPart(first, last int64) bool { return last-first < Part }

// TestFaults has parts fail in all ways while others are fetched beside them. The
// bytes are right, and none comes twice.
func TestFaults(t *testing.T) {
	t.Parallel()
	const size = 96 << 20
	for name, tc := range map[string]struct {
		fault  func(*server)
		single bool // ends with one connection
	}{
		"none": {fault: func(*server) {}},
		"cut": {fault: func(s *server) {
			first := once()
			s.cut = func(from, last, done int64, ahead bool) error {
				if ahead && isPart(from, last) && done > 1<<20 && first() {
					return errTest
				}
				return nil
			}
		}},
		"cut by end": {fault: func(s *server) {
			first := once()
			s.bytes = func(from, last int64, ahead bool) int64 {
				if ahead && from > 40<<20 && first() {
					return 100_000
				}
				return last + 1 - from
			}
		}},
		"cut again and again": {single: true, fault: func(s *server) {
			s.cut = func(from, last, done int64, ahead bool) error {
				if ahead && isPart(from, last) && done > 1<<20 {
					return errTest
				}
				return nil
			}
		}},
		"first part cut": {fault: func(s *server) {
			s.bytes = func(from, last int64, ahead bool) int64 {
				if from == 0 {
					return 100_000
				}
				return last + 1 - from
			}
		}},
		"refused": {single: true, fault: func(s *server) {
			s.open = func(first, _ int64, ahead bool) error {
				if ahead && first > 40<<20 {
					return errTest
				}
				return nil
			}
		}},
		"refused at once": {single: true, fault: func(s *server) {
			s.open = func(_, _ int64, ahead bool) error {
				if ahead {
					return errTest
				}
				return nil
			}
		}},
		"no part": {fault: func(s *server) {
			first := once()
			s.bytes = func(from, last int64, ahead bool) int64 {
				if ahead && from > 40<<20 && first() {
					return 0
				}
				return last + 1 - from
			}
		}},
		"silent": {fault: func(s *server) {
			first := once()
			var silent atomic.Int64
			s.hang = func(from, last, done int64, ahead bool) bool {
				if ahead && isPart(from, last) && from > 30<<20 && done > 1<<20 && first() {
					silent.Store(from)
				}
				return from == silent.Load() && ahead
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t, limited(), size)
				tc.fault(s)
				took := s.fetch(NewMemory(testMemory), 8)
				if s.sent != size {
					t.Errorf("%d bytes came, want %d", s.sent, size)
				}
				if limit := size/20_000_000*time.Second + 16*time.Second; took > limit {
					t.Errorf("took %s, want at most %s", took, limit)
				}
				if tc.single != (s.governor.Resting() > rest) && (name == "refused" || name == "refused at once") {
					t.Errorf("the governor rests for %s", s.governor.Resting())
				}
				if name == "refused at once" && len(s.asked) > 6 {
					t.Errorf("%d requests at an upstream that refuses them", len(s.asked))
				}
			})
		})
	}
}

// TestIgnored has an upstream send the whole in place of a part: the rest comes
// by one connection. What came already of parts behind it comes again, since no
// part of the rest can be asked for.
func TestIgnored(t *testing.T) {
	t.Parallel()
	for _, from := range []int64{First, 40 << 20} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer(t, limited(), 96<<20)
			s.open = func(first, _ int64, ahead bool) error {
				if ahead && first >= from {
					return fmt.Errorf("%w, says the test", ErrIgnored)
				}
				return nil
			}
			s.fetch(NewMemory(testMemory), 8)
			if extra := s.sent - s.size; extra < 0 || extra > testMemory {
				t.Errorf("%d bytes came twice", extra)
			}
			if last := s.asked[len(s.asked)-1]; last[1] != s.size-1 || s.asked[len(s.asked)-1][0] > from+testMemory {
				t.Errorf("the last request was for %v, want one for all the rest", last)
			}
		})
	}
}

// TestError has the connection fail that every body has: that is the reader's
// error, behind the bytes before it.
func TestError(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(*server){
		"opening": func(s *server) {
			s.open = func(first, _ int64, ahead bool) error {
				if first >= 20<<20 {
					return errTest
				}
				return nil
			}
		},
		"cut": func(s *server) {
			s.governor.Refused()
			s.cut = func(first, _, done int64, _ bool) error {
				if first+done >= 20<<20 {
					return errTest
				}
				return nil
			}
		},
		"nothing more": func(s *server) {
			s.bytes = func(first, last int64, _ bool) int64 { return max(0, min(last+1, 20<<20)-first) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t, limited(), 96<<20)
				fault(s)
				m := NewMemory(testMemory)
				b, err := s.body(t.Context(), m, 8, 0)
				if err != nil {
					t.Fatal(err)
				}
				n, err := s.read(b, 0)
				if want := errTest; name != "nothing more" && !errors.Is(err, want) || name == "nothing more" && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("error is %v", err)
				}
				if n < 20<<20 || n > 28<<20 {
					t.Errorf("%d bytes before the error", n)
				}
				if _, again := b.Read(make([]byte, 1)); again == nil || again.Error() != err.Error() {
					t.Errorf("the next read gets %v, want the same error", again)
				}
				b.Close()
				s.governor.Leave()
				s.over(m)
			})
		})
	}
}

// TestSilentLine has everything stop: nobody is blamed and nothing is asked for,
// for as long as the caller has patience.
func TestSilentLine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, limited(), 2<<30)
		s.cheap = true
		began := time.Now()
		s.hang = func(_, _, _ int64, _ bool) bool { return time.Since(began) > 3*time.Second }
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		m := NewMemory(testMemory)
		b, err := s.body(ctx, m, 8, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.read(b, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v, want that of the context", err)
		}
		b.Close()
		if s.now != 0 || m.Left() != testMemory {
			t.Errorf("%d connections, %d bytes are left", s.now, m.Left())
		}
		asked := len(s.asked)
		if late := s.asked[asked-1]; asked > 150 {
			t.Errorf("%d requests, the last for %v", asked, late)
		}
	})
}

// TestClose closes bodies at any time, read from or not.
func TestClose(t *testing.T) {
	t.Parallel()
	for after := 0 * time.Millisecond; after < 2*time.Second; after += 97 * time.Millisecond {
		for _, cancelled := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t, limited(), 256<<20)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				m := NewMemory(testMemory)
				b, err := s.body(ctx, m, 8, 0)
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				if cancelled {
					time.AfterFunc(after, cancel)
					if _, err := s.read(b, 0); !errors.Is(err, context.Canceled) {
						t.Errorf("error is %v, want canceled", err)
					}
				} else {
					buf := make([]byte, 64<<10)
					for time.Since(began) < after {
						if _, err := b.Read(buf); err != nil {
							t.Fatal(err)
						}
					}
				}
				for range 2 {
					if err := b.Close(); err != nil {
						t.Error(err)
					}
				}
				if _, err := b.Read(make([]byte, 1)); err == nil {
					t.Error("a closed body can be read")
				}
				s.governor.Leave()
				s.over(m)
			})
		}
	}
}

// TestMemoryIsShared reads many bodies at once that share little memory: all come
// to their end, none has more than was promised to it, and who has none goes on
// by one connection.
func TestMemoryIsShared(t *testing.T) {
	t.Parallel()
	for _, bound := range []int64{0, Part, 3 * Part} {
		synctest.Test(t, func(t *testing.T) {
			m := NewMemory(bound)
			l := limited()
			g := new(Governor)
			var all sync.WaitGroup
			for i := range 6 {
				all.Go(func() {
					s := newServer(t, l, 48<<20+int64(i)*12345)
					s.governor = g
					b, err := s.body(t.Context(), m, 4, 0)
					if err != nil {
						t.Error(err)
						return
					}
					n, err := s.read(checked{t, b}, 0)
					if err != nil || n != s.size || s.sent != s.size {
						t.Errorf("%d of %d bytes, %d sent, %v", n, s.size, s.sent, err)
					}
					b.Close()
					g.Leave()
				})
			}
			all.Wait()
			if m.Left() != bound {
				t.Errorf("%d bytes are left of %d", m.Left(), bound)
			}
		})
	}
}

// checked looks at a body's memory at each read.
type checked struct {
	t *testing.T
	*Body
}

func (c checked) Read(p []byte) (int, error) {
	c.mu.Lock()
	reserved := int64(0)
	for _, part := range c.parts {
		reserved += part.reserved
		if used := int64(len(part.blocks)) * blockSize; used > part.reserved {
			c.t.Errorf("a part uses %d bytes of %d", used, part.reserved)
		}
	}
	if left := c.memory.Left(); left < 0 {
		c.t.Errorf("%d bytes of memory are left", left)
	}
	c.mu.Unlock()
	return c.Body.Read(p)
}

// TestSlowReader reads slower than the line sends: no connection is added that
// only waits.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, limited(), 64<<20)
		m := NewMemory(testMemory)
		b, err := s.body(t.Context(), m, 8, 0)
		if err != nil {
			t.Fatal(err)
		}
		n, err := s.read(slow{b}, 0)
		if err != nil || n != s.size || s.sent != s.size {
			t.Errorf("%d bytes, %d sent, %v", n, s.sent, err)
		}
		b.Close()
		s.governor.Leave()
		s.over(m)
	})
}

type slow struct{ io.Reader }

func (r slow) Read(p []byte) (int, error) {
	<-time.After(50 * time.Millisecond)
	return r.Reader.Read(p[:min(len(p), 128<<10)])
}

// TestNoPlaces has an upstream that allows no connection more.
func TestNoPlaces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, limited(), 64<<20)
		s.places = 1
		s.held = 1
		m := NewMemory(testMemory)
		b, err := s.body(t.Context(), m, 8, 0)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := s.read(b, 0); err != nil || n != s.size || s.sent != s.size || s.most != 1 {
			t.Errorf("%d bytes, %d sent by %d connections, %v", n, s.sent, s.most, err)
		}
		b.Close()
	})
}

// chance is a fetch with all that is left to chance drawn from a seed.
func chance(t *testing.T, seed uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // it is to be repeatable
	pick := func(of ...float64) float64 { return of[rng.IntN(len(of))] }
	l := &line{opening: time.Duration(rng.IntN(300)) * time.Millisecond, single: pick(0, 1e6, 20e6, 90e6), shared: pick(0, 0, 5e6, 50e6)}
	s := newServer(t, l, int64(Least+rng.IntN(40<<20)))
	s.places = rng.IntN(8)
	from := int64(rng.IntN(1 << 20))
	bound := int64(rng.IntN(10)) * Part
	m := NewMemory(bound)
	kind, often := rng.IntN(6), []int{2, 5, 20}[rng.IntN(3)]
	var mu sync.Mutex
	strikes := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return rng.IntN(often) == 0
	}
	switch kind {
	case 0:
		s.open = func(_, _ int64, _ bool) error {
			if strikes() {
				return errTest
			}
			return nil
		}
	case 1:
		s.open = func(_, _ int64, ahead bool) error {
			if ahead && strikes() {
				return ErrIgnored
			}
			return nil
		}
	case 2:
		s.bytes = func(first, last int64, _ bool) int64 {
			if strikes() {
				mu.Lock()
				defer mu.Unlock()
				return rng.Int64N(last + 1 - first)
			}
			return last + 1 - first
		}
	case 3:
		s.cut = func(_, _, _ int64, _ bool) error {
			if mu.Lock(); rng.IntN(200*often) == 0 {
				mu.Unlock()
				return errTest
			}
			mu.Unlock()
			return nil
		}
	case 4:
		s.hang = func(_, _, _ int64, ahead bool) bool {
			mu.Lock()
			defer mu.Unlock()
			return ahead && rng.IntN(500*often) == 0
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	b, err := s.body(ctx, m, 1+rng.IntN(8), from)
	if errors.Is(err, errTest) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	n, err := s.read(checked{t, b}, from)
	allowed := errors.Is(err, errTest) || errors.Is(err, io.ErrUnexpectedEOF) || kind == 4 && errors.Is(err, context.DeadlineExceeded)
	if (err == nil) != (from+n == s.size) || err != nil && !allowed {
		t.Errorf("seed %d: %d of %d bytes, %v", seed, n, s.size-from, err)
	}
	if kind != 1 && kind != 4 && err == nil && s.sent != n {
		t.Errorf("seed %d: %d bytes were sent for %d", seed, s.sent, n)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	s.governor.Leave()
	if s.now != 0 || s.held != 0 || s.governor.running != 0 || m.Left() != bound {
		t.Errorf("seed %d: %d connections, %d places, %d counted, %d bytes of %d are left", seed, s.now, s.held, s.governor.running, m.Left(), bound)
	}
}

// TestProperty has bodies of all sizes, on all lines, with all faults: their bytes
// are right, or an error says that there are no more; nothing is left of them.
func TestProperty(t *testing.T) {
	t.Parallel()
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) { chance(t, seed) })
	}
}

// FuzzBody is TestProperty for as long as one likes.
func FuzzBody(f *testing.F) {
	for seed := range uint64(10) {
		f.Add(seed + 1000)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		synctest.Test(t, func(t *testing.T) { chance(t, seed) })
	})
}
