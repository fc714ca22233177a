package disks

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Free is how many bytes and inodes can still be used.
func (d *Disk) Free() (bytes int64, inodes uint64) {
	d.t.Helper()
	var st unix.Statfs_t
	d.must(unix.Statfs(d.Path, &st))
	return int64(st.Bavail) * st.Bsize, st.Ffree
}

// Fill has somebody else take the space, but for leave bytes.
func (d *Disk) Fill(leave int64) {
	d.t.Helper()
	f, err := os.OpenFile(d.ballast(), os.O_CREATE|os.O_RDWR, 0o600)
	d.must(err)
	defer f.Close()
	// Root may use what is kept for it, and metadata takes some as well: in steps.
	for step := int64(64 << 20); step >= 4<<10; {
		free, _ := d.Free()
		take := min(step, free-leave)
		if leave == 0 {
			take = step
		}
		fi, err := f.Stat()
		d.must(err)
		if take <= 0 || unix.Fallocate(int(f.Fd()), 0, fi.Size(), take) != nil {
			step /= 2
		}
	}
	d.must(f.Sync())
}

// Empty gives back what Fill took.
func (d *Disk) Empty() {
	d.t.Helper()
	// A process that is about to run a program may have the file open still, and a
	// name that is removed gives nothing back until it has done so.
	d.must(os.Truncate(d.ballast(), 0))
	d.must(os.Remove(d.ballast()))
	// The space of a removed file is free once the journal says so.
	dir, err := os.Open(d.Path)
	d.must(err)
	defer dir.Close()
	d.must(unix.Syncfs(int(dir.Fd())))
}

// FillInodes has somebody else take all inodes but leave.
func (d *Disk) FillInodes(leave uint64) {
	d.t.Helper()
	dir := d.ballast() + ".inodes"
	d.must(os.Mkdir(dir, 0o700))
	for n := 0; ; n++ {
		if _, free := d.Free(); free <= leave {
			return
		}
		f, err := os.Create(filepath.Join(dir, fmt.Sprint(n)))
		if errors.Is(err, unix.ENOSPC) {
			return
		}
		d.must(err)
		d.must(f.Close())
	}
}

// EmptyInodes gives back what FillInodes took.
func (d *Disk) EmptyInodes() {
	d.t.Helper()
	d.must(os.RemoveAll(d.ballast() + ".inodes"))
}

func (d *Disk) ballast() string { return filepath.Join(d.Path, "ballast") }

// Immutable forbids changes in a folder and of its entries, or allows them
// again, as chattr does; not even root may then write (EPERM).
func Immutable(path string, on bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		return &fs.PathError{Op: "read flags", Path: path, Err: err}
	}
	flags &^= unix.STATX_ATTR_IMMUTABLE // the same bit as FS_IMMUTABLE_FL
	if on {
		flags |= unix.STATX_ATTR_IMMUTABLE
	}
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags); err != nil {
		return &fs.PathError{Op: "set flags", Path: path, Err: err}
	}
	return nil
}
