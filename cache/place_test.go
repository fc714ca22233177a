package cache

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
)

// mount mounts, or skips a test that may not. It is undone in the end, also
// if the test has undone it.
func mount(t *testing.T, source, target, kind string, flags uintptr, data string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("NOT TESTED: file systems that come and go; mounting one needs root")
	}
	if err := syscall.Mount(source, target, kind, flags, data); err != nil {
		t.Skipf("NOT TESTED: file systems that come and go; mount: %v", err)
	}
}

func unmount(t *testing.T, target string) {
	t.Helper()
	if err := syscall.Unmount(target, syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
		t.Errorf("unmount %s: %v", target, err)
	}
}

// passesThrough fails the test unless a new blob reaches its reader.
func passesThrough(t *testing.T, s *Store, seed uint64) {
	t.Helper()
	data, dgst := blobOf(seed, 2*HoldBack)
	r, end, got := follow(t, startFill(t, s, dgst, -1, scripted(sends(data))))
	defer r.Close()
	if err := <-end; err != nil || got.Len() != len(data) {
		t.Errorf("fill: %d bytes, %v, want all", got.Len(), err)
	}
	synctest.Wait()
}

func wantState(t *testing.T, s *Store, want State) {
	t.Helper()
	if h := s.Health(); h.State != want {
		t.Errorf("health is %+v, want %s", h, want)
	}
}

// wantOnly fails the test unless there is nothing below the first of the folders
// but the others.
func wantOnly(t *testing.T, folders []string) {
	t.Helper()
	var found []string
	err := filepath.WalkDir(folders[0], func(path string, _ fs.DirEntry, err error) error {
		found = append(found, path)
		return err
	})
	if err != nil || !slices.Equal(found, folders) {
		t.Errorf("there is %v (%v), want %v", found, err, folders)
	}
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("%s has %v (%v), want nothing", dir, entries, err)
	}
}

// TestUnmounted takes the store's file system away while it is used: it serves
// on, writes nothing to what was below, and goes on with the store that is
// mounted next, the same one or another.
func TestUnmounted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	point, same, other := filepath.Join(dir, "point"), filepath.Join(dir, "same"), filepath.Join(dir, "other")
	// What is below looks like the folders of a store, as it does where one was
	// made before the disk was mounted for the first time.
	folders := []string{point, filepath.Join(point, "blobs"), filepath.Join(point, "blobs", "sha256"), filepath.Join(point, "ingest")}
	for _, d := range append(folders, same, other) {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	mount(t, same, point, "", syscall.MS_BIND, "")
	t.Cleanup(func() { unmount(t, point) })
	elsewhere, dgstElsewhere := blobOf(9, 1000)
	synctest.Test(t, func(t *testing.T) {
		o, err := Open(other)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(
			o.Put(t.Context(), dgstElsewhere, elsewhere, Facts{}), o.PutTag(Tag{Name: "elsewhere"}), o.Close()); err != nil {
			t.Fatal(err)
		}
		s := openStore(t, point)
		data, dgst := blobOf(1, 1000)
		if err := errors.Join(s.Put(t.Context(), dgst, data, Facts{}), s.PutTag(Tag{Name: "here"})); err != nil {
			t.Fatal(err)
		}
		half, _ := blobOf(4, 2*HoldBack)
		src := newTap(int64(len(half)))
		r, end, got := follow(t, startFill(t, s, digest.SHA512.FromBytes(half), -1, src))
		defer r.Close()
		src.flow(t, half[:HoldBack])
		synctest.Wait()
		unmount(t, point)
		src.flow(t, half[HoldBack:])
		src.w.Close()
		if err := <-end; err != nil || got.Len() != len(half) {
			t.Errorf("fill amid which the disk went: %d bytes, %v, want all", got.Len(), err)
		}
		passesThrough(t, s, 2)
		wantState(t, s, StateDegraded)
		if err := s.Put(t.Context(), dgst, data, Facts{}); !errors.Is(err, errMoved) {
			t.Errorf("put: %v, want that the folder is another", err)
		}
		<-time.After(probeEvery + time.Second)
		wantState(t, s, StateDegraded)
		wantOnly(t, folders)

		mount(t, same, point, "", syscall.MS_BIND, "")
		<-time.After(probeEvery + time.Second)
		wantState(t, s, StateOK)
		wantBlob(t, s, dgst, data)
		if _, err := s.Tag("here"); err != nil {
			t.Error(err)
		}

		unmount(t, point)
		passesThrough(t, s, 3)
		format := filepath.Join(other, "larder.json")
		if err := os.WriteFile(format, []byte(`{"format":99}`), 0o600); err != nil {
			t.Fatal(err)
		}
		mount(t, other, point, "", syscall.MS_BIND, "")
		<-time.After(2 * probeEvery)
		wantState(t, s, StateDegraded) // a newer larder's
		if err := os.WriteFile(format, []byte(`{"format":1}`), 0o600); err != nil {
			t.Fatal(err)
		}
		<-time.After(2 * probeEvery)
		wantState(t, s, StateOK)
		wantBlob(t, s, dgstElsewhere, elsewhere)
		if _, err := s.Tag("elsewhere"); err != nil {
			t.Error(err)
		}
		if _, err := Open(other); err == nil {
			t.Error("a second store is opened where this one is now")
		}
		if second, err := Open(same); err != nil {
			t.Errorf("the folder that was left: %v", err)
		} else if err := second.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestDeleted has the store's folder removed while it is used: it is made anew,
// and only if the folder above is the same.
func TestDeleted(t *testing.T) {
	t.Parallel()
	above := filepath.Join(t.TempDir(), "above")
	root := filepath.Join(above, "store")
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, root)
		if err := os.RemoveAll(root); err != nil {
			t.Fatal(err)
		}
		passesThrough(t, s, 1)
		wantState(t, s, StateDegraded)
		<-time.After(probeEvery + time.Second)
		wantState(t, s, StateOK)
		data, dgst := blobOf(2, 1000)
		if err := errors.Join(s.Put(t.Context(), dgst, data, Facts{}), s.PutTag(Tag{Name: "new"})); err != nil {
			t.Error(err)
		}
		wantBlob(t, s, dgst, data)

		if err := os.RemoveAll(filepath.Join(root, "blobs")); err != nil {
			t.Fatal(err)
		}
		passesThrough(t, s, 3)
		<-time.After(2 * probeEvery)
		wantState(t, s, StateOK)

		gone := above + ".gone"
		if err := errors.Join(os.Rename(above, gone), os.Mkdir(above, 0o700)); err != nil {
			t.Fatal(err)
		}
		passesThrough(t, s, 4)
		<-time.After(2 * probeEvery)
		wantState(t, s, StateDegraded)
		wantEmpty(t, above)
	})
}

