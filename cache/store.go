package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	// The digest algorithms of the OCI image specification.
	_ "crypto/sha256"
	_ "crypto/sha512"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/semaphore"
)

// Store is a digest store in one folder. It implements containerd's
// content.Store. Make one with [Open].
type Store struct {
	root   string
	place  place
	disk   Disk
	now    func() time.Time
	policy FillPolicy
	logger *slog.Logger
	index  *index
	budget Budget

	fillers sync.WaitGroup // running fills; Close waits for them
	uses    uses           // last uses that the index does not have yet
	holds   *holds         // what no removal may delete now
	pins    pins           // what may not be removed

	buffers    buffers
	health     health
	unreadable unreadable
	windows    *semaphore.Weighted // bytes of memory for what the disk does not take

	quarantining sync.Mutex    // held while a blob is set aside
	snapshots    snapshots     // what is kept for when the index is lost
	healer       healer        // what mends the index in the background
	scrubs       scrubs        // how far the scrub is
	boot         boot          // what was read since the machine booted
	manifests    inMemory      // that were read lately
	senders      chan struct{} // has a value for each piece of a blob that is mapped and sent
	writeback    writeback     // begins to write what ingests grow by
	usage        usage         // what the store takes of the disk
	evictor      evictor       // makes room
	exposures    exposures     // what containerd counts on

	// mu guards what follows. Of I/O it is held over a stat at most. It is
	// taken before a Fill's mu.
	mu     sync.Mutex
	refs   map[string]chan struct{} // ingests that are open for writing; closed when not
	fills  map[digest.Digest]*Fill  // running fills that may be joined
	alone  map[*Fill]bool           // running fills that no more clients join
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

// WithDisk sets the file system under the store. The default is OSDisk.
func WithDisk(d Disk) Option { return func(s *Store) { s.disk = d } }

// WithClock sets what tells the time for all that the store writes down. The
// default is time.Now.
func WithClock(now func() time.Time) Option { return func(s *Store) { s.now = now } }

// WithBudget sets how much room the store may take. The default is no bound.
func WithBudget(b Budget) Option { return func(s *Store) { s.budget = b } }

// Open opens the store in root, and makes it if it is not there. It returns
// an error that wraps errdefs.ErrUnavailable and names the process if another
// one holds the store, and errdefs.ErrFailedPrecondition if a newer larder
// wrote it.
//
// A disk that is read-only or fails does not stop it: what can be read is
// served, everything else is passed through, and the disk is tried again. See
// Health.
func Open(root string, opts ...Option) (*Store, error) {
	s := &Store{
		root:    root,
		disk:    OSDisk(),
		now:     time.Now,
		policy:  DefaultFillPolicy(),
		logger:  slog.Default(),
		index:   &index{},
		refs:    map[string]chan struct{}{},
		fills:   map[digest.Digest]*Fill{},
		alone:   map[*Fill]bool{},
		senders: make(chan struct{}, sendersPerCore*runtime.GOMAXPROCS(0)),
		windows: semaphore.NewWeighted(windowTotal),
	}
	for _, opt := range opts {
		opt(s)
	}
	s.holds = newHolds(func(dgst digest.Digest) bool { return s.exposures.keeps(dgst, s.now()) })
	s.policy = s.policy.withDefaults()
	s.budget = s.budget.withDefaults()
	s.evictor.start()
	s.usage.ingests = map[string]*room{}
	s.health.now = Health{State: StateOK, Since: s.now()}
	s.health.ending = make(chan struct{})
	s.index.changed = s.indexChanged
	s.index.failed = func(err error) { s.noteDisk(context.Background(), err, 0) }
	err := os.MkdirAll(root, 0o700)
	if err != nil {
		err = fmt.Errorf("store: make root: %w", err)
		s.place.above, _ = s.inode(filepath.Dir(root)) // in which it may be made later
	} else {
		err = s.attach()
	}
	if err != nil && !isBroken(err) {
		return nil, errors.Join(err, s.index.close(), s.unlock())
	}
	if err != nil {
		s.usage.doubt = true
		s.noteDisk(context.Background(), err, 0)
		return s, nil
	}
	s.openUsage()
	s.sweepIngests()
	return s, nil
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
	for f := range s.alone {
		f.cancel(errClosed)
	}
	s.mu.Unlock()
	s.evictor.stop()
	s.fillers.Wait()
	s.writeback.close()
	s.health.close()
	s.boot.end()
	s.healer.end()
	s.closeUses()
	s.closeSnapshots()
	s.saveUsage(true)
	return errors.Join(s.buffers.close(), s.index.close(), s.unlock())
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
