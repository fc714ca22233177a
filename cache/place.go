package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/gofrs/flock"
)

// inode is which file or folder something is, whatever its name. The zero
// value is none.
type inode struct{ dev, ino uint64 }

// place is where a store was opened. A path alone does not say: under the
// folder of a file system that was unmounted is another folder.
type place struct {
	mu    sync.Mutex // guards what follows
	root  inode
	blobs inode
	above inode // the folder in which root is
	index inode

	lock   *flock.Flock // nil: the disk did not let it be taken
	locked inode        // the root of which it is the lock
}

func (s *Store) inode(path string) (inode, error) {
	fi, err := s.disk.Lstat(path)
	if err != nil {
		return inode{}, err
	}
	return inodeOf(fi), nil
}

func inodeOf(fi fs.FileInfo) inode {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return inode{dev: uint64(st.Dev), ino: st.Ino} //nolint:unconvert // Dev has other types elsewhere
	}
	return inode{}
}

func (s *Store) blobsPath() string { return filepath.Join(s.root, "blobs") }

// checkPlace returns errMoved if the store's folders are not those that were
// opened. It must come before anything is written by name.
func (s *Store) checkPlace() error {
	p := &s.place
	p.mu.Lock()
	root, blobs := p.root, p.blobs
	p.mu.Unlock()
	if blobs == (inode{}) {
		return fmt.Errorf("store %s could not be opened: %w", s.root, errMoved)
	}
	for path, was := range map[string]inode{s.root: root, s.blobsPath(): blobs} {
		is, err := s.inode(path)
		if err != nil && !isForeign(err) {
			return err
		}
		if err != nil || is != was {
			return fmt.Errorf("%s: %w", path, errMoved)
		}
	}
	return nil
}

// attach makes the folder at root the store's: lock, layout, index. It does so
// again, as far as it is needed, after the disk has failed or the folder was
// gone. It never makes a store where another folder has come to light.
func (s *Store) attach() error {
	p := &s.place
	p.mu.Lock()
	defer p.mu.Unlock()
	root, err := s.findRoot()
	if err != nil {
		return err
	}
	// Before anything is touched, a newer larder's lock excepted.
	if p.lock == nil || root != p.locked {
		if err := s.takeLock(); err != nil {
			return err
		}
		p.locked = root
	}
	layoutErr := s.prepareLayout()
	if layoutErr != nil && !isBroken(layoutErr) {
		return layoutErr
	}
	p.root = root
	p.above, _ = s.inode(filepath.Dir(s.root)) // none: see findRoot
	p.blobs, _ = s.inode(s.blobsPath())        // none: see checkPlace
	return errors.Join(layoutErr, s.attachIndex())
}

// findRoot returns which folder is at root now, if it may be the store's. The
// place is locked.
func (s *Store) findRoot() (inode, error) {
	p := &s.place
	root, err := s.inode(s.root)
	switch {
	case errors.Is(err, fs.ErrNotExist) && p.above != (inode{}):
		// Deleted, if the folder above is still the same; else unmounted.
		if above, aerr := s.inode(filepath.Dir(s.root)); aerr != nil || above != p.above {
			return inode{}, fmt.Errorf("%s: %w", s.root, errMoved)
		}
		if err := s.disk.Mkdir(s.root, 0o700); err != nil {
			return inode{}, fmt.Errorf("store: make root: %w", err)
		}
		return s.inode(s.root)
	case err != nil:
		return inode{}, fmt.Errorf("store: %w", err)
	case p.root == (inode{}) || root == p.root:
		blobs, err := s.inode(s.blobsPath())
		if err == nil && p.blobs != (inode{}) && blobs != p.blobs && (blobs.dev != root.dev || p.blobs.dev != root.dev) {
			return inode{}, fmt.Errorf("%s: %w", s.blobsPath(), errMoved)
		}
		return root, nil
	}
	// Another folder: the same store, mounted anew, or what was below it.
	if _, err := s.disk.Lstat(s.formatPath()); err != nil {
		return inode{}, fmt.Errorf("%s: %w", s.root, errMoved)
	}
	return root, nil
}

