package disktest

import (
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/larder-project/larder/cache"
)

// Call is a kind of call of a cache.Disk or its files.
type Call string

// The calls that can be made to fail. Closing a file and asking for its name
// always work.
const (
	Open     Call = "open"
	Lstat    Call = "lstat"
	Mkdir    Call = "mkdir"
	Rename   Call = "rename"
	Link     Call = "link"
	Remove   Call = "remove"
	Statfs   Call = "statfs"
	Read     Call = "read" // ReadAt and ReadDir, too
	Write    Call = "write"
	Stat     Call = "stat"
	Truncate Call = "truncate"
	Chmod    Call = "chmod"
	SetTime  Call = "settime"
	Sync     Call = "sync"
)

// Changes are the calls that a read-only disk refuses, and a full one may.
func Changes() []Call {
	return []Call{Mkdir, Rename, Link, Remove, Write, Truncate, Chmod, SetTime, Sync}
}

// Faulty is a cache.Disk whose calls fail when it is told so. A failing write
// writes the first half. It is safe for concurrent use.
type Faulty struct {
	disk cache.Disk

	mu    sync.Mutex // guards what follows
	err   error
	kinds []Call // that count; none: all do
	first int    // the call that fails
	ever  bool   // all after it, too
	calls int    // that counted
}

// NewFaulty puts a Faulty over a disk. Nothing fails yet.
func NewFaulty(disk cache.Disk) *Faulty { return &Faulty{disk: disk} }

// Fail has the n-th call from now on of these kinds (none: of any) fail with
// err, and no other.
func (d *Faulty) Fail(n int, err error, kinds ...Call) { d.plan(n, err, false, kinds) }

// FailFrom has the n-th call of these kinds and all after it fail, until Heal.
func (d *Faulty) FailFrom(n int, err error, kinds ...Call) { d.plan(n, err, true, kinds) }

// Heal lets everything work again.
func (d *Faulty) Heal() { d.plan(0, nil, false, nil) }

func (d *Faulty) plan(n int, err error, ever bool, kinds []Call) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.first, d.err, d.ever, d.kinds, d.calls = n, err, ever, kinds, 0
}

// Failed reports whether a call has failed since the last plan was made.
func (d *Faulty) Failed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err != nil && d.calls >= d.first
}

// check returns the error of a call, if it is to fail.
func (d *Faulty) check(call Call, path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil || len(d.kinds) > 0 && !slices.Contains(d.kinds, call) {
		return nil
	}
	d.calls++
	if d.calls == d.first || d.ever && d.calls > d.first {
		return &fs.PathError{Op: string(call), Path: path, Err: d.err}
	}
	return nil
}

// OpenFile implements cache.Disk.
func (d *Faulty) OpenFile(path string, flag int, perm fs.FileMode) (cache.File, error) {
	if err := d.check(Open, path); err != nil {
		return nil, err
	}
	f, err := d.disk.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err
	}
	return &faultyFile{File: f, disk: d}, nil
}

// Lstat implements cache.Disk.
func (d *Faulty) Lstat(path string) (fs.FileInfo, error) {
	if err := d.check(Lstat, path); err != nil {
		return nil, err
	}
	return d.disk.Lstat(path)
}

// Mkdir implements cache.Disk.
func (d *Faulty) Mkdir(path string, perm fs.FileMode) error {
	if err := d.check(Mkdir, path); err != nil {
		return err
	}
	return d.disk.Mkdir(path, perm)
}

// Rename implements cache.Disk.
func (d *Faulty) Rename(from, to string) error {
	if err := d.check(Rename, from); err != nil {
		return err
	}
	return d.disk.Rename(from, to)
}

// Link implements cache.Disk.
func (d *Faulty) Link(from, to string) error {
	if err := d.check(Link, from); err != nil {
		return err
	}
	return d.disk.Link(from, to)
}

// Remove implements cache.Disk.
func (d *Faulty) Remove(path string) error {
	if err := d.check(Remove, path); err != nil {
		return err
	}
	return d.disk.Remove(path)
}

// Free implements cache.Disk.
func (d *Faulty) Free(path string) (cache.Free, error) {
	if err := d.check(Statfs, path); err != nil {
		return cache.Free{}, err
	}
	return d.disk.Free(path)
}

type faultyFile struct {
	cache.File
	disk *Faulty
}

func (f *faultyFile) Read(p []byte) (int, error) {
	if err := f.disk.check(Read, f.Name()); err != nil {
		return 0, err
	}
	return f.File.Read(p)
}

func (f *faultyFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.disk.check(Read, f.Name()); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

func (f *faultyFile) ReadDir(n int) ([]fs.DirEntry, error) {
	if err := f.disk.check(Read, f.Name()); err != nil {
		return nil, err
	}
	return f.File.ReadDir(n)
}

func (f *faultyFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.disk.check(Write, f.Name()); err != nil {
		n, werr := f.File.WriteAt(p[:len(p)/2], off)
		if werr != nil {
			err = werr
		}
		return n, err
	}
	return f.File.WriteAt(p, off)
}

func (f *faultyFile) Stat() (fs.FileInfo, error) {
	if err := f.disk.check(Stat, f.Name()); err != nil {
		return nil, err
	}
	return f.File.Stat()
}

func (f *faultyFile) Truncate(size int64) error {
	if err := f.disk.check(Truncate, f.Name()); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *faultyFile) Chmod(mode fs.FileMode) error {
	if err := f.disk.check(Chmod, f.Name()); err != nil {
		return err
	}
	return f.File.Chmod(mode)
}

func (f *faultyFile) SetTime(t time.Time) error {
	if err := f.disk.check(SetTime, f.Name()); err != nil {
		return err
	}
	return f.File.SetTime(t)
}

func (f *faultyFile) Sync() error {
	if err := f.disk.check(Sync, f.Name()); err != nil {
		return err
	}
	return f.File.Sync()
}
