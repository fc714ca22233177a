package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
)

// readOnly is a disk that takes no writes behind the first n bytes.
type readOnly struct {
	Disk
	left atomic.Int64
}

func (d *readOnly) OpenFile(path string, flag int, perm fs.FileMode) (File, error) {
	f, err := d.Disk.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err
	}
	return &readOnlyFile{f, d}, nil
}

type readOnlyFile struct {
	File
	disk *readOnly
}

func (f *readOnlyFile) WriteAt(p []byte, off int64) (int, error) {
	if f.disk.left.Add(-int64(len(p))) < 0 {
		return 0, syscall.EROFS
	}
	return f.File.WriteAt(p, off)
}

// degraded opens a store whose disk is read-only from now on.
func degraded(t *testing.T, root string, opts ...Option) *Store {
	t.Helper()
	disk := &readOnly{Disk: OSDisk()}
	disk.left.Store(1 << 20)
	s := openStore(t, root, append(opts, WithDisk(disk))...)
	disk.left.Store(0)
	return s
}

// follow reads a fill to its end, in a goroutine.
func follow(t *testing.T, f *Fill) (r *FillReader, end <-chan error, got *lockedBuffer) {
	t.Helper()
	r, err := f.NewReader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	got = &lockedBuffer{}
	go func() {
		_, err := io.Copy(got, r)
		done <- err
	}()
	return r, done, got
}

// TestPassThrough has a blob of many windows pass through, for two readers from
// its begin and one that waits far ahead. All get what they want, and the memory
// is given back.
func TestPassThrough(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int64{"announced": 20 << 20, "unknown": -1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				s := degraded(t, root)
				data, dgst := blobOf(1, 20<<20)
				src := newTap(size)
				f := startFill(t, s, dgst, -1, src)
				r1, end1, got1 := follow(t, f)
				defer r1.Close()
				r2, end2, got2 := follow(t, f)
				defer r2.Close()
				ahead, err := f.NewReader(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer ahead.Close()
				const at = 15 << 20
				if _, err := ahead.Seek(at, io.SeekStart); err != nil {
					t.Fatal(err)
				}
				endAhead := make(chan error, 1)
				go func() {
					tail, err := io.ReadAll(ahead)
					if err == nil && !bytes.Equal(tail, data[at:]) {
						err = fmt.Errorf("read %d other bytes", len(tail))
					}
					endAhead <- err
				}()
				src.flow(t, data)
				synctest.Wait()
				if n := got1.Len(); n != len(data)-HoldBack {
					t.Errorf("%d bytes readable before the digest matched, want %d", n, len(data)-HoldBack)
				}
				if s.windows.TryAcquire(windowTotal) {
					t.Error("the window is not counted")
				}
				src.w.Close()
				if err := errors.Join(<-end1, <-end2, <-endAhead); err != nil {
					t.Error(err)
				}
				if !bytes.Equal(got1.Bytes(), data) || !bytes.Equal(got2.Bytes(), data) {
					t.Errorf("read %d and %d bytes, want the blob's %d", got1.Len(), got2.Len(), len(data))
				}
				synctest.Wait()
				for _, r := range []*FillReader{r1, r2, ahead} {
					r.Close()
				}
				if !s.windows.TryAcquire(windowTotal) {
					t.Error("the window's memory is not given back")
				}
				wantNoBlob(t, s, dgst)
				if err := f.Wait(t.Context()); !errors.Is(err, syscall.EROFS) {
					t.Errorf("wait: %v, want the disk's error", err)
				}
			})
		})
	}
}

// TestPassThroughWrongBytes: what does not match never ends cleanly.
func TestPassThroughWrongBytes(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"small": 1000, "large": 9 << 20} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				s := degraded(t, root)
				data, dgst := blobOf(1, size)
				data[size/2] ^= 1
				f := startFill(t, s, dgst, -1, scripted(sends(data)))
				r, end, got := follow(t, f)
				defer r.Close()
				if err := <-end; !errdefs.IsDataLoss(err) {
					t.Errorf("read: %v, want data loss", err)
				}
				if n := got.Len(); n > max(0, size-HoldBack) {
					t.Errorf("read %d of %d wrong bytes", n, size)
				}
			})
		})
	}
}

// TestPassThroughMidway: the disk takes the begin of a blob, and no more. A
// reader that was slow still gets it from the file; the upstream is held, and
// its clock with it; who asks later gets a fill of its own.
func TestPassThroughMidway(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		disk := &readOnly{Disk: OSDisk()}
		disk.left.Store(3 << 20)
		s := openStore(t, root, WithDisk(disk), WithFillPolicy(FillPolicy{Stall: 30 * time.Second, Attempts: 1}))
		data, dgst := blobOf(1, 12<<20)
		src := scripted(sends(data))
		f := startFill(t, s, dgst, -1, src)
		slow, err := f.NewReader(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer slow.Close()
		synctest.Wait()
		p, _ := f.Progress()
		if p.Unstored == nil || p.Received < windowSize || p.Received > windowSize+3<<20 {
			t.Errorf("progress is %+v, want it to wait with a full window", p)
		}
		<-time.After(time.Hour) // nobody else waits: it may take its time
		again := scripted(sends(data))
		other := startFill(t, s, dgst, -1, again)
		r, end, got := follow(t, other)
		if err := <-end; err != nil || !bytes.Equal(got.Bytes(), data) {
			t.Errorf("who asked later: %d bytes, %v, want all", got.Len(), err)
		}
		r.Close()
		if all, err := io.ReadAll(slow); err != nil || !bytes.Equal(all, data) {
			t.Errorf("slow reader: %d bytes, %v, want all", len(all), err)
		}
		synctest.Wait()
		src.wantOffsets(t, 0)
		again.wantOffsets(t, 0)
		if len(s.refs) != 0 || len(s.alone) != 0 || len(s.fills) != 0 {
			t.Errorf("%d refs, %d and %d fills are left", len(s.refs), len(s.alone), len(s.fills))
		}
		wantNoIngests(t, s)
	})
}

