package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// TestFillHoldsBackTail shows how far a reader of a running fill gets, for
// blobs around the size of the hold back.
func TestFillHoldsBackTail(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		size, sent int // of the blob; before the upstream pauses
		announced  bool
		want       int // readable in the pause
	}{
		"large":                         {3 * HoldBack, 3*HoldBack - 1, true, 2 * HoldBack},
		"large, all but digest":         {3 * HoldBack, 3 * HoldBack, true, 2 * HoldBack},
		"large, beginning":              {3 * HoldBack, HoldBack / 2, true, HoldBack / 2},
		"large, size unknown":           {3 * HoldBack, 3 * HoldBack, false, 2 * HoldBack},
		"large, size unknown, midway":   {3 * HoldBack, 2*HoldBack + 7, false, HoldBack + 7},
		"one byte more than held back":  {HoldBack + 1, HoldBack + 1, true, 1},
		"as much as held back":          {HoldBack, HoldBack, true, 0},
		"small":                         {1000, 1000, true, 0},
		"small, size unknown":           {1000, 999, false, 0},
		"one byte, which is verified":   {1, 1, true, 0},
		"two bytes, one of which is in": {2, 1, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				s := openStore(t, root)
				data, dgst := blobOf(1, tc.size)
				size := int64(-1)
				if tc.announced {
					size = int64(tc.size)
				}
				src := newTap(size)
				f := startFill(t, s, dgst, -1, src)
				synctest.Wait()
				r, err := f.NewReader(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				var got lockedBuffer
				end := make(chan error, 1)
				go func() {
					_, err := io.Copy(&got, r)
					end <- err
				}()
				src.flow(t, data[:tc.sent])
				synctest.Wait()
				if n := got.Len(); n != tc.want {
					t.Errorf("reader has %d of %d bytes, %d sent, want %d", n, tc.size, tc.sent, tc.want)
				}
				src.flow(t, data[tc.sent:])
				src.w.Close()
				if err := <-end; err != nil {
					t.Error(err)
				}
				if !bytes.Equal(got.Bytes(), data) {
					t.Errorf("read %d other bytes, want the blob's %d", got.Len(), tc.size)
				}
				if err := f.Wait(t.Context()); err != nil {
					t.Error(err)
				}
				wantBlob(t, s, dgst, data)
			})
		})
	}
}

// lockedBuffer is a bytes.Buffer that may be looked at while it grows.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Len()
}

func (l *lockedBuffer) Bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.b.Bytes())
}

// TestFillWrongBytes shows what a reader gets of a blob whose bytes are wrong:
// an error before the held back bytes, and no clean end.
func TestFillWrongBytes(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"small": 1000, "large": 3 * HoldBack} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openStore(t, t.TempDir())
			data, dgst := blobOf(1, size)
			wrong := bytes.Clone(data)
			wrong[len(wrong)/3] ^= 1
			src := newTap(int64(size))
			f := startFill(t, s, dgst, int64(size), src)
			src.flow(t, wrong[:1])
			waitReceived(t, f, 1)
			r, err := f.NewReader(patience(t))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			go func() {
				src.flow(t, wrong[1:])
				src.w.Close()
			}()
			got, err := io.ReadAll(r)
			if !errdefs.IsDataLoss(err) {
				t.Errorf("read: %v, want data loss", err)
			}
			if len(got) > max(0, size-HoldBack) {
				t.Errorf("read %d of %d bytes, want at most %d", len(got), size, max(0, size-HoldBack))
			}
			if err := f.Wait(patience(t)); !errdefs.IsDataLoss(err) || errdefs.IsFailedPrecondition(err) {
				t.Errorf("fill: %v, want data loss and no other kind", err)
			}
			if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, io.EOF) {
				t.Errorf("read after the end: %d, %v, want an error", n, err)
			}
			src.wantOffsets(t, 0)
			wantNoBlob(t, s, dgst)
			wantNoIngests(t, s)

			// The fault is gone: the next fill works.
			if err := startFill(t, s, dgst, -1, scripted(sends(data))).Wait(patience(t)); err != nil {
				t.Error(err)
			}
			wantBlob(t, s, dgst, data)
		})
	}
}

func wantNoIngests(t *testing.T, s *Store) {
	t.Helper()
	st, err := s.ListStatuses(t.Context())
	if err != nil || len(st) != 0 {
		t.Errorf("ingests: %v, %v, want none", st, err)
	}
}

