package cache

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// du is what the file system says of the blobs and of unfinished bytes.
func du(t *testing.T, s *Store) (files, stored, unfinished int64) {
	t.Helper()
	err := filepath.WalkDir(s.Root(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		fi, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a snapshot that has its name by now
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(s.Root(), path)
		switch {
		case strings.HasPrefix(rel, "blobs/"):
			files++
			stored += fi.Sys().(*syscall.Stat_t).Blocks * 512
		case filepath.Base(rel) == "data":
			unfinished += fi.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files, stored, unfinished
}

// wantUsage compares what is counted with what the file system says.
func wantUsage(t *testing.T, s *Store, when string) Usage {
	t.Helper()
	u, err := s.Usage()
	if err != nil {
		t.Fatal(err)
	}
	files, stored, unfinished := du(t, s)
	if u.Blobs != files || u.Stored != stored || u.Unfinished != unfinished {
		t.Errorf("%s: counted %d blobs of %d and %d unfinished, there are %d of %d and %d",
			when, u.Blobs, u.Stored, u.Unfinished, files, stored, unfinished)
	}
	if u.Taken != u.Stored+u.Unfinished+u.Promised+u.Other || u.Other <= 0 {
		t.Errorf("%s: the parts do not make the whole: %+v", when, u)
	}
	return u
}

func putSeeded(t testing.TB, s *Store, seed uint64, size int) digest.Digest {
	t.Helper()
	data, dgst := blobOf(seed, size)
	if err := s.Put(t.Context(), dgst, data, Facts{}); err != nil {
		t.Fatal(err)
	}
	return dgst
}

// TestUsage counts as the file system does, through all ways in and out, and
// over a restart without a look at the blobs.
func TestUsage(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := openStore(t, root)
	wantUsage(t, s, "empty")
	putSeeded(t, s, 1, 1)
	gone := putSeeded(t, s, 2, 100_000)
	putSeeded(t, s, 2, 100_000) // again
	wantUsage(t, s, "put")
	if err := s.Delete(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	wantUsage(t, s, "deleted")

	w, err := s.Writer(t.Context(), content.WithRef("a"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 9000)); err != nil {
		t.Fatal(err)
	}
	if u := wantUsage(t, s, "unfinished"); u.Promised >= 4096 {
		t.Errorf("%d bytes are promised to a writer that announced none", u.Promised)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	wantUsage(t, s, "left")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	d := &countingDisk{Disk: OSDisk(), below: filepath.Join(root, "blobs") + "/"}
	s = openStore(t, root, WithDisk(d))
	if u := wantUsage(t, s, "opened again"); u.Doubtful || d.looks.Load() > 1 {
		t.Errorf("doubtful %t, %d looks at blobs, want none but the sync", u.Doubtful, d.looks.Load())
	}
	if err := s.Abort(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	wantUsage(t, s, "aborted")
}

// countingDisk counts the calls for paths below one.
type countingDisk struct {
	Disk
	below string
	looks atomic.Int64
}

func (d *countingDisk) OpenFile(path string, flag int, perm fs.FileMode) (File, error) {
	if strings.HasPrefix(path, d.below) {
		d.looks.Add(1)
	}
	return d.Disk.OpenFile(path, flag, perm)
}

func (d *countingDisk) Lstat(path string) (fs.FileInfo, error) {
	if strings.HasPrefix(path, d.below) {
		d.looks.Add(1)
	}
	return d.Disk.Lstat(path)
}

// TestUsageAfterCrash: what a process did not write down is doubtful until the
// blobs were counted.
func TestUsageAfterCrash(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	putSeeded(t, s, 1, 5000)
	putSeeded(t, s, 2, 50_000)
	s.usage.mu.Lock()
	s.usage.blobs = tally{}
	s.usage.mu.Unlock()
	s.openUsage() // as the next process does behind one that was killed
	if u, err := s.Usage(); err != nil || !u.Doubtful {
		t.Errorf("usage after a crash is %+v, %v, want it doubtful", u, err)
	}
	if err := s.Recount(t.Context()); err != nil {
		t.Fatal(err)
	}
	if u := wantUsage(t, s, "counted"); u.Doubtful || u.Counted.IsZero() {
		t.Errorf("usage after a recount is %+v", u)
	}
}

// TestRecountCountsOnce plays every order of a walk and of changes.
func TestRecountCountsOnce(t *testing.T) {
	t.Parallel()
	_, dgst := blobOf(1, 1)
	pass := func(u *usage) { u.recount.pass(dgst, 10) }
	going := func(u *usage) { u.changing(dgst, 10) }
	gone := func(u *usage) { u.deleted(dgst, 10) }
	coming := func(u *usage) { u.changing(dgst, 0) }
	come := func(u *usage) { u.published(dgst, 10, "") }
	failed := func(u *usage) { u.unchanged(dgst) }
	for name, c := range map[string]struct {
		steps []func(*usage)
		want  int64
	}{
		"walked":                   {[]func(*usage){pass}, 10},
		"goes behind the walk":     {[]func(*usage){pass, going, gone}, 0},
		"goes before the walk":     {[]func(*usage){going, gone}, 0},
		"goes under the walk":      {[]func(*usage){going, pass, gone}, 0},
		"could not go":             {[]func(*usage){going, failed, pass}, 10},
		"goes and comes":           {[]func(*usage){pass, going, gone, coming, come, pass}, 10},
		"comes before the walk":    {[]func(*usage){coming, come, pass}, 10},
		"comes under the walk":     {[]func(*usage){coming, pass, come}, 10},
		"comes and goes":           {[]func(*usage){coming, come, pass, going, gone}, 0},
		"comes, goes, and is seen": {[]func(*usage){coming, come, going, gone, coming, come, pass}, 10},
	} {
		u := &usage{ingests: map[string]*room{}, recount: &recount{changed: map[digest.Digest]struct{}{}}}
		for _, step := range c.steps {
			step(u)
		}
		if got := u.recount.sum.Bytes; got != c.want {
			t.Errorf("%s: counted %d, want %d", name, got, c.want)
		}
	}
}

// TestRecountWhileInUse: what comes and goes during the walk counts once.
func TestRecountWhileInUse(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	for i := range uint64(200) {
		putSeeded(t, s, i, 100)
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for n := range uint64(4) {
		wg.Go(func() {
			for i := uint64(0); ctx.Err() == nil; i++ {
				data, dgst := blobOf(1000*(n+1)+i%100, 5000)
				if err := s.Put(t.Context(), dgst, data, Facts{}); err != nil {
					t.Error(err)
				}
				_, old := blobOf(50*n+i%50, 100)
				if err := s.Delete(t.Context(), old); err != nil && !errdefs.IsNotFound(err) {
					t.Error(err)
				}
				if i%3 == 0 {
					if err := s.Delete(t.Context(), dgst); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	for range 20 {
		if err := s.Recount(t.Context()); err != nil {
			t.Error(err)
		}
	}
	cancel()
	wg.Wait()
	wantUsage(t, s, "counted twenty times meanwhile")
}

// TestUsageOfDamaged: a blob in the quarantine is counted there alone.
func TestUsageOfDamaged(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir(), quiet())
	dgst := putSeeded(t, s, 1, 50_000)
	putSeeded(t, s, 2, 50_000)
	if err := s.Damaged(t.Context(), dgst, errors.New("test")); err != nil {
		t.Fatal(err)
	}
	wantUsage(t, s, "one is set aside")
	putSeeded(t, s, 1, 50_000)
	wantUsage(t, s, "it came again")
}

// TestUseOfChangedBlob: that a blob was used does not have its size measured anew
// once somebody has changed the file.
func TestUseOfChangedBlob(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir(), quiet())
	_, dgst := blobOf(1, 1000)
	data, _ := blobOf(1, 1000)
	if err := s.Put(t.Context(), dgst, data, Facts{}); err != nil {
		t.Fatal(err)
	}
	s.Touch("", dgst)
	path, err := s.blobPath(dgst)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(path, 0o600), os.Truncate(path, 10)); err != nil {
		t.Fatal(err)
	}
	s.writeUses()
	if b, err := s.OpenVerified(t.Context(), dgst); !errdefs.IsNotFound(err) {
		b.Close()
		t.Errorf("10 bytes of 1000 are served: %v", err)
	}
}