// TestOpenReadOnly opens a store on a file system that takes no writes: what is
// there is served, tags too, the rest is passed through, and it stores as soon
// as it can.
func TestOpenReadOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mount(t, "tmpfs", dir, "tmpfs", 0, "size=32m")
	t.Cleanup(func() { unmount(t, dir) })
	synctest.Test(t, func(t *testing.T) {
		before, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		data, dgst := blobOf(1, 1000)
		if err := errors.Join(before.Put(t.Context(), dgst, data, Facts{}), before.PutTag(Tag{Name: "old"}), before.Close()); err != nil {
			t.Fatal(err)
		}
		mount(t, "tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, "")
		s := openStore(t, dir)
		wantState(t, s, StateDegraded)
		wantBlob(t, s, dgst, data)
		if _, err := s.Tag("old"); err != nil {
			t.Errorf("tag: %v, want it read", err)
		}
		if err := s.PutTag(Tag{Name: "new"}); !errors.Is(err, syscall.EROFS) {
			t.Errorf("put tag: %v, want that the disk takes no writes", err)
		}
		passesThrough(t, s, 2)
		mount(t, "tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "")
		<-time.After(2 * probeEvery)
		wantState(t, s, StateOK)
		if err := s.PutTag(Tag{Name: "new"}); err != nil {
			t.Error(err)
		}
		if _, err := s.Tag("old"); err != nil {
			t.Error(err)
		}
	})
}

// TestOpenOnNothing starts on a disk on which nothing works, and becomes a store
// when it does.
func TestOpenOnNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mount(t, "tmpfs", dir, "tmpfs", syscall.MS_RDONLY, "size=32m")
	t.Cleanup(func() { unmount(t, dir) })
	root := filepath.Join(dir, "store")
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, root)
		wantState(t, s, StateDegraded)
		passesThrough(t, s, 1)
		if _, err := s.Tags(); err == nil {
			t.Error("tags of a store without an index: no error")
		}
		mount(t, "tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "")
		<-time.After(2 * probeEvery)
		wantState(t, s, StateOK)
		data, dgst := blobOf(2, 1000)
		if err := errors.Join(s.Put(t.Context(), dgst, data, Facts{}), s.PutTag(Tag{Name: "new"})); err != nil {
			t.Error(err)
		}
		wantBlob(t, s, dgst, data)
	})
}

// eioDisk is a disk on which nothing under blobs can be read, and perhaps
// nothing removed or renamed.
type eioDisk struct {
	Disk
	broken, stuck atomic.Bool
}

func (d *eioDisk) OpenFile(path string, flag int, perm os.FileMode) (File, error) {
	f, err := d.Disk.OpenFile(path, flag, perm)
	if err != nil || filepath.Base(filepath.Dir(path)) != "sha256" {
		return f, err
	}
	return &eioFile{f, d}, nil
}

func (d *eioDisk) Remove(path string) error {
	if d.stuck.Load() {
		return syscall.EIO
	}
	return d.Disk.Remove(path)
}

func (d *eioDisk) Rename(from, to string) error {
	if d.stuck.Load() {
		return syscall.EIO
	}
	return d.Disk.Rename(from, to)
}

type eioFile struct {
	File
	disk *eioDisk
}

func (f *eioFile) Read(p []byte) (int, error) {
	if f.disk.broken.Load() {
		return 0, syscall.EIO
	}
	return f.File.Read(p)
}

// TestUnreadable has a stored blob's bytes lost. It is set aside, or at least
// forgotten until the disk is well, so that the next who asks gets a fill.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	for name, stuck := range map[string]bool{"set aside": false, "stuck": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				disk := &eioDisk{Disk: OSDisk()}
				s := openStore(t, root, WithDisk(disk))
				data, dgst := blobOf(1, 1000)
				if err := s.Put(t.Context(), dgst, data, Facts{}); err != nil {
					t.Fatal(err)
				}
				b, err := s.Open(dgst)
				if err != nil {
					t.Fatal(err)
				}
				defer b.Close()
				disk.broken.Store(true)
				disk.stuck.Store(stuck)
				if _, err := io.ReadAll(b); !errors.Is(err, syscall.EIO) {
					t.Errorf("read: %v, want the disk's error", err)
				}
				wantNoBlob(t, s, dgst)
				passes := startFill(t, s, dgst, -1, scripted(sends(data)))
				r, end, got := follow(t, passes)
				if err := <-end; err != nil || got.Len() != len(data) {
					t.Errorf("fill: %d bytes, %v, want all", got.Len(), err)
				}
				r.Close()
				disk.broken.Store(false)
				disk.stuck.Store(false)
				<-time.After(2 * probeEvery)
				wantState(t, s, StateOK)
				wantBlob(t, s, dgst, data)
			})
		})
	}
}
