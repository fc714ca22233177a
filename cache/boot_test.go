package cache

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// gatedDisk counts the blobs that are opened, and may hold up their readers.
type gatedDisk struct {
	Disk
	opened atomic.Int32
	gate   chan struct{} // nil: open
}

func (d *gatedDisk) OpenFile(path string, flag int, perm fs.FileMode) (File, error) {
	f, err := d.Disk.OpenFile(path, flag, perm)
	if err != nil || !strings.Contains(path, "/blobs/sha256/") {
		return f, err
	}
	d.opened.Add(1)
	return gatedFile{f, d.gate}, nil
}

type gatedFile struct {
	File
	gate chan struct{}
}

func (f gatedFile) ReadAt(p []byte, off int64) (int, error) {
	if f.gate != nil {
		<-f.gate
	}
	return f.File.ReadAt(p, off)
}

// booted opens a store in a boot of its own, an hour after the last one.
func booted(t *testing.T, root, id string, hour int, disk Disk) *Store {
	t.Helper()
	clock := time.Date(2026, 1, 1, hour, 0, 0, 0, time.UTC)
	var mu sync.Mutex
	return openStore(t, root, quiet(), WithDisk(disk), WithBoot(id), WithClock(func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		clock = clock.Add(time.Second)
		return clock
	}))
}

// TestOpenVerified reads a blob once a boot, and one that came since not at
// all.
func TestOpenVerified(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	disk := &gatedDisk{Disk: OSDisk()}
	open := func(s *Store, seed uint64, size int, reads int32) {
		t.Helper()
		_, dgst := blobOf(seed, size)
		before := disk.opened.Load()
		b, err := s.OpenVerified(t.Context(), dgst)
		if err != nil {
			t.Fatal(err)
		}
		b.Close()
		// Whom it is for is opened, too, before and after a reading.
		if got := disk.opened.Load() - before; got != 1+2*reads {
			t.Errorf("opened %d times, want %d readings", got, reads)
		}
	}
	s := booted(t, root, "a", 1, disk)
	putBlob(t, s, 1, 1000)
	open(s, 1, 1000, 0)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = booted(t, root, "b", 2, disk)
	open(s, 1, 1000, 1)
	open(s, 1, 1000, 0)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = booted(t, root, "b", 3, disk) // a restart of the daemon
	open(s, 1, 1000, 0)
	putBlob(t, s, 2, 1000)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = booted(t, root, "c", 1, disk) // with a clock that was set back
	open(s, 1, 1000, 1)
	open(s, 2, 1000, 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = booted(t, root, "", 9, disk)
	open(s, 1, 1000, 0)
}

// TestOpenVerifiedDamaged gives nobody a byte of what the last power cut
// damaged.
func TestOpenVerifiedDamaged(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := booted(t, root, "a", 1, OSDisk())
	_, dgst := putBlob(t, s, 1, 1000)
	tamper(t, s, dgst, func(f *os.File) error { _, err := f.WriteAt(make([]byte, 1000), 0); return err })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = booted(t, root, "b", 2, OSDisk())
	if _, err := s.OpenVerified(t.Context(), dgst); !errdefs.IsNotFound(err) {
		t.Errorf("open: %v, want not found", err)
	}
	if damages, err := s.Damages(); err != nil || len(damages) != 1 {
		t.Errorf("%d damages, %v, want one", len(damages), err)
	}
}

// TestOpenVerifiedIsShared has many wait for one reading; one leaves, and it
// goes on.
func TestOpenVerifiedIsShared(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := booted(t, root, "a", 1, OSDisk())
	_, dgst := putBlob(t, s, 1, 1000)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	disk := &gatedDisk{Disk: OSDisk(), gate: make(chan struct{})}
	s = booted(t, root, "b", 2, disk)
	gone, leave := context.WithCancel(patience(t))
	left := make(chan error)
	go func() {
		_, err := s.OpenVerified(gone, dgst)
		left <- err
	}()
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("who left: %v", err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			b, err := s.OpenVerified(patience(t), dgst)
			if err != nil {
				t.Error(err)
				return
			}
			b.Close()
		})
	}
	close(disk.gate)
	wg.Wait()
	if n := disk.opened.Load(); n > 1+20+20+1 {
		t.Errorf("opened %d times: more than one reading", n)
	}
}

// TestOpenVerifiedClose ends a reading.
func TestOpenVerifiedClose(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := booted(t, root, "a", 1, OSDisk())
	_, dgst := putBlob(t, s, 1, 3*copyBuffer)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	disk := &gatedDisk{Disk: OSDisk(), gate: make(chan struct{})}
	s = booted(t, root, "b", 2, disk)
	ended := make(chan error)
	go func() {
		_, err := s.OpenVerified(patience(t), dgst)
		ended <- err
	}()
	disk.gate <- struct{}{} // it is being read
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	for ending := false; !ending; runtime.Gosched() {
		s.boot.mu.Lock()
		ending = s.boot.closed
		s.boot.mu.Unlock()
	}
	close(disk.gate)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if err := <-ended; !errdefs.IsUnavailable(err) {
		t.Errorf("open: %v, want unavailable", err)
	}
	wantNoQuarantine(t, s)
}

func wantNoQuarantine(t *testing.T, s *Store) {
	t.Helper()
	if kept, err := s.listQuarantine(); err != nil || len(kept) != 0 {
		t.Errorf("quarantine: %v, %v, want it empty", kept, err)
	}
}

// TestBootID is the same for the length of a test.
func TestBootID(t *testing.T) {
	t.Parallel()
	a, err := BootID()
	b, berr := BootID()
	if err := errors.Join(err, berr); err != nil || a == "" || a != b {
		t.Errorf("boot ids %q, %q, %v", a, b, err)
	}
}
