package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	// The digest algorithms of the OCI image specification.
	_ "crypto/sha256"
	_ "crypto/sha512"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/gofrs/flock"
	"github.com/opencontainers/go-digest"
)

// Store is a digest store in one folder. It implements containerd's
// content.Store. Make one with [Open].
type Store struct {
	root   string
	policy FillPolicy
	logger *slog.Logger
	lock   *flock.Flock
	index  *index

	fillers sync.WaitGroup // running fills; Close waits for them
	uses    uses           // last uses that the index does not have yet

	// mu guards what follows. Of I/O it is held over a stat at most. It is
	// taken before a Fill's mu.
	mu     sync.Mutex
	refs   map[string]chan struct{} // ingests that are open for writing; closed when not
	fills  map[digest.Digest]*Fill  // running fills
	closed bool
}

var _ content.Store = (*Store)(nil)

// Option changes a default of Open.
type Option func(*Store)

// WithFillPolicy sets when a fill is given up. The default is
// DefaultFillPolicy.
func WithFillPolicy(p FillPolicy) Option { return func(s *Store) { s.policy = p } }

// WithLogger sets where the store reports what no caller hears of, such as
// the end of a fill that nobody waits for. The default is slog.Default.
func WithLogger(l *slog.Logger) Option { return func(s *Store) { s.logger = l } }

// Open opens the store in root, and makes it if it is not there. It returns
// an error that wraps errdefs.ErrUnavailable and names the process if another
// one holds the store, and errdefs.ErrFailedPrecondition if a newer larder
// wrote it.
func Open(root string, opts ...Option) (*Store, error) {
	s := &Store{
		root:   root,
		policy: DefaultFillPolicy(),
		logger: slog.Default(),
		refs:   map[string]chan struct{}{},
		fills:  map[digest.Digest]*Fill{},
	}
	for _, opt := range opts {
		opt(s)
	}
	s.policy = s.policy.withDefaults()
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("store: make root: %w", err)
	}
	if err := s.takeLock(); err != nil {
		return nil, err
	}
	if err := s.openLocked(); err != nil {
		return nil, errors.Join(err, s.lock.Unlock())
	}
	return s, nil
}

func (s *Store) openLocked() error {
	if err := s.prepareLayout(); err != nil {
		return err
	}
	idx, err := openIndex(filepath.Join(s.root, "index.db"), s.logger)
	if err != nil {
		return err
	}
	s.index = idx
	s.sweepIngests()
	return nil
}

// takeLock makes this process the store's only one. The lock file holds the
// pid for the error message of the next process; the lock itself is flock's,
// so that a killed process leaves nothing to clean up.
func (s *Store) takeLock() error {
	path := filepath.Join(s.root, "lock")
	s.lock = flock.New(path, flock.SetPermissions(0o600))
	ok, err := s.lock.TryLock()
	if err != nil {
		return fmt.Errorf("store: lock %s: %w", path, err)
	}
	if !ok {
		holder := "another process"
		if pid, err := os.ReadFile(path); err == nil && len(pid) > 0 {
			holder = "process " + strings.TrimSpace(string(pid))
		}
		return fmt.Errorf("store %s is in use by %s: one store serves one daemon: %w", s.root, holder, errdefs.ErrUnavailable)
	}
	if err := os.WriteFile(path, fmt.Appendf(nil, "%d\n", os.Getpid()), 0o600); err != nil {
		return errors.Join(fmt.Errorf("store: write pid to lock: %w", err), s.lock.Unlock())
	}
	return nil
}

// Root returns the store's folder.
func (s *Store) Root() string { return s.root }

// Close stops the running fills, whose progress is kept, writes down the last
// uses, and gives the store free. Blobs and readers that are open stay
// readable; writers that are open fail. It may be called twice.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	for _, f := range s.fills {
		f.cancel(errClosed)
	}
	s.mu.Unlock()
	s.fillers.Wait()
	s.closeUses()
	return errors.Join(s.index.close(), s.lock.Unlock())
}

var errClosed = fmt.Errorf("store is closed: %w", errdefs.ErrUnavailable)

func (s *Store) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// acquireRef claims an ingest for one writer.
func (s *Store) acquireRef(ref string) error {
	_, err := s.tryRef(ref)
	return err
}

// awaitRef claims an ingest, and waits for the writer that has it.
func (s *Store) awaitRef(ctx context.Context, ref string) error {
	for {
		busy, err := s.tryRef(ref)
		if busy == nil {
			return err
		}
		select {
		case <-busy:
		case <-ctx.Done():
			return fmt.Errorf("wait for ingest %q: %w", ref, context.Cause(ctx))
		}
	}
}

// tryRef claims an ingest. If it has a writer, busy is closed when that one
// lets go.
func (s *Store) tryRef(ref string) (busy <-chan struct{}, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	if free, taken := s.refs[ref]; taken {
		return free, fmt.Errorf("ingest %q has a writer: %w", ref, errdefs.ErrUnavailable)
	}
	s.refs[ref] = make(chan struct{})
	return nil, nil
}

func (s *Store) releaseRef(ref string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.refs[ref])
	delete(s.refs, ref)
}
