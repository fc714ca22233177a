package cache_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/cache/disktest"
)

// get brings a blob as the mirror does, and asks once more if it is cut off, as
// containerd does. It reports how often it was cut off.
func get(ctx context.Context, s *cache.Store, b sample) (cuts int, _ error) {
	for {
		got, err := getOnce(ctx, s, b)
		switch {
		case err == nil && bytes.Equal(got, b.data):
			return cuts, nil
		case err == nil:
			return cuts, fmt.Errorf("clean end after %d wrong bytes", len(got))
		case !bytes.HasPrefix(b.data, got):
			return cuts, fmt.Errorf("%d wrong bytes before %w", len(got), err)
		case cuts == 2:
			return cuts, err
		}
		cuts++
	}
}

func getOnce(ctx context.Context, s *cache.Store, b sample) ([]byte, error) {
	blob, err := s.Open(b.digest)
	if err == nil {
		defer blob.Close()
		return readAll(blob, b)
	}
	var r *cache.FillReader
	if errdefs.IsNotFound(err) {
		r, _, err = s.OpenFill(ctx, ctx, cache.Origin{}, b.digest, int64(len(b.data)), b)
	} else {
		r, err = s.Bypass(ctx, ctx, cache.Origin{}, b.digest, int64(len(b.data)), b, err)
	}
	if errdefs.IsAlreadyExists(err) {
		return getOnce(ctx, s, b) // it was published between the two looks
	}
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if err := r.Fill().WaitReadable(ctx, 0); err != nil {
		return nil, err
	}
	return readAll(r, b)
}

// readAll is io.ReadAll with room for the blob from the start: the race detector makes
// each byte that is copied dear.
func readAll(r io.Reader, b sample) ([]byte, error) {
	got := bytes.NewBuffer(make([]byte, 0, len(b.data)+bytes.MinRead))
	_, err := got.ReadFrom(r)
	return got.Bytes(), err
}

// wantWhole fails the test unless every published file has the bytes that its
// name says.
func wantWhole(t *testing.T, root string) {
	t.Helper()
	dir := filepath.Join(root, "blobs", "sha256")
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Error(err)
	}
	for _, e := range entries {
		f, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Error(err)
			continue
		}
		if got, err := digest.FromReader(f); err != nil || got.Encoded() != e.Name() {
			t.Errorf("published blob %s has other bytes, of %s (%v)", e.Name(), got, err)
		}
		f.Close()
	}
}

// TestFaultyDiskFailsNoPull has the n-th call of a pull fail, for every n until
// none does, once or from there on: everybody gets the right bytes, what is
// published is whole, and a disk that is well again stores again.
func TestFaultyDiskFailsNoPull(t *testing.T) {
	t.Parallel()
	const once, ever = false, true
	blobs := faultySamples()
	for _, tc := range []struct {
		err   syscall.Errno
		calls []disktest.Call
		ever  []bool
	}{
		{syscall.EIO, nil, []bool{once, ever}},
		{syscall.ENOSPC, []disktest.Call{disktest.Open, disktest.Mkdir, disktest.Rename, disktest.Write, disktest.Sync}, []bool{once, ever}},
		{syscall.EROFS, disktest.Changes(), []bool{ever}},
		{syscall.EMFILE, []disktest.Call{disktest.Open}, []bool{once}},
		{syscall.EACCES, []disktest.Call{disktest.Open, disktest.Mkdir}, []bool{ever}},
		{syscall.EXDEV, []disktest.Call{disktest.Rename}, []bool{once, ever}},
		{syscall.ESTALE, []disktest.Call{disktest.Lstat}, []bool{ever}},
	} {
		for _, ever := range tc.ever {
			t.Run(fmt.Sprintf("%s ever %t", tc.err.Error(), ever), func(t *testing.T) {
				t.Parallel()
				tries := 0
				for failed := true; failed && !t.Failed(); {
					tries++
					root := t.TempDir()
					synctest.Test(t, func(t *testing.T) {
						disk := disktest.NewFaulty(cache.OSDisk())
						failed = pullFromFaulty(t, root, disk, blobs, func() {
							if ever {
								disk.FailFrom(tries, tc.err, tc.calls...)
							} else {
								disk.Fail(tries, tc.err, tc.calls...)
							}
						})
					})
					if t.Failed() {
						t.Logf("call %d failed", tries)
					}
				}
				t.Logf("%d calls", tries-1)
				if tries < 2 {
					t.Error("nothing failed")
				}
			})
		}
	}
}

// TestUnpublishedLeavesNothing: a blob that could not be published leaves no
// ingest, whichever call it was.
func TestUnpublishedLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, call := range []disktest.Call{disktest.Rename, disktest.Chmod, disktest.Sync, disktest.SetTime} {
		disk := disktest.NewFaulty(cache.OSDisk())
		s, err := cache.Open(t.TempDir(), cache.WithDisk(disk), quick(), quiet())
		if err != nil {
			t.Fatal(err)
		}
		disk.FailFrom(1, syscall.EXDEV, call)
		b := newSample(1, 100<<10)
		if _, err := get(t.Context(), s, b); err != nil {
			t.Errorf("%s fails: %v", call, err)
		}
		// Who closes waits for the fill to end.
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if !disk.Failed() {
			t.Errorf("%s did not fail: this test shows nothing", call)
		}
		if st, err := s.ListStatuses(t.Context()); err != nil || len(st) > 0 {
			t.Errorf("%s fails: ingests %v, %v are left, want none", call, st, err)
		}
	}
}

// faultySamples are the blobs that are pulled from a disk that fails: one that is
// stored, one that is begun, one that is new and one that is small.
func faultySamples() [4]sample {
	return [4]sample{newSample(1, 100<<10), newSample(2, 300<<10), newSample(3, 1300<<10), newSample(4, 900)}
}

// pullFromFaulty reports whether something failed.
func pullFromFaulty(t *testing.T, root string, disk *disktest.Faulty, blobs [4]sample, plan func()) (failed bool) {
	stored, begun := blobs[0], blobs[1]
	ctx := t.Context()
	s, err := cache.Open(root, cache.WithDisk(disk), quick(), quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}()
	if err := fill(ctx, s, stored, stored.digest); err != nil {
		t.Fatal(err)
	}
	if err := fill(ctx, s, begun.upTo(200<<10), begun.digest); err == nil {
		t.Fatal("the broken fill does not fail")
	}
	plan()
	for i, b := range blobs {
		// What was sent of a stored blob, or of the begin of a blob that is on
		// disk, cannot be continued: the client asks again.
		if cuts, err := get(ctx, s, b); err != nil || cuts > 1 {
			t.Errorf("blob %d: %d cuts, %v, want the right bytes", i, cuts, err)
		}
	}
	synctest.Wait()
	failed = disk.Failed()
	disk.Heal()
	wantWhole(t, root)
	<-time.After(21 * time.Second)
	synctest.Wait()
	if h := s.Health(); h.State != cache.StateOK {
		t.Errorf("health is %+v after the disk is well, want ok", h)
	}
	for i, b := range blobs {
		if _, err := get(ctx, s, b); err != nil {
			t.Errorf("blob %d after the disk is well: %v", i, err)
		}
		synctest.Wait()
		if has, err := s.Has(b.digest); !has || err != nil {
			t.Errorf("blob %d is stored: %t, %v, want true", i, has, err)
		}
	}
	if st, err := s.ListStatuses(ctx); err != nil || len(st) > 0 {
		t.Errorf("ingests are left: %v, %v", st, err)
	}
	wantWhole(t, root)
	return failed
}
