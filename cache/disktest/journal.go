// Package disktest has file systems for tests of a store: what the real one
// does once in a year, they do at once.
package disktest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/larder-project/larder/cache"
)

// Journal is a cache.Disk that notes each call that changes something, so that
// any power cut between two of them can be played afterwards: see Crash. It is
// safe for concurrent use.
type Journal struct {
	disk cache.Disk
	root string

	base remains // what was there before

	mu   sync.Mutex // makes one of a change and its note
	ops  []op
	live tree // as the calls have left it
	next int  // the next file's number
}

// op is a change. A file or folder is known by its number, since names change
// hands; the root is 0.
type op struct {
	kind   opKind
	file   int    // that is written, synced, named or unnamed
	dir    int    // in which name is given or taken
	name   string // new, old or renamed from
	toDir  int    // of a rename
	toName string
	offset int64 // of a write
	data   []byte
	size   int64 // of a truncate
	mode   fs.FileMode
}

type opKind int

const (
	opCreate opKind = iota // file gets its name
	opMkdir
	opRename
	opLink // file gets another name
	opRemove
	opWrite
	opTruncate
	opChmod
	opSync // of a file's bytes, or of a folder's names
)

// tree has the names in each folder.
type tree map[int]map[string]int

// NewJournal puts a journal over the files and folders below root, which it
// keeps in memory. What is there already counts as synced.
func NewJournal(root string) (*Journal, error) {
	j := &Journal{disk: cache.OSDisk(), root: root, live: tree{0: {}}, base: newRemains(), next: 1}
	return j, j.adopt(0, root)
}

// adopt notes what is in a folder.
func (j *Journal) adopt(dir int, path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	for _, e := range entries {
		path, file := filepath.Join(path, e.Name()), j.next
		fi, err := e.Info()
		if err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		j.next++
		j.live[dir][e.Name()] = file
		j.base.name(dir, e.Name(), file)
		j.base.modes[file] = fi.Mode().Perm()
		if !e.IsDir() {
			if j.base.data[file], err = os.ReadFile(path); err != nil {
				return fmt.Errorf("journal: %w", err)
			}
			continue
		}
		j.live[file], j.base.names[file] = map[string]int{}, map[string]int{}
		if err := j.adopt(file, path); err != nil {
			return err
		}
	}
	return nil
}

// Len is how many changes were made.
func (j *Journal) Len() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.ops)
}

// find returns the number of what has a path now.
func (j *Journal) find(path string) (file int, ok bool) {
	rel, err := filepath.Rel(j.root, path)
	if err != nil {
		return 0, false
	}
	if rel == "." {
		return 0, true
	}
	for name := range strings.SplitSeq(rel, string(filepath.Separator)) {
		if file, ok = j.live[file][name]; !ok {
			return 0, false
		}
	}
	return file, true
}

// place returns the folder of a path.
func (j *Journal) place(path string) (dir int, name string) {
	dir, _ = j.find(filepath.Dir(path))
	return dir, filepath.Base(path)
}

// enter notes a new file or folder.
func (j *Journal) enter(kind opKind, path string, mode fs.FileMode) (file int) {
	dir, name := j.place(path)
	file = j.next
	j.next++
	j.live[dir][name] = file
	if kind == opMkdir {
		j.live[file] = map[string]int{}
	}
	j.ops = append(j.ops, op{kind: kind, file: file, dir: dir, name: name, mode: mode})
	return file
}

// OpenFile implements cache.Disk.
func (j *Journal) OpenFile(path string, flag int, perm fs.FileMode) (cache.File, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f, err := j.disk.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err
	}
	file, known := j.find(path)
	switch {
	case !known && flag&os.O_CREATE != 0:
		file = j.enter(opCreate, path, perm)
	case known && flag&os.O_TRUNC != 0:
		j.ops = append(j.ops, op{kind: opTruncate, file: file})
	}
	return &journalFile{File: f, journal: j, file: file}, nil
}

// Lstat implements cache.Disk.
func (j *Journal) Lstat(path string) (fs.FileInfo, error) { return j.disk.Lstat(path) }

// Free implements cache.Disk.
func (j *Journal) Free(path string) (cache.Free, error) { return j.disk.Free(path) }

// Mkdir implements cache.Disk.
func (j *Journal) Mkdir(path string, perm fs.FileMode) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.disk.Mkdir(path, perm); err != nil {
		return err
	}
	j.enter(opMkdir, path, perm)
	return nil
}

// Rename implements cache.Disk.
func (j *Journal) Rename(from, to string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.disk.Rename(from, to); err != nil {
		return err
	}
	dir, name := j.place(from)
	toDir, toName := j.place(to)
	file := j.live[dir][name]
	j.ops = append(j.ops, op{kind: opRename, file: file, dir: dir, name: name, toDir: toDir, toName: toName})
	delete(j.live[dir], name)
	j.live[toDir][toName] = file
	return nil
}

// Link implements cache.Disk.
func (j *Journal) Link(from, to string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.disk.Link(from, to); err != nil {
		return err
	}
	file, _ := j.find(from)
	dir, name := j.place(to)
	j.ops = append(j.ops, op{kind: opLink, file: file, dir: dir, name: name})
	j.live[dir][name] = file
	return nil
}

// Remove implements cache.Disk.
func (j *Journal) Remove(path string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.disk.Remove(path); err != nil {
		return err
	}
	dir, name := j.place(path)
	j.ops = append(j.ops, op{kind: opRemove, file: j.live[dir][name], dir: dir, name: name})
	delete(j.live[dir], name)
	return nil
}

// journalFile notes what is done to an open file.
type journalFile struct {
	cache.File
	journal *Journal
	file    int
}

// change makes one of a change and its note. What fails in part is noted as
// far as do says.
func (f *journalFile) change(do func() (op, error)) error {
	f.journal.mu.Lock()
	defer f.journal.mu.Unlock()
	o, err := do()
	o.file = f.file
	if err == nil || len(o.data) > 0 {
		f.journal.ops = append(f.journal.ops, o)
	}
	return err
}

func (f *journalFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.change(func() (op, error) {
		n, err = f.File.WriteAt(p, off)
		return op{kind: opWrite, offset: off, data: append([]byte(nil), p[:n]...)}, err
	})
	return n, err
}

func (f *journalFile) Truncate(size int64) error {
	return f.change(func() (op, error) { return op{kind: opTruncate, size: size}, f.File.Truncate(size) })
}

func (f *journalFile) Chmod(mode fs.FileMode) error {
	return f.change(func() (op, error) { return op{kind: opChmod, mode: mode}, f.File.Chmod(mode) })
}

func (f *journalFile) Sync() error {
	return f.change(func() (op, error) { return op{kind: opSync}, f.File.Sync() })
}

// SetTime is not noted: nothing may depend on it.
func (f *journalFile) SetTime(t time.Time) error { return f.File.SetTime(t) }
