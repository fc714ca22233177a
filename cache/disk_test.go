package cache

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
)

// smallDisk mounts a file system of 8 MiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("NOT TESTED: full disks; mounting one needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m,mode=700"); err != nil {
		t.Skipf("NOT TESTED: full disks; mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
			_ = syscall.Unmount(dir, syscall.MNT_DETACH)
		}
	})
	return dir
}

func freeBytes(t *testing.T, dir string) int64 {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}

// TestFillDiskFull fills a disk of 8 MiB with a blob of 12 MiB: who reads it
// gets all of it, and the disk gets its bytes back, though the reader holds the
// file.
func TestFillDiskFull(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t)
	s := openStore(t, dir)
	old, oldDigest := blobOf(1, 2*HoldBack)
	if err := startFill(t, s, oldDigest, -1, scripted(sends(old))).Wait(patience(t)); err != nil {
		t.Fatal(err)
	}
	before := freeBytes(t, dir)
	data, dgst := blobOf(2, 12*HoldBack)
	src := newTap(int64(len(data)))
	f := startFill(t, s, dgst, -1, src)
	r, err := f.NewReader(patience(t)) // and holds the file
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	src.flow(t, data[:HoldBack])
	waitReceived(t, f, HoldBack)
	go func() {
		src.flow(t, data[HoldBack:])
		src.w.Close()
	}()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %d bytes, %v, want all", len(got), err)
	}
	err = f.Wait(patience(t))
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("fill: %v, want no space left", err)
	}
	if h := s.Health(); h.State != StateFull || h.Passed != 1 || !strings.Contains(h.Reason, "no space left") {
		t.Errorf("health is %+v, want full, and one blob passed through", h)
	}
	if after := freeBytes(t, dir); after < before-64<<10 {
		t.Errorf("%d bytes free, %d before: the ingest's are not given back, though a reader holds them", after, before)
	}
	src.wantOffsets(t, 0)
	wantNoBlob(t, s, dgst)
	wantNoIngests(t, s)
	wantBlob(t, s, oldDigest, old)

	if err := s.Delete(t.Context(), oldDigest); err != nil {
		t.Fatal(err)
	}
	fits, fitsDigest := blobOf(3, 5*HoldBack)
	if err := startFill(t, s, fitsDigest, -1, scripted(sends(fits))).Wait(patience(t)); err != nil {
		t.Errorf("fill with space: %v", err)
	}
	wantBlob(t, s, fitsDigest, fits)
}

// TestDiskFullElsewhere has no byte left at all: everything fails with a clear
// error, nothing is damaged, and Open still works and keeps the index.
func TestDiskFullElsewhere(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t)
	s := openStore(t, dir)
	old, oldDigest := blobOf(1, HoldBack)
	if err := s.Put(t.Context(), oldDigest, old, Facts{}); err != nil {
		t.Fatal(err)
	}
	if err := s.PutTag(Tag{Name: "docker.io/library/old:1"}); err != nil {
		t.Fatal(err)
	}
	defer s.Hold(oldDigest)() // or it goes to make room
	ballast := filepath.Join(dir, "ballast")
	file, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(file, zeros{}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("ballast: %v", err)
	}
	file.Close()
	data, dgst := blobOf(2, 100_000)
	if err := s.Put(t.Context(), dgst, data, Facts{}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("put: %v, want no space left", err)
	}
	if err := startFill(t, s, dgst, -1, scripted(sends(data))).Wait(patience(t)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("fill: %v, want no space left", err)
	}
	w, err := s.Writer(t.Context(), content.WithRef("w"))
	if err == nil {
		_, err = w.Write(data)
		w.Close()
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write: %v, want no space left", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	s = openStore(t, dir)
	if _, err := s.Tag("docker.io/library/old:1"); err != nil {
		t.Errorf("index after a start with a full disk: %v", err)
	}
	wantBlob(t, s, oldDigest, old)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), dgst, data, Facts{}); err != nil {
		t.Errorf("put with space: %v", err)
	}
	wantBlob(t, s, dgst, data)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return copy(p, bytes.Repeat([]byte{0}, len(p))), nil }
