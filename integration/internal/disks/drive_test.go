package disks

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestDriveFails(t *testing.T) {
	t.Parallel()
	drive := NewDrive(t, 64<<20)
	d := New(t, Options{Kind: Ext4, Backing: drive.File()})
	path := filepath.Join(d.Path, "file")
	data := bytes.Repeat([]byte("larder"), 10_000)
	put(t, path, data, true)
	if drive.Unsynced() != 0 {
		t.Errorf("%d writes in the buffer after an fsync", drive.Unsynced())
	}
	d.Unmount() // so that it is read from the drive
	d.Mount()
	// Open before: an ext4 that cannot read an inode turns read-only.
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, len(data))
	drive.Set(Fault{FailReads: true})
	if _, err := f.ReadAt(got, 0); !errors.Is(err, syscall.EIO) {
		t.Errorf("read: %v, want EIO", err)
	}
	drive.Set(Fault{})
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read later: %v", err)
	}
	drive.Set(Fault{FailWrites: true})
	if _, err := f.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("fsync: %v, want EIO", err)
	}
}

func TestDriveStalls(t *testing.T) {
	t.Parallel()
	drive := NewDrive(t, 64<<20)
	d := New(t, Options{Kind: Ext4, Backing: drive.File()})
	drive.Set(Fault{Stall: true})
	synced := make(chan error, 1)
	go func() {
		f, err := os.Create(filepath.Join(d.Path, "file"))
		if err == nil {
			err = errors.Join(f.Sync(), f.Close())
		}
		synced <- err
	}()
	select {
	case err := <-synced:
		t.Errorf("fsync on a drive that stalls: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	drive.Set(Fault{})
	if err := <-synced; err != nil {
		t.Error(err)
	}
}

// A drive that says yes to a flush and does nothing loses what was synced.
func TestDriveDropsFlushes(t *testing.T) {
	t.Parallel()
	for _, lying := range []bool{false, true} {
		drive := NewDrive(t, 64<<20)
		d := New(t, Options{Kind: Ext4, Backing: drive.File()})
		d.Unmount()
		d.Mount()
		drive.Set(Fault{DropFlushes: lying})
		path := filepath.Join(d.Path, "file")
		put(t, path, []byte("synced"), true)
		d.PowerCycle(drive, nil)
		_, err := os.Stat(path)
		if lost := errors.Is(err, os.ErrNotExist); lost != lying {
			t.Errorf("drops flushes %t: %v", lying, err)
		}
		d.Check()
	}
}

// Each prefix of what a drive was told is a disk that can be mounted.
func TestReplay(t *testing.T) {
	t.Parallel()
	drive := NewDrive(t, 16<<20)
	d := New(t, Options{Kind: Ext4, Backing: drive.File()})
	d.Unmount()
	base := filepath.Join(t.TempDir(), "base")
	drive.Image(base)
	drive.Record()
	d.Mount()
	put(t, filepath.Join(d.Path, "file"), []byte("synced"), true)
	log := drive.Log()
	if len(log) < 4 {
		t.Fatalf("%d operations", len(log))
	}
	for _, n := range []int{0, len(log) / 2, len(log)} {
		image := filepath.Join(t.TempDir(), "image")
		if err := Replay(image, base, log, n, func(int) bool { return true }); err != nil {
			t.Fatal(err)
		}
		copied := New(t, Options{Kind: Ext4, Backing: image, Formatted: true})
		_, err := os.Stat(filepath.Join(copied.Path, "file"))
		if there := err == nil; there != (n == len(log)) {
			t.Errorf("after %d of %d operations: %v", n, len(log), err)
		}
		copied.Check()
	}
}

// What a drive forgets can be any part of what it was told to keep.
func TestDriveForgetsPart(t *testing.T) {
	t.Parallel()
	drive := NewDrive(t, 64<<20)
	d := New(t, Options{Kind: Ext4, Backing: drive.File()})
	d.Unmount()
	d.Mount()
	drive.Set(Fault{DropFlushes: true})
	path := filepath.Join(d.Path, "file")
	data := bytes.Repeat([]byte("larder"), 10_000)
	put(t, path, data, true)
	d.PowerCycle(drive, func(op Op) bool { return !bytes.Contains(op.Data, data[:600]) })
	got, err := os.ReadFile(path)
	if err != nil || len(got) != len(data) || bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v, right: %t; want as many, and others", len(got), err, bytes.Equal(got, data))
	}
}
