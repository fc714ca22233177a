package ranged

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// line is what is between a test and its upstream, in the time of a bubble.
type line struct {
	opening time.Duration // to the first byte
	single  float64       // bytes a second of one connection; 0: no limit
	shared  float64       // bytes a second of all together; 0: no limit

	mu   sync.Mutex
	free time.Time // of the shared line
}

// pass waits until n bytes of a connection have come through.
func (l *line) pass(ctx context.Context, n int, free *time.Time) error {
	now := time.Now()
	if free.Before(now) {
		*free = now
	}
	if l.single > 0 {
		*free = free.Add(time.Duration(float64(n) / l.single * float64(time.Second)))
	}
	due := *free
	l.mu.Lock()
	if l.shared > 0 {
		if l.free.Before(now) {
			l.free = now
		}
		l.free = l.free.Add(time.Duration(float64(n) / l.shared * float64(time.Second)))
		if l.free.After(due) {
			due = l.free
		}
	}
	l.mu.Unlock()
	return pause(ctx, time.Until(due))
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// content is repeated in every blob; no part has a multiple of its length.
var content = func() []byte {
	p := make([]byte, 1<<20+7)
	rng := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // these are no secrets
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	return p
}()

// fill writes the bytes from an offset on.
func fill(p []byte, offset int64) {
	for n := 0; n < len(p); {
		n += copy(p[n:], content[(offset+int64(n))%int64(len(content)):])
	}
}

// server is a Source on a line. Its faults are set before it is used.
type server struct {
	t        *testing.T
	line     *line
	governor *Governor
	size     int64
	places   int  // for connections more than one; 0: any number
	cheap    bool // bytes are not made, and not looked at

	open  func(first, last int64, ahead bool) error             // fails an opening
	bytes func(first, last int64, ahead bool) int64             // how many come, if not all
	hang  func(first, last, done int64, ahead bool) bool        // whether they stop for ever
	cut   func(first, last, done int64, ahead bool) (err error) // whether they are cut

	mu     sync.Mutex
	asked  [][2]int64
	sent   int64
	now    int // connections
	most   int
	extras int
	held   int // extras and overlaps
}

func (s *server) Open(ctx context.Context, first, last int64) (io.ReadCloser, error) {
	return s.begin(ctx, first, last, false)
}

func (s *server) Ahead(ctx context.Context, first, last int64) (io.ReadCloser, error) {
	return s.begin(ctx, first, last, true)
}

func (s *server) begin(ctx context.Context, first, last int64, ahead bool) (io.ReadCloser, error) {
	if last >= s.size || first > last {
		s.t.Errorf("asked for %d to %d of %d", first, last, s.size)
	}
	s.mu.Lock()
	s.asked = append(s.asked, [2]int64{first, last})
	s.mu.Unlock()
	if err := pause(ctx, s.line.opening); err != nil {
		return nil, err
	}
	if s.open != nil {
		if err := s.open(first, last, ahead); err != nil {
			return nil, err
		}
	}
	end := last + 1
	if s.bytes != nil {
		end = first + s.bytes(first, last, ahead)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now++
	s.most = max(s.most, s.now)
	return &stream{server: s, ctx: ctx, first: first, last: last, next: first, end: end, ahead: ahead}, nil
}

func (s *server) More() (func(), bool) {
	if !s.governor.More() {
		return nil, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.places > 0 && s.held >= s.places {
		s.governor.Leave()
		return nil, false
	}
	s.held++
	s.extras++
	return func() {
		s.governor.Leave()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.held--
	}, true
}

func (s *server) Overlap() (func(), bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.places > 0 && s.held >= s.places {
		return nil, false
	}
	s.held++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.held--
	}, true
}

// stream is a body of a server.
type stream struct {
	server        *server
	ctx           context.Context
	first, last   int64
	next, end     int64
	free          time.Time
	ahead, closed bool
}

func (r *stream) Read(p []byte) (int, error) {
	s := r.server
	if r.closed {
		return 0, fmt.Errorf("read of a closed body")
	}
	if r.next >= r.end {
		return 0, io.EOF
	}
	if s.cut != nil {
		if err := s.cut(r.first, r.last, r.next-r.first, r.ahead); err != nil {
			return 0, err
		}
	}
	if s.hang != nil && s.hang(r.first, r.last, r.next-r.first, r.ahead) {
		<-r.ctx.Done()
		return 0, r.ctx.Err()
	}
	n := int(min(int64(len(p)), r.end-r.next, 64<<10))
	if err := s.line.pass(r.ctx, n, &r.free); err != nil {
		return 0, err
	}
	if !s.cheap {
		fill(p[:n], r.next)
	}
	r.next += int64(n)
	s.mu.Lock()
	s.sent += int64(n)
	s.mu.Unlock()
	s.governor.Received(n)
	return n, nil
}

func (r *stream) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	r.server.mu.Lock()
	defer r.server.mu.Unlock()
	r.server.now--
	return nil
}

// newServer has a blob behind a line.
func newServer(t *testing.T, l *line, size int64) *server {
	t.Helper()
	return &server{t: t, line: l, size: size, governor: new(Governor)}
}

// body opens the blob from an offset on as a client does.
func (s *server) body(ctx context.Context, m *Memory, connections int, from int64) (*Body, error) {
	last := min(from+First, s.size) - 1
	began := time.Now()
	first, err := s.Open(ctx, from, last)
	if err != nil {
		return nil, err
	}
	s.governor.Join()
	s.governor.Opened(time.Since(began), true)
	return NewBody(ctx, Options{Source: s, Governor: s.governor, Memory: m, Connections: connections, Size: s.size}, first, from, last), nil
}

// read reads a body to its end, and checks each byte.
func (s *server) read(b io.Reader, from int64) (n int64, err error) {
	buf := make([]byte, 256<<10)
	want := make([]byte, len(buf))
	for {
		k, err := b.Read(buf)
		if !s.cheap {
			fill(want[:k], from+n)
			if string(want[:k]) != string(buf[:k]) {
				return n, fmt.Errorf("wrong bytes at %d", from+n)
			}
		}
		n += int64(k)
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// fetch reads the whole blob, and says how long it took.
func (s *server) fetch(m *Memory, connections int) time.Duration {
	s.t.Helper()
	began := time.Now()
	b, err := s.body(s.t.Context(), m, connections, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	n, err := s.read(b, 0)
	took := time.Since(began)
	if err != nil || n != s.size {
		s.t.Errorf("%d bytes, %v, want %d", n, err, s.size)
	}
	if err := b.Close(); err != nil {
		s.t.Error(err)
	}
	s.governor.Leave()
	s.over(m)
	return took
}

// over checks that nothing is left of a body.
func (s *server) over(m *Memory) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now != 0 || s.held != 0 {
		s.t.Errorf("%d connections are open, %d places held", s.now, s.held)
	}
	if left := m.Left(); left != testMemory {
		s.t.Errorf("%d bytes of memory are left, want %d", left, testMemory)
	}
	if g := s.governor; g.running != 0 {
		s.t.Errorf("the governor counts %d connections", g.running)
	}
}

const testMemory = 16 << 20

// TestSpeedup compares the times of one connection with those of as many as are
// worth it, on lines of several kinds, in virtual time. No byte comes twice.
func TestSpeedup(t *testing.T) {
	t.Parallel()
	const mb = 1e6
	for name, tc := range map[string]struct {
		line        *line
		size        int64
		least, most float64 // of the time of one
		connections int
	}{
		"limited per connection":       {&line{opening: 50 * time.Millisecond, single: 20 * mb}, 256 << 20, 0, .3, 8},
		"the same, one GiB":            {&line{opening: 50 * time.Millisecond, single: 20 * mb}, 1 << 30, 0, .25, 8},
		"shared line":                  {&line{opening: 50 * time.Millisecond, shared: 25 * mb}, 256 << 20, 0, 1.02, 2},
		"shared, slow":                 {&line{opening: 100 * time.Millisecond, shared: 2 * mb}, 64 << 20, 0, 1.02, 2},
		"shared, fast":                 {&line{opening: 20 * time.Millisecond, shared: 125 * mb}, 1 << 30, 0, 1.02, 2},
		"shared, far":                  {&line{opening: 400 * time.Millisecond, shared: 25 * mb}, 256 << 20, 0, 1.02, 2},
		"limited, and shared by three": {&line{opening: 50 * time.Millisecond, single: 20 * mb, shared: 60 * mb}, 512 << 20, 0, .5, 8},
		"fast":                         {&line{opening: time.Millisecond, single: 1000 * mb}, 1 << 30, 0, 1.02, 2},
		"small":                        {&line{opening: 50 * time.Millisecond, single: 20 * mb}, Least, 0, 1.02, 2},
		"middling":                     {&line{opening: 50 * time.Millisecond, single: 20 * mb}, 64 << 20, 0, .5, 8},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := NewMemory(testMemory)
				one := tc.line.opening + time.Duration(float64(tc.size)/min(orAny(tc.line.single), orAny(tc.line.shared))*float64(time.Second))
				s := newServer(t, tc.line, tc.size)
				s.cheap = tc.size > 64<<20
				took := s.fetch(m, 8)
				ratio := float64(took) / float64(one)
				t.Logf("%s, one alone %s: %.3f; %d requests, at most %d connections", took, one, ratio, len(s.asked), s.most)
				if ratio < tc.least || ratio > tc.most || s.most > tc.connections {
					t.Errorf("ratio is %.3f, want %.2f to %.2f; %d connections, want at most %d", ratio, tc.least, tc.most, s.most, tc.connections)
				}
				if s.sent != tc.size {
					t.Errorf("%d bytes were sent, want %d", s.sent, tc.size)
				}
			})
		})
	}
}

func orAny(speed float64) float64 {
	if speed == 0 {
		return 1e12
	}
	return speed
}
