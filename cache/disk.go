package cache

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Disk is the file system as a store uses it, and no more than that: whoever
// stands under a store can fail, tear or forget each of its calls. The lock
// and the index go past it: bbolt maps its file into memory.
//
// Errors are those of package os.
type Disk interface {
	OpenFile(path string, flag int, perm fs.FileMode) (File, error)
	Lstat(path string) (fs.FileInfo, error)
	Mkdir(path string, perm fs.FileMode) error
	Rename(from, to string) error
	// Link gives a file a second name.
	Link(from, to string) error
	// Remove removes a file or an empty folder.
	Remove(path string) error
	// Free says how much room the file system of path has.
	Free(path string) (Free, error)
}

// File is an open file or folder of a Disk.
type File interface {
	io.ReadSeekCloser
	io.ReaderAt
	io.WriterAt
	Name() string
	Stat() (fs.FileInfo, error)
	// ReadDir is that of os.File, for a folder.
	ReadDir(n int) ([]fs.DirEntry, error)
	Truncate(size int64) error
	Chmod(mode fs.FileMode) error
	// SetTime sets the times of last access and change.
	SetTime(t time.Time) error
	Sync() error
}

// Free is the room of a file system. Bytes and Inodes are what is left for
// larder, Total is the size of the whole in bytes.
type Free struct {
	Total, Bytes int64
	// Inodes is math.MaxInt64 where the file system makes them as it needs
	// them.
	Inodes int64
}

// OSDisk is the machine's own file system.
func OSDisk() Disk { return osDisk{} }

type osDisk struct{}

func (osDisk) OpenFile(path string, flag int, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err // a nil *os.File in a File would not be nil
	}
	return osFile{f}, nil
}

func (osDisk) Lstat(path string) (fs.FileInfo, error)    { return os.Lstat(path) }
func (osDisk) Mkdir(path string, perm fs.FileMode) error { return os.Mkdir(path, perm) }
func (osDisk) Rename(from, to string) error              { return os.Rename(from, to) }
func (osDisk) Link(from, to string) error                { return os.Link(from, to) }
func (osDisk) Remove(path string) error                  { return os.Remove(path) }

func (osDisk) Free(path string) (Free, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return Free{}, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	free := Free{Total: int64(st.Blocks) * st.Bsize, Bytes: int64(st.Bavail) * st.Bsize, Inodes: int64(st.Ffree)}
	if st.Files == 0 { // btrfs, for instance
		free.Inodes = 1<<63 - 1
	}
	return free, nil
}

type osFile struct{ *os.File }

// SetTime goes by the name: the calls that go by the descriptor know
// microseconds only.
func (f osFile) SetTime(t time.Time) error { return os.Chtimes(f.Name(), t, t) }

// openRead opens what is at path and nothing that it leads to: a planted link
// is not followed, a planted fifo does not hang.
func openRead(d Disk, path string) (File, error) {
	return d.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
}

// readDir lists a folder in no order.
func readDir(d Disk, path string) ([]fs.DirEntry, error) {
	dir, err := openRead(d, path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.ReadDir(-1)
}

// eachEntry calls fn for each entry of a folder, in no order. A folder of a
// million blobs is never in memory as a whole.
func eachEntry(d Disk, path string, fn func(fs.DirEntry) error) error {
	dir, err := openRead(d, path)
	if err != nil {
		return err
	}
	defer dir.Close()
	for {
		entries, err := dir.ReadDir(1024)
		for _, e := range entries {
			if err := fn(e); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// removeAll removes what is at path and below it. That nothing is there is no
// error.
func removeAll(d Disk, path string) error {
	fi, err := d.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.IsDir() {
		entries, err := readDir(d, path)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := removeAll(d, filepath.Join(path, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := d.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// writeFile writes a new file, or replaces the content of an old one. It is
// not synced.
func writeFile(d Disk, path string, data []byte, perm fs.FileMode) error {
	f, err := d.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	return errors.Join(err, f.Close())
}

// replaceFile makes path a file with this content, whole and on disk: a crash
// leaves the old one or the new one, and a stray .new at most.
func replaceFile(d Disk, path string, data []byte, perm fs.FileMode) error {
	return rewriteFile(d, path, perm, func(to *bufio.Writer) error {
		_, err := to.Write(data)
		return err
	})
}

// rewriteFile is replaceFile for what is written bit by bit.
func rewriteFile(d Disk, path string, perm fs.FileMode, write func(to *bufio.Writer) error) error {
	tmp := path + ".new"
	f, err := d.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, perm)
	if err != nil {
		return err
	}
	to := bufio.NewWriterSize(io.NewOffsetWriter(f, 0), 64<<10)
	if err = write(to); err == nil {
		err = errors.Join(to.Flush(), f.Sync())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", tmp, err), d.Remove(tmp))
	}
	if err := d.Rename(tmp, path); err != nil {
		return err
	}
	return SyncFolder(d, filepath.Dir(path))
}

// SyncFolder has the names in a folder on disk.
func SyncFolder(d Disk, path string) error {
	dir, err := d.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	err = dir.Sync()
	if err == nil {
		// XFS that has shut itself down, as when its log could not be written, has
		// dropped the names, and the fsync of their folder finds nothing left to do. To
		// look at the folder is an error then.
		_, err = dir.Stat()
	}
	if err := errors.Join(err, dir.Close()); err != nil {
		return fmt.Errorf("sync folder %s: %w", path, err)
	}
	return nil
}