// attachIndex opens the index, unless it is open and the file is still there.
// The place is locked.
func (s *Store) attachIndex() error {
	path := filepath.Join(s.root, "index.db")
	is, err := s.inode(path)
	if err == nil && is == s.place.index && s.index.isWritable() {
		return nil
	}
	// What was found out about the old file must not be taken for the new one's.
	s.healer.pause()
	s.place.index = inode{} // until it is restored: if that fails it is tried again
	// bbolt's own lock is on the file that is open, perhaps for reading only.
	if err := s.index.set(nil, errMoved); err != nil {
		return err
	}
	if err := s.index.open(path, s.logger); err != nil {
		return err
	}
	if is, err = s.inode(path); err != nil {
		return err
	}
	if err := s.restoreIndex(); err != nil {
		return err
	}
	s.place.index = is
	s.noteBoot()
	return nil
}

// takeLock makes this process the store's only one. The lock file holds the
// pid for the error message of the next process; the lock itself is flock's,
// so that a killed process leaves nothing to clean up. The place is locked.
func (s *Store) takeLock() error {
	path := filepath.Join(s.root, "lock")
	lock := flock.New(path, flock.SetPermissions(0o600))
	ok, err := lock.TryLock()
	if err != nil {
		return fmt.Errorf("store: lock %s: %w", path, err)
	}
	if !ok {
		holder := "another process"
		if pid, err := os.ReadFile(path); err == nil && len(pid) > 0 {
			holder = "process " + strings.TrimSpace(string(pid))
		}
		return fmt.Errorf("store %s is in use by %s: one store serves one daemon: %w", s.root, holder, errdefs.ErrUnavailable)
	}
	if err := os.WriteFile(path, fmt.Appendf(nil, "%d\n", os.Getpid()), 0o600); err != nil && !isBroken(err) {
		return errors.Join(fmt.Errorf("store: write pid to lock: %w", err), lock.Unlock())
	}
	old := s.place.lock
	s.place.lock = lock
	if old != nil {
		return old.Unlock()
	}
	return nil
}

func (s *Store) unlock() error {
	s.place.mu.Lock()
	defer s.place.mu.Unlock()
	if s.place.lock == nil {
		return nil
	}
	return s.place.lock.Unlock()
}

// isBroken tells the errors of a disk that may be well again, for which a
// store is opened all the same, from those that a person must look at first.
func isBroken(err error) bool {
	if errdefs.IsFailedPrecondition(err) || errors.Is(err, fs.ErrPermission) {
		return false
	}
	for _, e := range []error{
		errMoved, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO, syscall.EUCLEAN, syscall.EBADMSG,
		syscall.ENXIO, syscall.ENODEV, syscall.ENOMEDIUM, syscall.ESTALE, syscall.ENOTCONN, syscall.ESHUTDOWN,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// probe finds out whether the store stores again, and opens what could not be
// opened before.
func (s *Store) probe() error {
	if err := s.attach(); err != nil {
		return err
	}
	if err := s.checkPlace(); err != nil {
		return err
	}
	path := filepath.Join(s.root, "ingest", ".probe")
	f, err := s.disk.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(make([]byte, 4<<10), 0)
	if err = errors.Join(err, f.Sync(), f.Close(), s.disk.Remove(path)); err != nil {
		return err
	}
	// What was given its name while the disk failed counts when that is on disk.
	err = eachEntry(s.disk, s.blobsPath(), func(e fs.DirEntry) error {
		if !e.IsDir() {
			return nil
		}
		return SyncFolder(s.disk, filepath.Join(s.blobsPath(), e.Name()))
	})
	if err != nil {
		return err
	}
	return s.hasRoom()
}

// hasRoom returns ENOSPC as long as the disk has no room for what it had none
// for; a small part of the disk is enough, lest a huge blob keep it full.
func (s *Store) hasRoom() error {
	s.health.mu.Lock()
	state, need := s.health.now.State, s.health.need
	s.health.mu.Unlock()
	if state != StateFull {
		return nil
	}
	free, err := s.disk.Free(s.root)
	if err != nil {
		return err
	}
	if need = min(max(need, 1<<20), free.Total/20); free.Bytes < need || free.Inodes < 8 {
		return fmt.Errorf("%d bytes and %d inodes are free, %d bytes are wanted: %w", free.Bytes, free.Inodes, need, syscall.ENOSPC)
	}
	return nil
}