// TestFillOneSource has 50 callers ask for one blob at once.
func TestFillOneSource(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	data, dgst := blobOf(1, 2*HoldBack)
	src := newTap(int64(len(data)))
	var wg, joined sync.WaitGroup
	var mu sync.Mutex
	starts := 0
	joined.Add(50) // before a byte flows: later ones find the blob
	for range 50 {
		wg.Go(func() {
			f, started, err := s.Fill(t.Context(), dgst, -1, src)
			joined.Done()
			if err != nil {
				t.Error(err)
				return
			}
			if started {
				mu.Lock()
				starts++
				mu.Unlock()
			}
			if got, err := readFill(patience(t), f); err != nil || !bytes.Equal(got, data) {
				t.Errorf("read %d bytes, %v, want all", len(got), err)
			}
		})
	}
	joined.Wait()
	for part := data; len(part) > 0; part = part[min(len(part), 100_000):] {
		src.flow(t, part[:min(len(part), 100_000)])
	}
	src.w.Close()
	wg.Wait()
	if starts != 1 {
		t.Errorf("%d callers started a fill, want 1", starts)
	}
	src.wantOffsets(t, 0)
	f, _, err := s.Fill(t.Context(), dgst, -1, src)
	if err == nil { // all have their bytes, and the fill is about to end
		if err := f.Wait(patience(t)); err != nil {
			t.Error(err)
		}
		_, _, err = s.Fill(t.Context(), dgst, -1, src)
	}
	if !errdefs.IsAlreadyExists(err) {
		t.Errorf("fill of a published blob: %v, want already exists", err)
	}
}

// readFill reads a fill from its begin, or the blob if it is over.
func readFill(ctx context.Context, f *Fill) ([]byte, error) {
	if err := f.WaitReadable(ctx, 0); err != nil {
		return nil, err
	}
	r, err := f.NewReader(ctx)
	if errdefs.IsAlreadyExists(err) {
		b, err := f.store.Open(f.Digest())
		if err != nil {
			return nil, err
		}
		defer b.Close()
		return io.ReadAll(b)
	}
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// TestFillOutlivesReaders has the context that began the fill end, and every
// reader leave, before the bytes come.
func TestFillOutlivesReaders(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	data, dgst := blobOf(1, 2*HoldBack)
	src := newTap(int64(len(data)))
	type key struct{}
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "kept"))
	values := make(chan any, 1)
	f, _, err := s.Fill(ctx, dgst, -1, sourceFunc(func(ctx context.Context, offset int64) (Stream, error) {
		values <- ctx.Value(key{})
		return src.Open(ctx, offset)
	}))
	if err != nil {
		t.Fatal(err)
	}
	src.flow(t, data[:HoldBack+10])
	waitReceived(t, f, HoldBack+10)
	waiting, err := f.NewReader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	reading, err := f.NewReader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(reading, make([]byte, 5)); err != nil {
		t.Error(err)
	}
	if err := errors.Join(reading.Close(), reading.Close()); err != nil {
		t.Error(err)
	}
	cancel()
	if _, err := io.ReadAll(waiting); !errors.Is(err, context.Canceled) {
		t.Errorf("read past the end of the context: %v, want canceled", err)
	}
	waiting.Close()
	if err := f.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("wait past the end of the context: %v, want canceled", err)
	}
	if p, _ := f.Progress(); p.Done || p.Received < HoldBack+10 {
		t.Fatalf("fill is %+v, want it to run on", p)
	}
	src.flow(t, data[HoldBack+10:])
	src.w.Close()
	if err := f.Wait(patience(t)); err != nil {
		t.Error(err)
	}
	if got := <-values; got != "kept" {
		t.Errorf("value of the context is %v, want it kept", got)
	}
	wantBlob(t, s, dgst, data)
	src.wantOffsets(t, 0)
}

// sourceFunc is a Source of one function.
type sourceFunc func(ctx context.Context, offset int64) (Stream, error)

func (fn sourceFunc) Open(ctx context.Context, offset int64) (Stream, error) { return fn(ctx, offset) }

// TestFillStalls has the watchdog end attempts that are too slow.
func TestFillStalls(t *testing.T) {
	t.Parallel()
	policy := FillPolicy{Stall: 30 * time.Second, MinSpeed: 1 << 10, Attempts: 2, Pause: time.Second}
	need := 30 << 10 // bytes in each span
	for name, tc := range map[string]struct {
		every    time.Duration // between pieces
		piece    int
		headers  time.Duration // before upstream answers
		atLeast  time.Duration // that the fill lasts
		attempts int
		stored   bool // in the end
	}{
		"no answer":          {headers: time.Hour, atLeast: 30 * time.Second, attempts: 1},
		"slow answer":        {headers: 28 * time.Second, piece: need, every: time.Second, atLeast: 30 * time.Second, attempts: 1, stored: true},
		"answer and silence": {piece: 0, every: time.Hour, atLeast: 60 * time.Second, attempts: 2},
		"drip":               {piece: need / 31, every: time.Second, attempts: 2, atLeast: 60 * time.Second},
		"just fast enough":   {piece: need/29 + 1, every: time.Second, attempts: 1, atLeast: 90 * time.Second, stored: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				s := openStore(t, root, WithFillPolicy(policy))
				data, dgst := blobOf(1, 4*need)
				var opened []int64
				src := sourceFunc(func(ctx context.Context, offset int64) (Stream, error) {
					opened = append(opened, offset)
					if err := sleep(ctx, tc.headers); err != nil {
						return Stream{}, err
					}
					body := &slowBody{ctx: ctx, data: data[offset:], piece: tc.piece, every: tc.every}
					return Stream{Body: body, Size: int64(len(data)), Upstream: "upstream.test"}, nil
				})
				begin := time.Now()
				f := startFill(t, s, dgst, -1, src)
				err := f.Wait(t.Context())
				took := time.Since(begin)
				if tc.stored && err != nil || !tc.stored && !errdefs.IsUnavailable(err) {
					t.Errorf("fill: %v", err)
				}
				if took < tc.atLeast || took > tc.atLeast*3 {
					t.Errorf("fill took %s, want about %s", took, tc.atLeast)
				}
				if len(opened) != tc.attempts {
					t.Errorf("source was opened at %v, want %d times", opened, tc.attempts)
				}
			})
		})
	}
}

