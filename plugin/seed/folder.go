package seed

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Check says whether blobs of a store in root can be linked into containerd's
// content folder. It is errdefs.ErrNotFound if that is not there, or not yet, and
// errdefs.ErrFailedPrecondition if it never will work like this.
func Check(content, root string) error {
	at, err := placeOfBlobs(content)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is not there: is containerd's root another folder, or did it never run here: %w", content, errdefs.ErrNotFound)
	}
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(content)
	if err != nil {
		return err
	}
	for _, e := range entries { // each is made when it is needed
		if e.Name() != "blobs" && e.Name() != "ingest" {
			return fmt.Errorf("%s is no content folder of containerd: it has %s in it: %w", content, e.Name(), errdefs.ErrFailedPrecondition)
		}
	}
	store, err := placeOfBlobs(root)
	if err != nil {
		return err
	}
	switch {
	case at.device != store.device:
		return fmt.Errorf("%s and the store %s are on two file systems, between which no file can be linked: %w", content, root, errdefs.ErrFailedPrecondition)
	case at.mount != store.mount:
		return fmt.Errorf("%s and the store %s are on two mounts of one file system, between which no file can be linked (a bind mount, or ReadWritePaths= in larder's unit): %w",
			content, root, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// place is where a folder is.
type place struct {
	device, mount uint64
	owner         uint32
}

func placeOf(path string) (place, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, &st); err != nil {
		return place{}, &fs.PathError{Op: "statx", Path: path, Err: err}
	}
	p := place{device: unix.Mkdev(st.Dev_major, st.Dev_minor), owner: st.Uid}
	if st.Mask&unix.STATX_MNT_ID != 0 { // since Linux 5.8
		p.mount = st.Mnt_id
	}
	return p, nil
}

// placeOfBlobs is where the blobs below a folder are, or will be: a folder between
// may be a mount, or a link to another place.
func placeOfBlobs(path string) (place, error) {
	at, err := placeOf(path)
	for _, name := range []string{"blobs", digest.SHA256.String()} {
		if err != nil {
			break
		}
		path = filepath.Join(path, name)
		deeper, derr := placeOf(path)
		if errors.Is(derr, fs.ErrNotExist) {
			break
		}
		at, err = deeper, derr
	}
	return at, err
}

// folder is containerd's content folder. Its calls may hang as its disk does.
type folder interface {
	// check says whether the folder can be linked into.
	check() error
	// has reports whether there is anything in a blob's place.
	has(dgst digest.Digest) (bool, error)
	// admit says whether a blob's file is one that containerd may be given. It is
	// errdefs.ErrFailedPrecondition if not.
	admit(b *cache.Blob) error
	// link gives an open blob its name there, as admit lets it. That it has one is
	// no error; that the store has removed it since is errdefs.ErrFailedPrecondition.
	link(b *cache.Blob) error
	// sync has the names of this algorithm's blobs on the disk.
	sync(alg digest.Algorithm) error
}

// content is the folder at a path.
type content struct{ path, root string }

func (c content) check() error { return Check(c.path, c.root) }

// blobPath is a blob's place. Digests of a PullSet are valid.
func (c content) blobPath(dgst digest.Digest) string {
	return filepath.Join(c.algorithm(dgst.Algorithm()), dgst.Encoded())
}

func (c content) algorithm(alg digest.Algorithm) string {
	return filepath.Join(c.path, "blobs", alg.String())
}

func (c content) has(dgst digest.Digest) (bool, error) {
	var st unix.Stat_t
	switch err := unix.Lstat(c.blobPath(dgst), &st); {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, &fs.PathError{Op: "lstat", Path: c.blobPath(dgst), Err: err}
	}
	return true, nil
}

func (c content) link(b *cache.Blob) error {
	if err := c.admit(b); err != nil {
		return err
	}
	err := c.linkOpen(b)
	if errors.Is(err, fs.ErrNotExist) && isRemoved(b) {
		return fmt.Errorf("blob %s was removed from the store meanwhile: %w", b.Digest(), errdefs.ErrFailedPrecondition)
	}
	if errors.Is(err, fs.ErrNotExist) {
		// containerd makes these with its first blob.
		if err = c.makeAlgorithm(b.Digest().Algorithm()); err == nil {
			err = c.linkOpen(b)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// isRemoved reports whether an open file has no name any more. It can get none then.
func isRemoved(b *cache.Blob) bool {
	fi, err := b.Stat()
	if err != nil {
		return false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && st.Nlink == 0
}

// admit wants the owner of containerd's folder: who owns a file can write to it, and
// nobody must gain a say in what containerd has by the link.
func (c content) admit(b *cache.Blob) error {
	fi, err := b.Stat()
	if err != nil {
		return err
	}
	at, err := placeOf(c.path)
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	switch {
	case fi.Mode() != 0o444: // a file, by the bits that are not set
		return fmt.Errorf("blob %s has mode %s, want a file with 0444: %w", b.Digest(), fi.Mode(), errdefs.ErrFailedPrecondition)
	case !ok || st.Uid != at.owner:
		return fmt.Errorf("blob %s and %s do not belong to the same user: %w", b.Digest(), c.path, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// linkOpen links the file that is open, whatever is at its path now.
func (c content) linkOpen(b *cache.Blob) error {
	raw, err := b.SyscallConn()
	if err != nil {
		return fmt.Errorf("link %s: %w", b.Digest(), err)
	}
	target := c.blobPath(b.Digest())
	var lerr error
	err = raw.Control(func(fd uintptr) {
		open := "/proc/self/fd/" + strconv.FormatUint(uint64(fd), 10)
		lerr = unix.Linkat(unix.AT_FDCWD, open, unix.AT_FDCWD, target, unix.AT_SYMLINK_FOLLOW)
	})
	if err = errors.Join(err, lerr); err != nil {
		return &os.LinkError{Op: "link", Old: b.Name(), New: target, Err: err}
	}
	return nil
}

// makeAlgorithm makes the folders between containerd's own and the blobs, as it
// would.
func (c content) makeAlgorithm(alg digest.Algorithm) error {
	for _, dir := range []string{filepath.Join(c.path, "blobs"), c.algorithm(alg)} {
		switch err := os.Mkdir(dir, 0o755); {
		case errors.Is(err, fs.ErrExist):
			continue
		case err != nil:
			return err
		}
		if err := cache.SyncFolder(cache.OSDisk(), filepath.Dir(dir)); err != nil {
			return err
		}
	}
	return nil
}

func (c content) sync(alg digest.Algorithm) error {
	return cache.SyncFolder(cache.OSDisk(), c.algorithm(alg))
}
