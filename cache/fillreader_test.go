package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/containerd/errdefs"
)

// TestFillReaders has readers come at any time, read at any offset, seek, and
// leave at any time, while the blob grows in pieces of any size.
func TestFillReaders(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for _, announced := range []bool{true, false} {
		s := openStore(t, t.TempDir())
		data, dgst := blobOf(1, 4*HoldBack+321)
		size := int64(-1)
		if announced {
			size = int64(len(data))
		}
		src := newTap(size)
		f := startFill(t, s, dgst, -1, src)
		rng := rand.New(rand.NewPCG(seed, 0))
		src.flow(t, data[:1])
		waitReceived(t, f, 1)
		var wg sync.WaitGroup
		for at, n := 1, 0; at < len(data); at += n {
			for range 3 {
				rng := rand.New(rand.NewPCG(seed, rng.Uint64()))
				r, err := f.NewReader(patience(t))
				if err != nil {
					t.Fatal(err)
				}
				wg.Go(func() {
					defer r.Close()
					readAtRandom(t, r, data, announced, rng)
				})
			}
			n = min(1+rng.IntN(HoldBack/2), len(data)-at)
			src.flow(t, data[at:at+n])
		}
		src.w.Close()
		wg.Wait()
		if err := f.Wait(patience(t)); err != nil {
			t.Error(err)
		}
		wantBlob(t, s, dgst, data)
		if f.file != nil {
			t.Error("the file is open after the last reader left")
		}
	}
}

// readAtRandom reads pieces from anywhere and may leave early. Some readers
// finish with the whole rest.
func readAtRandom(t *testing.T, r *FillReader, data []byte, announced bool, rng *rand.Rand) {
	off := int64(0)
	for range rng.IntN(8) {
		want := rng.Int64N(int64(len(data)))
		var err error
		switch rng.IntN(3) {
		case 0:
			off, err = r.Seek(want, io.SeekStart)
		case 1:
			off, err = r.Seek(want-off, io.SeekCurrent)
		case 2:
			off, err = r.Seek(want-int64(len(data)), io.SeekEnd)
			if errdefs.IsUnavailable(err) && !announced {
				off, err = r.Seek(want, io.SeekStart)
			}
		}
		if err != nil || off != want {
			t.Errorf("seek: %d, %v, want %d", off, err, want)
			return
		}
		p := make([]byte, 1+rng.IntN(300_000))
		n, err := r.Read(p)
		if err != nil || !bytes.Equal(p[:n], data[off:off+int64(n)]) {
			t.Errorf("read at %d: %d bytes, %v", off, n, err)
			return
		}
		off += int64(n)
	}
	if rng.IntN(2) == 0 {
		return
	}
	rest, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(rest, data[off:]) {
		t.Errorf("rest from %d: %d bytes, %v, want %d", off, len(rest), err, len(data)-int(off))
	}
}

// TestFillReaderSeek goes through the seeks that fail or lead past the end.
func TestFillReaderSeek(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	data, dgst := blobOf(1, 10)
	src := newTap(-1)
	f := startFill(t, s, dgst, -1, src)
	src.flow(t, data[:5])
	waitReceived(t, f, 5)
	ctx, cancel := context.WithCancelCause(patience(t))
	r, err := f.NewReader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.Size() != -1 {
		t.Errorf("size is %d before it is known, want -1", r.Size())
	}
	if _, err := r.Seek(0, io.SeekEnd); !errdefs.IsUnavailable(err) {
		t.Errorf("seek from an unknown end: %v, want unavailable", err)
	}
	if _, err := r.Seek(-1, io.SeekStart); !errdefs.IsInvalidArgument(err) {
		t.Errorf("seek to -1: %v, want invalid argument", err)
	}
	if _, err := r.Seek(0, 7); !errdefs.IsInvalidArgument(err) {
		t.Errorf("seek with whence 7: %v, want invalid argument", err)
	}
	if n, err := r.Read(nil); n != 0 || err != nil {
		t.Errorf("read of nothing: %d, %v", n, err)
	}
	src.flow(t, data[5:])
	src.w.Close()
	if err := f.Wait(patience(t)); err != nil {
		t.Fatal(err)
	}
	if at, err := r.Seek(-3, io.SeekEnd); at != 7 || err != nil {
		t.Errorf("seek to 3 before the end: %d, %v, want 7", at, err)
	}
	if rest, err := io.ReadAll(r); err != nil || !bytes.Equal(rest, data[7:]) {
		t.Errorf("rest: %q, %v, want the last 3 bytes", rest, err)
	}
	if _, err := r.Seek(100, io.SeekStart); err != nil {
		t.Error(err)
	}
	cause := errors.New("client is gone")
	cancel(cause)
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read past the end: %v, want EOF", err)
	}
	if f.file == nil {
		t.Error("the file was closed under a reader")
	}
	if err := errors.Join(r.Close(), r.Close()); err != nil || f.file != nil {
		t.Errorf("after the last reader left: %v, file open: %t", err, f.file != nil)
	}
}

