package cache

import (
	"github.com/opencontainers/go-digest"
)

// Abandon ends a fill that only its beginner wants, who calls it, and reports
// whether it did: a fill that has, or had, a reader, or that somebody else has
// joined, goes on. Both are decided at once: who asks for the blob at the same
// time keeps the fill, or gets one of its own. The progress is kept as ever. Its
// error wraps cause.
func (f *Fill) Abandon(cause error) bool {
	s := f.store
	s.mu.Lock()
	defer s.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.joined || f.shared || f.done {
		return false
	}
	f.abandoned = true
	f.leaveTable()
	f.cancel(cause)
	return true
}

// isAbandoned reports whether a failure is of the beginner's own making.
func (f *Fill) isAbandoned() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.abandoned
}

// IsRead reports whether somebody reads a blob, or the fill that brings it.
func (s *Store) IsRead(dgst digest.Digest) bool {
	s.mu.Lock()
	f := s.fills[dgst]
	s.mu.Unlock()
	if f == nil {
		return s.holds.isRead(dgst)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.readers) > 0
}
