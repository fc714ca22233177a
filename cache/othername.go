package cache

import (
	"syscall"

	"github.com/opencontainers/go-digest"
)

// inContainerd is why an image stays while the file system is short of room.
const inContainerd = "of which containerd has the same files: to remove it frees nothing"

// hasOtherName reports whether a blob's file has a name outside the store, too: it was
// linked into containerd's content. To remove it here gives the file system
// nothing, until that name is gone as well.
func (s *Store) hasOtherName(dgst digest.Digest) bool {
	fi, err := s.stat(dgst)
	if err != nil {
		return false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && st.Nlink > 1
}

// obtainable is how many bytes the pass can free. It looks at no more files than it
// takes to see that these are as many as are wanted: there may be a million.
func (p *pass) obtainable(wanted int64) int64 {
	if !p.forDisk || wanted == 0 {
		return p.freeable
	}
	own := p.idle
	for n, size := range p.graph.size {
		if own >= wanted {
			return p.freeable
		}
		if size > 0 && p.mayGo(p.graph, int32(n)) && !p.store.hasOtherName(p.graph.digestOf(int32(n))) {
			own += size
		}
	}
	for _, c := range p.order {
		if c.kind == isImage && p.store.hasOtherName(p.graph.digestOf(p.graph.images[c.index].target)) {
			p.stays[inContainerd]++
		}
	}
	return own
}

// isBoundByDisk reports whether it is the room on the file system that bounds the
// store now, and not a size of its own.
func (s *Store) isBoundByDisk() bool {
	free, err := s.disk.Free(s.root)
	if err != nil {
		return false
	}
	_, onDisk := s.usage.taken()
	_, bound := s.budget.allowance(onDisk, free)
	return bound == boundFree || bound == boundDisk
}
