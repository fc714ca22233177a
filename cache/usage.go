package cache

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
)

// usage counts what a store takes of its file system. It is kept in memory and
// written down now and then, so that a start walks nothing; a Recount sets it
// right. It is safe for concurrent use, and nothing is done under its lock but
// counting.
type usage struct {
	mu      sync.Mutex
	blobs   tally                   // published
	ingests map[string]*room        // by folder
	written int64                   // what the ingests have on disk, all together
	filling int64                   // the same, or what they were promised where that is more
	other   int64                   // the index and what was set aside, as last looked at
	counted time.Time               // when the blobs were last counted one by one
	doubt   bool                    // blobs may be wrong: the last process did not close the store
	changed bool                    // blobs, since they were written down
	recount *recount                // nil while none runs
	moving  map[digest.Digest]int64 // blobs that come or go just now; see changing
}

// tally is a number of files with what they take in bytes.
type tally struct {
	Files int64 `json:"files"`
	Bytes int64 `json:"bytes"`
}

func (t *tally) add(files, bytes int64) {
	t.Files = max(0, t.Files+files)
	t.Bytes = max(0, t.Bytes+bytes)
}

// room is what one ingest has. What it was promised and has not written yet
// counts as taken: the bytes are on their way.
type room struct {
	written, claimed int64
	open             bool // somebody writes to it
}

func (r *room) taken() int64 { return max(r.written, r.claimed) }

// idle is what is there if nobody writes to it.
func (r *room) idle() int64 {
	if r == nil || r.open {
		return 0
	}
	return r.written
}

// blockSlack bounds what a file's blocks may be beyond its bytes: some file
// systems reserve more behind a file while it grows, and give it back later.
const blockSlack = 64 << 10

// blocksOf is what a file takes on disk, as the file system counts it.
func blocksOf(fi fs.FileInfo) int64 {
	rounded := wholePages(fi.Size())
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return min(st.Blocks*512, rounded+blockSlack)
	}
	return rounded
}

// wholePages is how many bytes a file of that length takes at least.
func wholePages(bytes int64) int64 {
	const page = 4 << 10
	return (bytes + page - 1) / page * page
}

// wrote notes how many bytes an ingest has on disk.
func (u *usage) wrote(dir string, bytes int64) {
	u.change(dir, func(r *room) { r.written = bytes })
}

// open notes that somebody writes to an ingest, and how much it has already.
func (u *usage) open(dir string, bytes int64) {
	u.change(dir, func(r *room) { r.written, r.open = bytes, true })
}

// shut takes back what was promised to an ingest and is not used.
func (u *usage) shut(dir string) {
	u.mu.Lock()
	_, ok := u.ingests[dir]
	u.mu.Unlock()
	if ok { // else it is published or removed
		u.change(dir, func(r *room) { r.claimed, r.open = 0, false })
	}
}

func (u *usage) change(dir string, change func(*room)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	r := u.roomOf(dir)
	u.count(r, -1)
	change(r)
	u.count(r, 1)
}

// roomOf returns what an ingest has, and begins with nothing. u.mu is held.
func (u *usage) roomOf(dir string) *room {
	r, ok := u.ingests[dir]
	if !ok {
		r = &room{}
		u.ingests[dir] = r
	}
	return r
}

// count adds what an ingest has to the sums, or takes it away.
func (u *usage) count(r *room, sign int64) {
	u.written += sign * r.written
	u.filling += sign * r.taken()
}

// drop forgets an ingest that is gone.
func (u *usage) drop(dir string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.dropLocked(dir)
}

func (u *usage) dropLocked(dir string) {
	if r, ok := u.ingests[dir]; ok {
		u.count(r, -1)
		delete(u.ingests, dir)
	}
}

// changing must come before a blob's name is given or taken away, and published,
// deleted or unchanged after it. bytes is what the blob takes now, 0 if it is not
// there: a recount that comes by meanwhile cannot tell.
func (u *usage) changing(dgst digest.Digest, bytes int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.moving == nil {
		u.moving = map[digest.Digest]int64{}
	}
	u.moving[dgst] = bytes
	if u.recount != nil {
		u.recount.changing(dgst, bytes)
	}
}

// published counts a blob that is there now, in place of the ingest that it was.
func (u *usage) published(dgst digest.Digest, bytes int64, dir string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.dropLocked(dir)
	u.moved(dgst, 1, bytes)
}

// deleted counts a blob that is gone.
func (u *usage) deleted(dgst digest.Digest, bytes int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.moved(dgst, -1, -bytes)
}

func (u *usage) moved(dgst digest.Digest, files, bytes int64) {
	delete(u.moving, dgst)
	u.changed = true
	u.blobs.add(files, bytes)
	if u.recount != nil {
		u.recount.sum.add(files, bytes)
	}
}

// unchanged is for a change that failed.
func (u *usage) unchanged(dgst digest.Digest) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.moving, dgst)
}

// taken is what the store takes, with and without what is promised to ingests.
func (u *usage) taken() (all, onDisk int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.takenLocked()
}

func (u *usage) takenLocked() (all, onDisk int64) {
	fixed := u.blobs.Bytes + u.other
	return fixed + u.filling, fixed + u.written
}

// claim promises total bytes to an ingest, if most allows for it: most says how
// much the store may take in all, by what it takes on disk. short is how much is
// missing otherwise, fits whether it would ever be enough.
func (u *usage) claim(dir string, total int64, most func(onDisk int64) int64) (short int64, fits bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	r := u.roomOf(dir)
	total = wholePages(total)
	all, onDisk := u.takenLocked()
	limit := most(onDisk)
	if short = all - r.taken() + max(total, r.taken()) - limit; short > 0 && total > r.taken() {
		return short, total+u.other <= limit
	}
	u.count(r, -1)
	r.claimed = max(r.claimed, total)
	u.count(r, 1)
	return 0, true
}

