package cache

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// TestSnapshotDamaged loses the index and half of the snapshot: a store begins
// anew, and keeps that half.
func TestSnapshotDamaged(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := openStore(t, root, quiet())
	populate(t, s)
	path := s.snapshotPath()
	if err := errors.Join(s.Close(), os.Remove(filepath.Join(root, "index.db")), truncateHalf(path)); err != nil {
		t.Fatal(err)
	}
	half, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s = openStore(t, root, quiet())
	if err := errors.Join(s.PutPin(Pin{Name: "x"}), s.Close()); err != nil {
		t.Fatal(err)
	}
	kept, err := filepath.Glob(path + ".damaged-*")
	if err != nil || len(kept) != 1 {
		t.Fatalf("kept %v, %v, want one", kept, err)
	}
	if text, err := os.ReadFile(kept[0]); err != nil || string(text) != string(half) {
		t.Errorf("kept: %d bytes, %v, want the %d that were left", len(text), err, len(half))
	}
	if found, _, err := s.readSnapshot(); err != nil || len(found.pins) != 1 {
		t.Errorf("pins in the new one: %v, %v, want one", found.pins, err)
	}
}

// TestRestoreIsTriedAgain has the index refuse what the snapshot has: as long as
// it is not restored the store is not attached, and then all is there.
func TestRestoreIsTriedAgain(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir(), quiet())
	populate(t, s)
	s.writeSnapshot()
	good, err := os.ReadFile(s.snapshotPath())
	if err != nil {
		t.Fatal(err)
	}
	name := "docker.io/library/" + strings.Repeat("x", bolt.MaxKeySize) + ":1"
	refused := strings.ReplaceAll(string(good), "docker.io/library/app:1", name)
	if err := errors.Join(os.WriteFile(s.snapshotPath(), []byte(refused), 0o600), os.Remove(filepath.Join(s.root, "index.db"))); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.attach(); !errors.Is(err, bolterrors.ErrKeyTooLarge) {
			t.Fatalf("attach: %v, want %v", err, bolterrors.ErrKeyTooLarge)
		}
	}
	if err := errors.Join(os.WriteFile(s.snapshotPath(), good, 0o600), s.attach()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Tag("docker.io/library/app:1"); err != nil {
		t.Errorf("tag: %v", err)
	}
}

// noFiles is a disk on which no file can be opened while it is told so.
type noFiles struct {
	Disk
	none atomic.Bool
}

func (d *noFiles) OpenFile(path string, flag int, perm fs.FileMode) (File, error) {
	if d.none.Load() && strings.Contains(path, snapshotFile) {
		return nil, &fs.PathError{Op: "open", Path: path, Err: syscall.EMFILE}
	}
	return d.Disk.OpenFile(path, flag, perm)
}

// TestSnapshotIsTriedAgain has no file descriptor left for a snapshot: Close
// writes it then, and larder's own is not taken for another program's.
func TestSnapshotIsTriedAgain(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := openStore(t, root, quiet())
	populate(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	disk := &noFiles{Disk: OSDisk()}
	disk.none.Store(true)
	s = openStore(t, root, quiet(), WithDisk(disk))
	if err := s.PutPin(Pin{Name: "docker.io/library/new"}); err != nil {
		t.Fatal(err)
	}
	s.writeSnapshot() // fails
	disk.none.Store(false)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	found, _, err := s.readSnapshot()
	if _, ok := found.pins["docker.io/library/new"]; err != nil || !ok {
		t.Errorf("%d pins, %v, want the new one among them", len(found.pins), err)
	}
	if kept, err := filepath.Glob(s.snapshotPath() + ".before-larder"); err != nil || len(kept) > 0 {
		t.Errorf("kept %v, %v, want nothing", kept, err)
	}
}