// TestPassThroughSleeper: a reader that takes nothing is cut after a stall, if
// another one waits for more.
func TestPassThroughSleeper(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := degraded(t, root, WithFillPolicy(FillPolicy{Stall: 30 * time.Second, Attempts: 1}))
		data, dgst := blobOf(1, 12<<20)
		f := startFill(t, s, dgst, -1, scripted(sends(data)))
		sleeper, err := f.NewReader(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer sleeper.Close()
		if _, err := io.ReadFull(sleeper, make([]byte, 100)); err != nil {
			t.Error(err)
		}
		r, end, got := follow(t, f)
		defer r.Close()
		begin := time.Now()
		if err := <-end; err != nil || !bytes.Equal(got.Bytes(), data) {
			t.Errorf("the other: %d bytes, %v, want all", got.Len(), err)
		}
		if took := time.Since(begin); took < 30*time.Second || took > 2*time.Minute {
			t.Errorf("it waited %s for the sleeper, want about a stall", took)
		}
		if _, err := io.ReadAll(sleeper); !errdefs.IsUnavailable(err) {
			t.Errorf("sleeper: %v, want unavailable", err)
		}
	})
}

// TestPassThroughNobody ends at once when its last reader leaves, and soon if
// there never is one; it fits into a window if it is small.
func TestPassThroughNobody(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := degraded(t, root, WithFillPolicy(FillPolicy{Stall: 30 * time.Second, Attempts: 3}))
		data, dgst := blobOf(1, 12<<20)
		src := scripted(sends(data))
		begin := time.Now()
		f := startFill(t, s, dgst, -1, src)
		if err := f.WaitReadable(t.Context(), windowSize); !errdefs.IsUnavailable(err) || time.Since(begin) != 30*time.Second {
			t.Errorf("without readers: %v after %s, want unavailable after a stall", err, time.Since(begin))
		}
		f = startFill(t, s, dgst, -1, src)
		r, err := f.NewReader(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		begin = time.Now()
		r.Close()
		if err := f.WaitReadable(t.Context(), windowSize); !errdefs.IsUnavailable(err) || time.Since(begin) != 0 {
			t.Errorf("left alone: %v after %s, want unavailable at once", err, time.Since(begin))
		}
		src.wantOffsets(t, 0, 0)
		if _, err := f.NewReader(t.Context()); !errdefs.IsUnavailable(err) {
			t.Errorf("reader of it: %v, want unavailable", err)
		}
	})
}

// TestPassThroughLimit: the memory of all windows is bounded, a small blob
// takes little of it, and who gets none is told.
func TestPassThroughLimit(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := degraded(t, root)
		ctx, leave := context.WithCancel(t.Context())
		for i := range uint64(windowTotal / windowSize) {
			data, dgst := blobOf(i, 5<<20)
			r, err := startFill(t, s, dgst, -1, scripted(sends(data))).NewReader(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
		}
		synctest.Wait()
		data, dgst := blobOf(100, 5<<20)
		r, end, _ := follow(t, startFill(t, s, dgst, -1, scripted(sends(data))))
		defer r.Close()
		if err := <-end; !errdefs.IsResourceExhausted(err) {
			t.Errorf("one too many: %v, want resource exhausted", err)
		}
		leave()
	})
}

// TestHealth: a store whose disk fails says so once, and tries again by itself.
func TestHealth(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		disk := &readOnly{Disk: OSDisk()}
		disk.left.Store(1 << 20)
		s := openStore(t, root, WithDisk(disk))
		if h := s.Health(); h.State != StateOK || h.Reason != "" {
			t.Errorf("health is %+v, want ok", h)
		}
		disk.left.Store(0)
		began := time.Now()
		for i := range uint64(3) {
			data, dgst := blobOf(i, 1000)
			r, end, _ := follow(t, startFill(t, s, dgst, -1, scripted(sends(data))))
			if err := <-end; err != nil {
				t.Error(err)
			}
			r.Close()
		}
		if h := s.Health(); h.State != StateDegraded || h.Passed != 3 || !h.Since.Equal(began) || h.Reason == "" {
			t.Errorf("health is %+v, want degraded since %s with 3 passed through", h, began)
		}
		<-time.After(probeEvery + time.Second)
		if h := s.Health(); h.State != StateDegraded {
			t.Errorf("health is %+v, want it to stay degraded", h)
		}
		disk.left.Store(1 << 20)
		<-time.After(probeEvery + time.Second)
		if h := s.Health(); h.State != StateOK || h.Passed != 0 || !h.Since.After(began) {
			t.Errorf("health is %+v, want ok by itself", h)
		}
	})
}