// TestFillReaderCause has a waiting Read return why its context ended.
func TestFillReaderCause(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	data, dgst := blobOf(1, 10)
	src := newTap(-1)
	f := startFill(t, s, dgst, -1, src)
	src.flow(t, data[:5])
	waitReceived(t, f, 5)
	ctx, cancel := context.WithCancelCause(t.Context())
	r, err := f.NewReader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cause := errors.New("client is gone")
	done := make(chan error, 1)
	go func() {
		_, err := r.Read(make([]byte, 1))
		done <- err
	}()
	cancel(cause)
	if err := <-done; !errors.Is(err, cause) {
		t.Errorf("read: %v, want the cause", err)
	}
}

// TestFillReaderShortFile has somebody shorten the file below a reader: that
// is no end of the blob.
func TestFillReaderShortFile(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	data, dgst := blobOf(1, 3*HoldBack)
	src := newTap(int64(len(data)))
	f := startFill(t, s, dgst, -1, src)
	src.flow(t, data[:HoldBack])
	waitReceived(t, f, HoldBack)
	r, err := f.NewReader(patience(t))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := os.Truncate(f.file.Name(), 10); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if len(got) != 10 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read %d bytes, %v, want 10 and an unexpected end", len(got), err)
	}
	_ = src.w.CloseWithError(errHangUp)
}

// deaf is a disk that gives back nothing of what was written to it, and that takes
// its time to say so when it is synced.
type deaf struct {
	Disk
	written atomic.Bool
	synced  chan struct{}
}

func (d *deaf) OpenFile(path string, flag int, perm fs.FileMode) (File, error) {
	f, err := d.Disk.OpenFile(path, flag, perm)
	if err != nil || filepath.Base(path) != "data" {
		return f, err
	}
	return &deafFile{f, d}, nil
}

type deafFile struct {
	File
	disk *deaf
}

func (f *deafFile) WriteAt(p []byte, off int64) (int, error) {
	f.disk.written.Store(true)
	return f.File.WriteAt(p, off)
}

func (f *deafFile) ReadAt(p []byte, off int64) (int, error) {
	if f.disk.written.Load() {
		return 0, syscall.EIO
	}
	return f.File.ReadAt(p, off)
}

func (f *deafFile) Sync() error {
	<-f.disk.synced
	return syscall.EIO
}

// TestFillReaderUnreadable has a fill hang on a disk that gave a reader nothing
// back: who asks again has the bytes, and does not wait for it.
func TestFillReaderUnreadable(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		disk := &deaf{Disk: OSDisk(), synced: make(chan struct{})}
		s := openStore(t, root, WithDisk(disk))
		data, dgst := blobOf(1, 1000)
		get := func() ([]byte, error) {
			src := newTap(int64(len(data)))
			r, started, err := s.OpenFill(t.Context(), t.Context(), Origin{}, dgst, -1, src)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if started {
				src.flow(t, data)
				src.w.Close()
			}
			return io.ReadAll(r)
		}
		if got, err := get(); len(got) > 0 || !errors.Is(err, syscall.EIO) {
			t.Errorf("read of what cannot be read: %d bytes, %v, want none and EIO", len(got), err)
		}
		if got, err := get(); !bytes.Equal(got, data) || err != nil {
			t.Errorf("asked again: %d bytes, %v, want the blob's %d", len(got), err, len(data))
		}
		close(disk.synced)
	})
}

// TestFillReaderThrownAway has the bytes go, and others come, between the look
// at how far a reader may read and its read.
func TestFillReaderThrownAway(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	data, dgst := blobOf(1, 3*HoldBack)
	src := newTap(int64(len(data)))
	f := startFill(t, s, dgst, -1, src)
	src.flow(t, data[:HoldBack])
	waitReceived(t, f, HoldBack)
	r, err := f.NewReader(patience(t))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	v, err := r.look(nil)
	if v.end != HoldBack || err != nil {
		t.Fatalf("may read up to %d, %v, want %d", v.end, err, HoldBack)
	}
	f.update(func() {
		f.received = 0
		f.generation++
	})
	if n, err := r.readAt(v.file, make([]byte, 100)); n != 0 || err != nil || r.off != 0 {
		t.Errorf("read of bytes that are thrown away: %d, %v, want none", n, err)
	}
	if _, err := r.look(nil); err != nil {
		t.Errorf("reader that had none of them: %v, want it to wait for the new ones", err)
	}
	f.update(func() { f.received = HoldBack })
	if n, err := r.Read(make([]byte, 100)); n != 100 || err != nil {
		t.Errorf("read of the new bytes: %d, %v, want 100", n, err)
	}
	f.update(func() { f.generation++ })
	if n, err := r.Read(make([]byte, 100)); n != 0 || !errdefs.IsDataLoss(err) {
		t.Errorf("read by a reader that had some: %d, %v, want data loss", n, err)
	}
	_ = src.w.CloseWithError(errHangUp)
}
