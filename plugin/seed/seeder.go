package seed

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/singleflight"
)

// Patience is how long a request waits for its image to be linked.
const Patience = time.Second

const (
	// again is the time after which a folder that could not be linked into is
	// looked at again, when an image is asked for.
	again = time.Second
	// maxSeeds bounds the images that are linked at a time, and so the threads
	// that a disk that hangs can hold.
	maxSeeds = 8
)

// Images is what a Seeder asks of the store. remotes.Registry is one.
type Images interface {
	// PullSet returns the blobs that a pull of a manifest takes on this node,
	// parents first.
	PullSet(manifest digest.Digest) ([]digest.Digest, error)
	// OpenSure opens a blob that is stored, certainly right, and of a repository.
	OpenSure(ctx context.Context, repo remotes.Repository, dgst digest.Digest) (*cache.Blob, error)
}

var _ Images = (*remotes.Registry)(nil)

// Options of a Seeder.
type Options struct {
	// Content is containerd's content folder, Root the store's.
	Content, Root string
	// Logger gets why nothing can be linked, once for each reason.
	Logger *slog.Logger
}

// Seeder links images. It is safe for concurrent use.
type Seeder struct {
	images  Images
	folder  folder
	logger  *slog.Logger
	seeding singleflight.Group // by repository and manifest
	places  chan struct{}      // has a value for each image that is being linked
	overdue atomic.Int32       // how many of these take longer than Patience

	mu    sync.Mutex // guards what follows
	ready bool       // the folder can be linked into, as far as is known
	next  time.Time  // when it is to be looked at again
	told  string     // the problem that the log has, until something is linked
	why   error      // it as a whole
	done  int64      // images of which something was linked
}

// State says how many images were linked since the start, one again if containerd
// had collected it, and why none can be now; "" if they can, as far as is known.
func (s *Seeder) State() (images int64, problem string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.why != nil && !s.ready {
		problem = s.why.Error()
	}
	return s.done, problem
}

// New makes a Seeder. It looks at the folder behind the caller's back, so that the
// log has what is wrong, and no disk holds up a start.
func New(images Images, o Options) *Seeder {
	s := newSeeder(images, content{path: o.Content, root: o.Root}, o.Logger)
	go s.isReady()
	return s
}

func newSeeder(images Images, f folder, logger *slog.Logger) *Seeder {
	return &Seeder{images: images, folder: f, logger: logger, places: make(chan struct{}, maxSeeds)}
}

// Seed links the image of a stored manifest into containerd's folder, if it is
// whole and containerd does not have it. It returns when that is done, when it
// cannot be done, or after Patience, and then it goes on.
func (s *Seeder) Seed(ctx context.Context, repo remotes.Repository, manifest digest.Digest) {
	if s.overdue.Load() > 0 {
		return
	}
	done := s.seeding.DoChan(repo.String()+"@"+manifest.String(), func() (any, error) {
		// What is linked too late for this request is there for the next one.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), Patience)
		defer cancel()
		s.seed(ctx, repo, manifest)
		return nil, nil
	})
	late := time.NewTimer(Patience)
	defer late.Stop()
	select {
	case <-done:
	case <-ctx.Done():
	case <-late.C:
		s.overdue.Add(1)
		go func() { // ends with the work
			<-done
			s.overdue.Add(-1)
		}()
	}
}

// seed does it. ctx bounds what it waits for; no call to a disk ends with it.
func (s *Seeder) seed(ctx context.Context, repo remotes.Repository, manifest digest.Digest) {
	select {
	case s.places <- struct{}{}:
		defer func() { <-s.places }()
	case <-ctx.Done():
		return
	}
	if !s.isReady() {
		return
	}
	set, err := s.images.PullSet(manifest)
	if err != nil {
		return // not whole, or no image
	}
	absent, err := s.absent(set)
	if err != nil {
		s.failed(err)
		return
	}
	if len(absent) == 0 {
		return
	}
	err = s.each(ctx, repo, absent, s.folder.admit) // all of them, before one is linked
	if err == nil {
		err = s.link(ctx, repo, absent)
	}
	log := s.logger.With("ns", repo.Host, "repository", repo.Path, "digest", manifest)
	if err != nil {
		log.DebugContext(ctx, "image not linked into containerd's content", "err", err)
		return
	}
	log.InfoContext(ctx, "image linked into containerd's content", "blobs", len(absent))
}

// absent are those blobs that containerd does not have. It is looked at each time:
// its garbage collection does not tell.
func (s *Seeder) absent(set []digest.Digest) (absent []digest.Digest, _ error) {
	for _, dgst := range set {
		has, err := s.folder.has(dgst)
		if err != nil {
			return nil, err
		}
		if !has {
			absent = append(absent, dgst)
		}
	}
	return absent, nil
}

// each opens blobs for a call of the folder, one after the other, the manifests
// last: containerd, if it does not wait any more, asks for these first.
func (s *Seeder) each(ctx context.Context, repo remotes.Repository, blobs []digest.Digest, do func(*cache.Blob) error) error {
	for _, dgst := range slices.Backward(blobs) {
		b, err := s.images.OpenSure(ctx, repo, dgst)
		if err != nil {
			return err
		}
		err = do(b)
		b.Close()
		if err != nil && !errdefs.IsFailedPrecondition(err) { // else it is this one blob
			s.failed(err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// link links blobs, and has their names on the disk.
func (s *Seeder) link(ctx context.Context, repo remotes.Repository, blobs []digest.Digest) error {
	if err := s.each(ctx, repo, blobs, s.folder.link); err != nil {
		return err
	}
	algs := map[digest.Algorithm]bool{}
	for _, dgst := range blobs {
		algs[dgst.Algorithm()] = true
	}
	for alg := range algs {
		if err := s.folder.sync(alg); err != nil {
			s.failed(err)
			return err
		}
	}
	s.mu.Lock()
	s.told, s.why = "", nil
	s.done++
	s.mu.Unlock()
	return nil
}

// isReady reports whether the folder can be linked into. If it could not, it is
// looked at again when it is time.
func (s *Seeder) isReady() bool {
	s.mu.Lock()
	ready, due := s.ready, !time.Now().Before(s.next)
	if !ready && due {
		s.next = time.Now().Add(again) // for who comes meanwhile
	}
	s.mu.Unlock()
	if ready || !due {
		return ready
	}
	if err := s.folder.check(); err != nil {
		s.pause(err)
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready = true
	return true
}

// failed is pause for a call of the folder that failed. What is wrong with the folder
// itself tells more.
func (s *Seeder) failed(err error) {
	if why := s.folder.check(); why != nil {
		err = why
	}
	s.pause(err)
}

// pause has nothing linked for a while, and says why once.
func (s *Seeder) pause(why error) {
	problem := why.Error()
	if errno, ok := errors.AsType[syscall.Errno](why); ok {
		problem = errno.Error() // whichever blob it was
	}
	s.mu.Lock()
	isNew := s.told != problem
	s.ready, s.next, s.told, s.why = false, time.Now().Add(again), problem, why
	s.mu.Unlock()
	if isNew {
		s.logger.Warn("images are not linked into containerd's content, and are pulled as ever; see larder doctor", "err", why)
	}
}
