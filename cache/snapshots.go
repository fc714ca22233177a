package cache

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"
)

const (
	// snapshotDelay is how long after a change the snapshot is written.
	snapshotDelay = time.Second
	// snapshotShare is how many times longer than to write one is the time to
	// the next: of a large store it takes 2 % of the time.
	snapshotShare = 50
)

// snapshots keeps the snapshot behind the index. Every change of the index
// arms it; whether anything changed that counts, it finds by itself. Power lost
// in between costs the snapshot the last second, and the index nothing.
type snapshots struct {
	writing sync.Mutex // held while one is made and written

	mu       sync.Mutex  // guards what follows; nothing is done under it but that
	timer    *time.Timer // runs from a change to the write; nil between
	notUntil time.Time   // by the wall clock, for timer
	changed  bool        // since the last snapshot was begun
	closed   bool

	last    [sha256.Size]byte // of what is on disk; guarded by writing
	written bool              // something is; guarded by writing
}

// indexChanged is called after each change of the index.
func (s *Store) indexChanged() {
	p := &s.snapshots
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changed = true
	if p.closed || p.timer != nil {
		return
	}
	p.timer = time.AfterFunc(max(snapshotDelay, time.Until(p.notUntil)), func() {
		p.mu.Lock()
		p.timer = nil
		p.mu.Unlock()
		began := time.Now()
		s.writeSnapshot()
		p.mu.Lock()
		p.notUntil = time.Now().Add(snapshotShare * time.Since(began))
		p.mu.Unlock()
	})
}

// writeSnapshot writes a snapshot if it differs from the last one. One of an index
// that may be damaged would be the end of what the last one has. The index is
// durable without it: that it cannot be written is only told.
func (s *Store) writeSnapshot() {
	p := &s.snapshots
	p.writing.Lock()
	defer p.writing.Unlock()
	if s.index.unread.Load() || s.index.isBroken() {
		return
	}
	p.mu.Lock()
	changed := p.changed
	p.changed = false
	p.mu.Unlock()
	if !changed {
		return
	}
	sum, err := s.index.snapshotSum()
	if errors.Is(err, errClosed) || err == nil && p.written && sum == p.last {
		return
	}
	if err == nil {
		if sum, err = s.replaceSnapshot(); err == nil {
			p.last, p.written = sum, true
		}
	}
	if err != nil {
		p.mu.Lock()
		p.changed = true // the next change tries again, and Close
		p.mu.Unlock()
		s.logger.Warn("snapshot of the index not written", "err", err)
	}
}

func (s *Store) replaceSnapshot() (sum [sha256.Size]byte, err error) {
	if err := s.checkPlace(); err != nil {
		return sum, err
	}
	if !s.snapshots.written {
		if err := s.keepForeignSnapshot(); err != nil {
			return sum, err
		}
	}
	err = rewriteFile(s.disk, s.snapshotPath(), 0o644, func(to *bufio.Writer) error {
		sum, err = s.index.writeSnapshot(to)
		return err
	})
	return sum, err
}

// keepForeignSnapshot moves away an index.json that another program wrote: the
// folder was an image layout before it was a store.
func (s *Store) keepForeignSnapshot() error {
	path := s.snapshotPath()
	if _, err := s.disk.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if ours, err := s.isOurs(); err != nil || ours {
		return err
	}
	if err := s.disk.Rename(path, path+".before-larder"); err != nil {
		return fmt.Errorf("keep the index.json that was there: %w", err)
	}
	return nil
}

// closeSnapshots writes the last one.
func (s *Store) closeSnapshots() {
	p := &s.snapshots
	p.mu.Lock()
	p.closed = true
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	p.mu.Unlock()
	s.writeSnapshot()
}
