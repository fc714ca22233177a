package cache

import (
	"io/fs"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/opencontainers/go-digest"
)

const (
	// maxInMemory bounds the bytes of the manifests that are kept in memory,
	// maxOneInMemory those of each of them.
	maxInMemory    = 4 << 20
	maxOneInMemory = 256 << 10
	// settled is for how long a file must not have changed before what was read
	// of it is kept. A change within one tick of the clock does not show in the
	// file's times.
	settled = 100 * time.Millisecond
)

// inMemory are manifests that were read, and had their digest. It is asked with a
// look at the file as it is now, and knows nothing of any other: whoever removes,
// moves or changes a file has nothing to tell it. It is safe for concurrent use.
type inMemory struct {
	mu    sync.Mutex // guards what follows
	all   *simplelru.LRU[digest.Digest, manifestFile]
	bytes int
}

// manifestFile is a file's content, and which state of which file it is.
type manifestFile struct {
	state fileState
	data  []byte
}

// fileState changes with the content of a file, whoever changes it.
type fileState struct {
	inode
	size            int64
	changed, modify syscall.Timespec
}

// stateOf is not ok where the file system tells no times of changes.
func stateOf(fi fs.FileInfo) (st fileState, ok bool) {
	sys, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return st, false
	}
	return fileState{inode: inodeOf(fi), size: fi.Size(), changed: sys.Ctim, modify: sys.Mtim}, true
}

// get returns the content of a file that is in this state. Nobody may change it.
func (m *inMemory) get(dgst digest.Digest, fi fs.FileInfo) ([]byte, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.all == nil {
		return nil, false
	}
	f, ok := m.all.Get(dgst)
	if !ok {
		return nil, false
	}
	if st, ok := stateOf(fi); !ok || st != f.state {
		m.all.Remove(dgst)
		return nil, false
	}
	return f.data, true
}

// add keeps what was read of a file that was in this state before and after.
func (m *inMemory) add(dgst digest.Digest, before, after fs.FileInfo, data []byte, now time.Time) {
	st, ok := stateOf(before)
	if then, _ := stateOf(after); !ok || st != then || len(data) > maxOneInMemory {
		return
	}
	if age := now.Sub(time.Unix(st.changed.Unix())); age < settled {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.all == nil { // every one has a byte, so that bytes bound their number, too
		m.all, _ = simplelru.NewLRU(maxInMemory, func(_ digest.Digest, f manifestFile) { m.bytes -= len(f.data) }) // fails only for a size below 1
	}
	m.all.Remove(dgst)
	m.all.Add(dgst, manifestFile{state: st, data: data})
	m.bytes += len(data)
	for m.bytes > maxInMemory {
		m.all.RemoveOldest()
	}
}