// slowBody sends piece bytes every so often, until its context ends.
type slowBody struct {
	ctx   context.Context
	data  []byte
	piece int
	every time.Duration
}

func (b *slowBody) Read(p []byte) (int, error) {
	if len(b.data) == 0 {
		return 0, io.EOF
	}
	if err := sleep(b.ctx, b.every); err != nil {
		return 0, err
	}
	n := copy(p, b.data[:min(b.piece, len(b.data))])
	b.data = b.data[n:]
	return n, nil
}

func (b *slowBody) Close() error { return nil }

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestFillRefusesBadDigest has no digest lead to a fill, or to a panic.
func TestFillRefusesBadDigest(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	for _, dgst := range []digest.Digest{"", "sha256", "sha256:", "sha256:../../x", "md5:d41d8cd98f00b204e9800998ecf8427e"} {
		if _, _, err := s.Fill(t.Context(), dgst, -1, scripted(sends(nil))); !errdefs.IsInvalidArgument(err) {
			t.Errorf("fill of %q: %v, want invalid argument", dgst, err)
		}
	}
}

// TestFillClose has Close end the fills at once and keep what they have.
func TestFillClose(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := openStore(t, root)
	data, dgst := blobOf(1, 2*HoldBack)
	src := newTap(int64(len(data)))
	f := startFill(t, s, dgst, -1, src)
	src.flow(t, data[:HoldBack+1])
	waitReceived(t, f, HoldBack+1)
	r, err := f.NewReader(patience(t))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := f.Wait(patience(t)); !errdefs.IsUnavailable(err) {
		t.Errorf("fill: %v, want unavailable", err)
	}
	if _, err := io.ReadAll(r); !errdefs.IsUnavailable(err) {
		t.Errorf("read: %v, want unavailable", err)
	}
	if _, err := f.NewReader(t.Context()); !errdefs.IsUnavailable(err) {
		t.Errorf("new reader: %v, want unavailable", err)
	}
	if _, _, err := s.Fill(t.Context(), dgst, -1, src); !errdefs.IsUnavailable(err) {
		t.Errorf("fill of a closed store: %v, want unavailable", err)
	}
	again := scripted(sends(data))
	s = openStore(t, root)
	if err := startFill(t, s, dgst, -1, again).Wait(patience(t)); err != nil {
		t.Error(err)
	}
	again.wantOffsets(t, HoldBack+1)
	wantBlob(t, s, dgst, data)
}

// TestWaitReadable shows when clients are told to go ahead.
func TestWaitReadable(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, root)
		data, dgst := blobOf(1, 2*HoldBack)
		src := newTap(int64(len(data)))
		answer := make(chan struct{})
		f := startFill(t, s, dgst, -1, sourceFunc(func(ctx context.Context, offset int64) (Stream, error) {
			<-answer
			return src.Open(ctx, offset)
		}))
		short := func(offset int64) error {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			return f.WaitReadable(ctx, offset)
		}
		if err := short(0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without an answer: %v, want deadline exceeded", err)
		}
		close(answer)
		synctest.Wait()
		begin := time.Now()
		if err := short(0); err != nil || time.Since(begin) != 3*time.Second {
			t.Errorf("with an answer, without bytes: %v after %s, want nil at the end", err, time.Since(begin))
		}
		src.flow(t, data[:100])
		synctest.Wait()
		begin = time.Now()
		if err := short(99); err != nil || time.Since(begin) != 0 {
			t.Errorf("byte that is there: %v after %s, want nil at once", err, time.Since(begin))
		}
		if err := short(100); err != nil || time.Since(begin) != 3*time.Second {
			t.Errorf("byte that is not there: %v after %s, want nil at the end", err, time.Since(begin))
		}
		src.flow(t, data[100:])
		src.w.Close()
		if err := f.WaitReadable(t.Context(), 1<<40); err != nil {
			t.Errorf("past the end of a verified blob: %v, want nil", err)
		}
		if err := f.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait() // it lets go of its file behind that
		if _, err := f.NewReader(t.Context()); !errdefs.IsAlreadyExists(err) {
			t.Errorf("reader of a fill that is over: %v, want already exists", err)
		}
	})
}
