package cache

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// TestQuarantineIsBounded keeps the newest, within the bounds in number and in
// bytes, and what is not larder's.
func TestQuarantineIsBounded(t *testing.T) {
	t.Parallel()
	clock := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	disk := &smallTotal{Disk: OSDisk(), total: 1 << 20}
	s := openStore(t, t.TempDir(), quiet(), WithDisk(disk), WithClock(func() time.Time { clock = clock.Add(time.Millisecond); return clock }))
	foreign := filepath.Join(s.root, "quarantine", "a-person's.file")
	if err := errors.Join(os.Mkdir(filepath.Dir(foreign), 0o700), os.WriteFile(foreign, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	damage := func(seed uint64, size int) digest.Digest {
		_, dgst := putBlob(t, s, seed, size)
		tamper(t, s, dgst, flip(0, 0))
		if err := s.Verify(t.Context(), dgst, nil); !errdefs.IsDataLoss(err) {
			t.Fatalf("verify: %v", err)
		}
		return dgst
	}
	folder := digest.FromString("an empty folder is in its place")
	path, _ := s.blobPath(folder)
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), folder, nil); !errdefs.IsDataLoss(err) {
		t.Fatalf("verify: %v", err)
	}
	var last digest.Digest
	for i := range 30 {
		last = damage(uint64(i), 10)
	}
	kept, err := s.listQuarantine()
	if err != nil || len(kept) != quarantineFiles+1 || !strings.Contains(kept[0].name, last.Encoded()) || !kept[quarantineFiles].isDir {
		t.Errorf("%d files kept, the newest %+v, %v, want %d and the folder", len(kept), kept[0], err, quarantineFiles)
	}
	damage(99, 20_000) // more than a hundredth of the disk
	kept, err = s.listQuarantine()
	if err != nil || len(kept) != quarantineFiles+1 || kept[0].bytes == 20_000 {
		t.Errorf("%d files kept, the newest %+v, %v, want the small ones", len(kept), kept[0], err)
	}
	wantUsage(t, s, "set aside")
	if _, err := os.Stat(foreign); err != nil {
		t.Errorf("file of somebody else: %v", err)
	}
	if damages, err := s.Damages(); err != nil || len(damages) != 32 {
		t.Errorf("%d damages recorded, %v, want all 32", len(damages), err)
	}
}

type smallTotal struct {
	Disk
	total int64
}

func (d *smallTotal) Free(path string) (Free, error) {
	free, err := d.Disk.Free(path)
	free.Total = d.total
	return free, err
}

// TestDamagesAreBounded keeps the newest records.
func TestDamagesAreBounded(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	s.index.db.NoSync = true
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var wg sync.WaitGroup
	for i := range maxDamages + 50 {
		wg.Go(func() {
			d := Damage{Digest: digest.FromString("x"), Found: begin.Add(time.Duration(i) * time.Second)}
			if err := s.index.putDamage(d); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	damages, err := s.Damages()
	if err != nil || len(damages) != maxDamages || !damages[len(damages)-1].Found.Equal(begin.Add((maxDamages+49)*time.Second)) {
		t.Errorf("%d damages, %v, want the newest %d", len(damages), err, maxDamages)
	}
}

// stuckDisk cannot rename.
type stuckDisk struct{ Disk }

func (stuckDisk) Rename(from, to string) error {
	if strings.Contains(to, "quarantine") {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: syscall.ENOSPC}
	}
	return os.Rename(from, to)
}

// TestDamagedIsNeverLeft removes what it cannot move, but no folder.
func TestDamagedIsNeverLeft(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir(), quiet(), WithDisk(stuckDisk{OSDisk()}))
	_, dgst := putBlob(t, s, 1, 1000)
	if err := s.Damaged(t.Context(), dgst, errors.New("why")); err != nil {
		t.Fatal(err)
	}
	wantNoBlob(t, s, dgst)
	damages, err := s.Damages()
	if err != nil || len(damages) != 1 || damages[0].Kept != "" {
		t.Errorf("damages: %+v, %v, want one that is not kept", damages, err)
	}
	path, _ := s.blobPath(dgst)
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Damaged(t.Context(), dgst, errors.New("why")); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("damaged folder: %v, want the error", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("folder: %v, want it left", err)
	}
}

// FuzzQuarantineName takes its own names only, whatever lies in the folder.
func FuzzQuarantineName(f *testing.F) {
	_, dgst := blobOf(1, 1)
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	name := quarantineName(dgst, at)
	for _, seed := range []string{"", name, name + "x", "../" + name, "sha256-.20260102T030405.000000006Z", strings.ToUpper(name), "sha256-\x00.x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		dgst, at, ok := parseQuarantineName(text)
		if !ok {
			return
		}
		if quarantineName(dgst, at) != text || strings.ContainsAny(text, "/\x00") || dgst.Validate() != nil {
			t.Errorf("%q is taken for %s at %v", text, dgst, at)
		}
	})
	if got, when, ok := parseQuarantineName(name); !ok || got != dgst || !when.Equal(at) {
		f.Errorf("%q: %s, %v, %t", name, got, when, ok)
	}
}
