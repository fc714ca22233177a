package ownfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Lock keeps a second run out of an open folder; path is its name in the error, which wraps errdefs.ErrUnavailable if
// another is at work.
func Lock(d *os.File, path string) error {
	err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%s: another larder setup is at work there; try again when it is done: %w", path, errdefs.ErrUnavailable)
	}
	if err != nil {
		return Explain(path, fmt.Errorf("lock: %w", err))
	}
	return nil
}

// Unlock lets the next run in, and closes the folder. It unlocks in so many words: a process that another goroutine is
// just starting holds a copy of the descriptor for a moment, and closing this one alone would leave the lock to it.
func Unlock(d *os.File) {
	_ = unix.Flock(int(d.Fd()), unix.LOCK_UN)
	_ = d.Close()
}

// SyncDir syncs and closes a folder. Some file systems cannot, and there is nothing to be done about it.
func SyncDir(d *os.File) error {
	err := d.Sync()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		err = nil
	}
	return errors.Join(err, d.Close())
}

// Explain names the path of a failed file operation and says what to do about it; nil stays nil.
func Explain(path string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: run larder as root (%w): %w", path, err, errdefs.ErrPermissionDenied)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%s: write it where the node's image is built, or choose another folder: %w", path, err)
	case errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("%s: a part of the path is not a folder; move it away or choose another folder: %w", path, err)
	}
	return fmt.Errorf("%s: %w", path, err)
}