// covers reports whether an ingest may have that many bytes already.
func (u *usage) covers(dir string, total int64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	r, ok := u.ingests[dir]
	return ok && total <= r.taken()
}

// countOther looks at what is neither a blob nor an ingest.
func (s *Store) countOther() {
	var bytes int64
	for _, dir := range []string{s.root, s.quarantineDir()} {
		entries, err := readDir(s.disk, dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			fi, err := s.disk.Lstat(filepath.Join(dir, e.Name()))
			if err == nil && fi.Mode().IsRegular() {
				bytes += blocksOf(fi)
			}
		}
	}
	s.usage.mu.Lock()
	s.usage.other = bytes
	s.usage.mu.Unlock()
}

// savedUsage is the record of the blobs' usage in the index.
type savedUsage struct {
	Blobs   tally     `json:"blobs"`
	Counted time.Time `json:"counted,omitzero"`
	// Open is set while a process has the store: what it changed last may not be
	// in the record.
	Open bool `json:"open,omitempty"`
}

// usageKey is the key of that record in its bucket.
const usageKey = "usage"

// openUsage reads what an earlier process wrote down. What it did not write down
// is doubtful until the next recount.
func (s *Store) openUsage() {
	var saved savedUsage
	err := s.index.get(spaceBucket, usageKey, &saved)
	s.usage.mu.Lock()
	s.usage.blobs, s.usage.counted = saved.Blobs, saved.Counted
	s.usage.doubt = saved.Open || err != nil && !s.hasNoBlobs()
	s.usage.mu.Unlock()
	s.countOther()
	if saved.Open {
		return
	}
	saved.Open = true
	if err := s.index.put(spaceBucket, usageKey, saved); err != nil {
		s.logger.Warn("usage not noted: should this process be killed, it is wrong until it is counted again", "err", err)
	}
}

// hasNoBlobs tells a new store from one that was taken over.
func (s *Store) hasNoBlobs() bool {
	dir, err := openRead(s.disk, filepath.Join(s.blobsPath(), "sha256"))
	if err != nil {
		return false
	}
	defer dir.Close()
	_, err = dir.ReadDir(1)
	return errors.Is(err, io.EOF)
}

// saveUsage writes the usage down. closing says that nothing will change any
// more.
func (s *Store) saveUsage(closing bool) {
	u := &s.usage
	u.mu.Lock()
	saved := savedUsage{Blobs: u.blobs, Counted: u.counted, Open: !closing || u.doubt}
	changed := u.changed
	u.changed = false
	u.mu.Unlock()
	if !changed && !closing {
		return
	}
	if err := s.index.put(spaceBucket, usageKey, saved); err != nil && !errors.Is(err, errClosed) {
		s.logger.Warn("usage not written", "err", err)
	}
}

// Usage is what a store takes of its file system, in bytes as that counts them.
type Usage struct {
	// Blobs is the number of published blobs, Stored what they take.
	Blobs  int64 `json:"blobs"`
	Stored int64 `json:"stored"`
	// Unfinished is what has arrived of blobs that are not whole, Promised what
	// running fills may still write, Other the index and what was set aside.
	Unfinished int64 `json:"unfinished"`
	Promised   int64 `json:"promised"`
	Other      int64 `json:"other"`
	// Taken is all of these together, Allowance what it may be at most; -1 if
	// nothing bounds it. Bound is the setting that says so.
	Taken     int64  `json:"taken"`
	Allowance int64  `json:"allowance"`
	Bound     string `json:"bound,omitempty"`
	// High and Low are the marks of eviction in bytes, -1 without a bound.
	High int64 `json:"high"`
	Low  int64 `json:"low"`
	// Free is what the file system has left, Total its size.
	Free  int64 `json:"free"`
	Total int64 `json:"total"`
	// Counted is when the blobs were last counted one by one; Doubtful is set
	// until that is done after a crash.
	Counted  time.Time `json:"counted,omitzero"`
	Doubtful bool      `json:"doubtful,omitempty"`
	// Problem is why nothing more can be stored, "" if it can.
	Problem string `json:"problem,omitempty"`
}

// Usage returns what the store takes now, and what it may take.
func (s *Store) Usage() (Usage, error) {
	if s.isClosed() {
		return Usage{}, errClosed
	}
	free, err := s.disk.Free(s.root)
	if err != nil {
		return Usage{}, fmt.Errorf("free space of the store: %w", err)
	}
	s.countOther()
	u := s.usage.read()
	u.Free, u.Total = free.Bytes, free.Total
	allowance, bound := s.budget.allowance(u.Stored+u.Unfinished+u.Other, free)
	u.Allowance, u.High, u.Low, u.Bound = allowance, share(allowance, s.budget.High), share(allowance, s.budget.Low), bound
	if allowance == unbounded {
		u.Allowance, u.High, u.Low = -1, -1, -1
	}
	u.Problem = s.evictor.problem()
	return u, nil
}

func (u *usage) read() Usage {
	u.mu.Lock()
	defer u.mu.Unlock()
	all, onDisk := u.takenLocked()
	return Usage{
		Blobs: u.blobs.Files, Stored: u.blobs.Bytes, Other: u.other,
		Unfinished: u.written, Promised: all - onDisk, Taken: all,
		Counted: u.counted, Doubtful: u.doubt,
	}
}
