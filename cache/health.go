package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
)

// State says whether a store stores.
type State string

const (
	// StateOK stores.
	StateOK State = "ok"
	// StateFull has no room for what comes; what is there is served.
	StateFull State = "full"
	// StateDegraded has a disk that fails; what can be read of it is served.
	StateDegraded State = "degraded"
)

// Health is how a store is. What it does not store it passes through: nothing
// fails for it.
type Health struct {
	State State `json:"state"`
	// Reason is the failure that made it so, empty if State is StateOK.
	Reason string `json:"reason,omitempty"`
	// Since is when the state began.
	Since time.Time `json:"since"`
	// Passed counts what was passed through without storing since then.
	Passed int64 `json:"passed,omitempty"`
}

// probeEvery is how often a store that does not store tries again.
const probeEvery = 10 * time.Second

// health is the state with what belongs to it.
type health struct {
	mu      sync.Mutex // guards what follows
	now     Health
	need    int64         // bytes that were wanted when the disk was full
	ending  chan struct{} // closed by Close
	ended   bool
	probing sync.WaitGroup
}

// Health returns how the store is.
func (s *Store) Health() Health {
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	return s.health.now
}

// noteDisk is told of every failure of the disk, whatever becomes of it. need
// is how many bytes were wanted. Other errors do not count.
func (s *Store) noteDisk(ctx context.Context, err error, need int64) {
	state := StateDegraded
	switch {
	case isFull(err):
		state = StateFull
	case !isDiskFailure(err):
		return
	}
	h := &s.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended || h.now.State == state || h.now.State == StateDegraded {
		return
	}
	begins := h.now.State == StateOK
	if begins {
		h.now.Passed = 0
	}
	h.now.State, h.now.Since, h.now.Reason, h.need = state, s.now(), s.explain(err), need
	s.logger.ErrorContext(ctx, "store does not store: what is there is served, the rest is passed through",
		"state", state, "root", s.root, "err", h.now.Reason)
	if begins {
		h.probing.Add(1)
		go s.probeUntilWell(context.WithoutCancel(ctx))
	}
}

// explain adds to "no space left" what there is none of.
func (s *Store) explain(err error) string {
	if !errors.Is(err, syscall.ENOSPC) {
		return err.Error()
	}
	if free, ferr := s.disk.Free(s.root); ferr == nil && free.Inodes == 0 {
		return err.Error() + " (no inodes are left)"
	}
	return err.Error()
}

// notePassed counts what is not stored.
func (s *Store) notePassed() {
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	s.health.now.Passed++
}

// probeUntilWell tries the disk again and again, until it takes something or
// the store is closed.
func (s *Store) probeUntilWell(ctx context.Context) {
	h := &s.health
	defer h.probing.Done()
	timer := time.NewTimer(probeEvery)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-h.ending:
			return
		}
		if err := s.probe(); err != nil {
			s.noteProbe(err)
			timer.Reset(probeEvery)
			continue
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		now := s.now()
		s.logger.InfoContext(ctx, "store stores again", "state", h.now.State, "after", now.Sub(h.now.Since).Round(time.Second), "passed", h.now.Passed)
		h.now = Health{State: StateOK, Since: now}
		s.unreadable.clear()
		return
	}
}

// noteProbe keeps the newest reason: what began as a full disk may go on as a
// broken one.
func (s *Store) noteProbe(err error) {
	h := &s.health
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now.Reason = s.explain(err)
}

func (h *health) close() {
	h.mu.Lock()
	if !h.ended {
		h.ended = true
		close(h.ending)
	}
	h.mu.Unlock()
	h.probing.Wait()
}

// isFull tells that there is no room, from that something is broken.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errdefs.IsResourceExhausted(err)
}

// isDiskFailure tells what the disk is to blame for, from what larder or its
// user is. All of it is something that the system said.
func isDiskFailure(err error) bool {
	if isFull(err) || errors.Is(err, errMoved) || errors.Is(err, errDamaged) {
		return true
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return errors.Is(err, fs.ErrClosed)
	}
	return errno != syscall.ENOTEMPTY
}

// isUnreadable tells that a file's bytes are lost, or a part of them.
func isUnreadable(err error) bool {
	return errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EUCLEAN) || errors.Is(err, syscall.EBADMSG)
}

// errMoved says that a store's folder is not the one that was opened.
var errMoved = fmt.Errorf("the store's folder is not the one that was opened: was a file system unmounted, or mounted over it, or the folder deleted? %w", errdefs.ErrUnavailable)
