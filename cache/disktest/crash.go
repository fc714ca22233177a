package disktest

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
)

// sector is what a disk writes whole.
const sector = 512

// Crash makes below the folder into, which must be empty, what a power cut after
// the first n changes may leave. It holds to what POSIX promises and to no
// more: what was synced is there; of everything else any part may be there, in
// any order, and of a write some of its sectors or nothing but its length. A
// name is as durable as its folder was synced; only a rename is one step. keep is
// the share of the unsynced changes that survive, 0 to 1; rng chooses them.
func (j *Journal) Crash(n int, keep float64, rng *rand.Rand, into string) error {
	j.mu.Lock()
	ops := j.ops[:min(n, len(j.ops))]
	j.mu.Unlock()
	left := j.base.clone()
	for i, forced := range synced(ops) {
		if forced || rng.Float64() < keep {
			left.apply(ops[i])
		} else if ops[i].kind == opWrite {
			left.tear(ops[i], rng)
		}
	}
	return left.write(0, into)
}

// synced tells which changes a later sync made durable.
func synced(ops []op) []bool {
	forced := make([]bool, len(ops))
	files := map[int]bool{} // that are synced later on
	for i := len(ops) - 1; i >= 0; i-- {
		switch o := ops[i]; o.kind {
		case opSync:
			files[o.file] = true
		case opCreate, opMkdir, opLink, opRemove:
			forced[i] = files[o.dir]
		case opRename:
			forced[i] = files[o.dir] || files[o.toDir]
		case opWrite, opTruncate, opChmod:
			forced[i] = files[o.file]
		}
	}
	return forced
}

// remains are what is on a disk.
type remains struct {
	names tree
	data  map[int][]byte
	modes map[int]fs.FileMode
}

func newRemains() remains {
	return remains{names: tree{0: {}}, data: map[int][]byte{}, modes: map[int]fs.FileMode{}}
}

func (r *remains) clone() remains {
	c := newRemains()
	for dir, names := range r.names {
		c.names[dir] = maps.Clone(names)
	}
	for file, data := range r.data {
		c.data[file] = slices.Clone(data)
	}
	maps.Copy(c.modes, r.modes)
	return c
}

func (r *remains) apply(o op) {
	switch o.kind {
	case opCreate, opMkdir:
		r.name(o.dir, o.name, o.file)
		r.modes[o.file] = o.mode
		if o.kind == opMkdir && r.names[o.file] == nil {
			r.names[o.file] = map[string]int{}
		}
	case opRename:
		if r.names[o.dir][o.name] == o.file {
			delete(r.names[o.dir], o.name)
		}
		r.name(o.toDir, o.toName, o.file)
	case opLink:
		r.name(o.dir, o.name, o.file)
	case opRemove:
		if r.names[o.dir][o.name] == o.file {
			delete(r.names[o.dir], o.name)
		}
	case opWrite:
		r.grow(o.file, o.offset+int64(len(o.data)))
		copy(r.data[o.file][o.offset:], o.data)
	case opTruncate:
		r.grow(o.file, o.size)
		r.data[o.file] = r.data[o.file][:o.size]
	case opChmod:
		r.modes[o.file] = o.mode
	case opSync:
	}
}

// name enters a name, also into a folder whose own name may be lost.
func (r *remains) name(dir int, name string, file int) {
	if r.names[dir] == nil {
		r.names[dir] = map[string]int{}
	}
	r.names[dir][name] = file
}

func (r *remains) grow(file int, size int64) {
	if missing := size - int64(len(r.data[file])); missing > 0 {
		r.data[file] = append(r.data[file], make([]byte, missing)...)
	}
}

// tear leaves of a write its length, and some of its sectors.
func (r *remains) tear(o op, rng *rand.Rand) {
	if rng.IntN(2) == 0 {
		return // not even that
	}
	r.grow(o.file, o.offset+int64(len(o.data)))
	for at := 0; at < len(o.data); at += sector {
		if rng.IntN(2) == 0 {
			copy(r.data[o.file][o.offset+int64(at):], o.data[at:min(at+sector, len(o.data))])
		}
	}
}

// write makes a folder's names, and what they stand for, below path.
func (r *remains) write(dir int, path string) error {
	for name, file := range r.names[dir] {
		path := filepath.Join(path, name)
		if _, isDir := r.names[file]; isDir {
			if err := os.Mkdir(path, 0o700); err != nil {
				return fmt.Errorf("crash: %w", err)
			}
			if err := r.write(file, path); err != nil {
				return err
			}
			continue
		}
		if err := os.WriteFile(path, r.data[file], 0o600); err != nil {
			return fmt.Errorf("crash: %w", err)
		}
		if err := os.Chmod(path, r.modes[file]); err != nil {
			return fmt.Errorf("crash: %w", err)
		}
	}
	return nil
}
