package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

const bootKey = "boot" // of stateBucket: bootNote

// bootNote says when the store was first open since the machine booted.
type bootNote struct {
	ID    string    `json:"id"`
	Since time.Time `json:"since"`
}

// boot knows what was read since the machine booted: a disk that lost writes
// with the power shows it then.
type boot struct {
	id string // "": nothing is asked of it

	mu      sync.Mutex // guards what follows
	since   time.Time
	running map[digest.Digest]*bootCheck
	closed  bool
	wg      sync.WaitGroup
}

// bootCheck is a reading that several may wait for.
type bootCheck struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error // to be read when done is closed
}

// WithBoot has OpenVerified read a blob as a whole at its first use since the
// machine booted. id tells one boot from another; "" has it read nothing, which
// is the default.
func WithBoot(id string) Option { return func(s *Store) { s.boot.id = id } }

// BootID is this boot of the machine, as random(4) has it.
func BootID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("boot id: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// noteBoot finds out since when it is this boot, whenever the index was opened.
// Without an index that can be written it begins now.
func (s *Store) noteBoot() {
	if s.boot.id == "" {
		return
	}
	var note bootNote
	err := s.index.get(stateBucket, bootKey, &note)
	if err != nil || note.ID != s.boot.id || note.Since.After(s.now()) {
		note = bootNote{ID: s.boot.id, Since: s.now()}
		if err := s.index.put(stateBucket, bootKey, note); err != nil {
			s.logger.Warn("boot not noted", "err", err)
		}
	}
	s.boot.mu.Lock()
	defer s.boot.mu.Unlock()
	s.boot.since = note.Since
}

// isReadSinceBoot trusts no time to come: the clock may have been wrong.
func (s *Store) isReadSinceBoot(b *Blob, facts Facts) bool {
	s.boot.mu.Lock()
	since := s.boot.since
	s.boot.mu.Unlock()
	if since.IsZero() {
		return false // the index could not be opened yet
	}
	now := s.now()
	isNow := func(t time.Time) bool { return t.After(since) && !t.After(now) }
	return isNow(b.ModTime()) || isNow(facts.Verified) // published, or read
}

// readOnce joins or starts the reading of a blob, and waits for it.
func (s *Store) readOnce(ctx context.Context, dgst digest.Digest) error {
	check, err := s.startReading(ctx, dgst)
	if err != nil {
		return err
	}
	select {
	case <-check.done:
		return check.err
	case <-ctx.Done():
		return fmt.Errorf("blob %s is read as a whole before it is served: %w", dgst, context.Cause(ctx))
	}
}

func (s *Store) startReading(ctx context.Context, dgst digest.Digest) (*bootCheck, error) {
	s.boot.mu.Lock()
	defer s.boot.mu.Unlock()
	if s.boot.closed {
		return nil, errClosed
	}
	if check, ok := s.boot.running[dgst]; ok {
		return check, nil
	}
	// The next client wants to know it, too; Close ends it.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	check := &bootCheck{cancel: cancel, done: make(chan struct{})}
	if s.boot.running == nil {
		s.boot.running = map[digest.Digest]*bootCheck{}
	}
	s.boot.running[dgst] = check
	s.boot.wg.Go(func() {
		defer cancel()
		check.err = s.verify(ctx, dgst, reading{keep: true})
		if errors.Is(check.err, context.Canceled) {
			check.err = errClosed
		}
		s.boot.mu.Lock()
		defer s.boot.mu.Unlock()
		delete(s.boot.running, dgst)
		close(check.done)
	})
	return check, nil
}

// end stops what is being read and waits for it.
func (b *boot) end() {
	b.mu.Lock()
	b.closed = true
	for _, check := range b.running {
		check.cancel()
	}
	b.mu.Unlock()
	b.wg.Wait()
}
