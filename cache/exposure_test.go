package cache

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

const testGrace = 10 * time.Minute

// putExposed stores a blob of 1,000 bytes and exposes it.
func putExposed(t *testing.T, s *Store) digest.Digest {
	t.Helper()
	data, dgst := blobOf(1, 1000)
	if err := s.Put(t.Context(), dgst, data, Facts{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Expose(dgst); err != nil {
		t.Fatal(err)
	}
	return dgst
}

func exposedOf(t *testing.T, s *Store, filter ...string) (all []digest.Digest) {
	t.Helper()
	if err := s.WalkExposed(t.Context(), func(i content.Info) error {
		all = append(all, i.Digest)
		return nil
	}, filter...); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestExposed: what containerd was told of is durable, is told from then on
// without the disk, and is gone from its list once it is deleted.
func TestExposed(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := openStore(t, root, WithExposure(testGrace))
	data, dgst := blobOf(1, 1000)
	other, hidden := blobOf(2, 10)
	if err := errors.Join(s.Put(t.Context(), dgst, data, Facts{}), s.Put(t.Context(), hidden, other, Facts{})); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Expose(digest.FromString("no blob")); !errdefs.IsNotFound(err) {
		t.Errorf("expose what is not there: %v, want not found", err)
	}
	info, err := s.Expose(dgst)
	if err != nil || info.Size != 1000 || info.CreatedAt.IsZero() {
		t.Errorf("expose: %+v, %v", info, err)
	}
	if got := exposedOf(t, s); !slices.Equal(got, []digest.Digest{dgst}) {
		t.Errorf("exposed are %v, want what was exposed", got)
	}
	if err := s.Unexpose(hidden); !errdefs.IsNotFound(err) {
		t.Errorf("unexpose what is not exposed: %v, want not found", err)
	}
	// As a killed process leaves it.
	copied := filepath.Join(t.TempDir(), "store")
	if err := os.CopyFS(copied, os.DirFS(root)); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, copied, WithExposure(testGrace))
	if again, ok := s.Exposed(dgst); !ok || again.Size != info.Size || !again.CreatedAt.Equal(info.CreatedAt) {
		t.Errorf("after a restart: %+v, %t, want %+v", again, ok, info)
	}
	if _, err := s.Update(t.Context(), content.Info{Digest: dgst, Labels: map[string]string{"a": "b"}}); err != nil {
		t.Fatal(err)
	}
	if got := exposedOf(t, s, `labels."a"==b`); len(got) != 1 {
		t.Errorf("with the label: %v, want the blob that has it", got)
	}
	if err := s.Unexpose(dgst); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Exposed(dgst); ok || len(exposedOf(t, s)) != 0 {
		t.Error("it is exposed after it was deleted")
	}
	if err := s.Unexpose(dgst); !errdefs.IsNotFound(err) {
		t.Errorf("unexpose twice: %v, want not found", err)
	}
	if has, err := s.Has(dgst); !has || err != nil {
		t.Errorf("it went with its exposure: %t, %v", has, err)
	}
}

// TestExposedStays: neither eviction nor a removal takes an exposed blob, nor one
// that containerd deleted within the grace; then it goes like all others.
func TestExposedStays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), quiet(), WithExposure(testGrace))
		dgst := putExposed(t, s)
		stays := func(when string, want bool) {
			t.Helper()
			if _, err := s.Collect(t.Context(), CollectOptions{To: 0}); err != nil {
				t.Fatal(err)
			}
			deleted, err := s.DeleteUnlessHeld(t.Context(), dgst)
			if err != nil && !errdefs.IsNotFound(err) || deleted {
				t.Errorf("%s: removed: %t, %v", when, deleted, err)
			}
			if has, err := s.Has(dgst); err != nil || has != want {
				t.Errorf("%s: it is there: %t, %v, want %t", when, has, err, want)
			}
		}
		stays("exposed", true)
		if err := s.Unexpose(dgst); err != nil {
			t.Fatal(err)
		}
		<-time.After(testGrace - time.Second)
		stays("within the grace", true)
		<-time.After(time.Second)
		stays("behind it", false)
		if err := s.purgeExposures(); err != nil || len(s.exposures.known) != 0 || s.index.has(exposedBucket, dgst.String()) {
			t.Errorf("%v; remembered for ever: %v", err, s.exposures.known)
		}
	})
}

// TestExposeUnsure: without the index it is not known what containerd counts on:
// all stays until that is told.
func TestExposeUnsure(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := openStore(t, root, quiet(), WithExposure(testGrace))
	if s.Unsure() {
		t.Error("a new store does not know what is exposed")
	}
	data, dgst := blobOf(1, 1000)
	unknown, rest := blobOf(2, 1000)
	_, err := s.Expose(dgst)
	if !errdefs.IsNotFound(err) {
		t.Errorf("expose: %v", err)
	}
	if err := errors.Join(s.Put(t.Context(), dgst, data, Facts{}), s.Put(t.Context(), rest, unknown, Facts{}), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, root, quiet(), WithExposure(testGrace))
	if s.Unsure() {
		t.Error("a store that was closed does not know what is exposed")
	}
	if err := errors.Join(s.Close(), os.Remove(filepath.Join(root, "index.db"))); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, root, quiet())
	if s.Unsure() {
		t.Error("a store that is no content store is unsure")
	}
	if err := errors.Join(s.Close(), os.Remove(filepath.Join(root, "index.db"))); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, root, quiet(), WithExposure(testGrace))
	s.healer.wg.Wait()
	collect := func() {
		t.Helper()
		if _, err := s.Collect(t.Context(), CollectOptions{To: 0}); err != nil {
			t.Fatal(err)
		}
	}
	collect()
	wantBlob(t, s, dgst, data)
	wantBlob(t, s, rest, unknown)
	if deleted, err := s.DeleteUnlessHeld(t.Context(), rest); deleted || err != nil {
		t.Errorf("removed: %t, %v, want that all stays", deleted, err)
	}
	if err := s.ExposeAll(t.Context(), []digest.Digest{dgst, digest.FromString("gone"), "garbage"}); err != nil {
		t.Fatal(err)
	}
	collect()
	wantBlob(t, s, dgst, data)
	if has, err := s.Has(rest); has || err != nil {
		t.Errorf("what containerd does not know is there: %t, %v", has, err)
	}
}

// TestExposedIndexLostWhileRunning: the process knows what it told.
func TestExposedIndexLostWhileRunning(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := openStore(t, root, quiet(), WithExposure(testGrace))
	dgst := putExposed(t, s)
	if err := os.Remove(filepath.Join(root, "index.db")); err != nil {
		t.Fatal(err)
	}
	if err := s.attach(); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Exposed(dgst); !ok || !s.index.has(exposedBucket, dgst.String()) || s.Unsure() {
		t.Errorf("exposed: %t, in the index: %t, unsure: %t", ok, s.index.has(exposedBucket, dgst.String()), s.Unsure())
	}
}

// TestExposedLost: a damaged blob is not there for containerd, and is when it has
// come again.
func TestExposedLost(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir(), quiet(), WithExposure(testGrace))
	data, dgst := blobOf(1, 1000)
	put := func() {
		t.Helper()
		if err := s.Put(t.Context(), dgst, data, Facts{}); err != nil {
			t.Fatal(err)
		}
	}
	put()
	if _, err := s.Expose(dgst); err != nil {
		t.Fatal(err)
	}
	if err := s.Damaged(t.Context(), dgst, errors.New("flipped")); err != nil {
		t.Fatal(err)
	}
	if info, err := s.Expose(dgst); !errdefs.IsNotFound(err) {
		t.Errorf("a damaged blob: %+v, %v, want not found", info, err)
	}
	put()
	if info, ok := s.Exposed(dgst); !ok || info.Size != 1000 {
		t.Errorf("when it is back: %+v, %t", info, ok)
	}
}

// TestExposeAgainstEviction has many exposed while all is evicted: what was told
// to be there is there.
func TestExposeAgainstEviction(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir(), quiet(), WithExposure(testGrace))
	const blobs = 300
	for i := range uint64(blobs) {
		data, dgst := blobOf(i, 100)
		if err := s.Put(t.Context(), dgst, data, Facts{}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var evictor, containerd sync.WaitGroup
	evictor.Go(func() {
		for ctx.Err() == nil {
			if _, err := s.Collect(ctx, CollectOptions{To: 0}); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
	})
	var mu sync.Mutex
	var told []digest.Digest
	for part := range uint64(4) {
		containerd.Go(func() {
			for i := part; i < blobs; i += 4 {
				_, dgst := blobOf(i, 100)
				if _, err := s.Expose(dgst); err == nil {
					mu.Lock()
					told = append(told, dgst)
					mu.Unlock()
				} else if !errdefs.IsNotFound(err) {
					t.Error(err)
				}
			}
		})
	}
	containerd.Wait()
	cancel()
	evictor.Wait()
	t.Logf("%d of %d were exposed", len(told), blobs)
	for _, dgst := range told {
		if has, err := s.Has(dgst); !has || err != nil {
			t.Errorf("%s was told to be there and is gone: %v", dgst, err)
		}
	}
}

// TestUnexposeOnSlowDisk: what is asked for while its deletion is not on record yet
// is exposed behind that.
func TestUnexposeOnSlowDisk(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir(), quiet(), WithExposure(testGrace))
	dgst := putExposed(t, s)
	begun, answer := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		if err := s.index.change(func(*bolt.Tx) error {
			close(begun)
			<-answer
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
	<-begun
	all.Go(func() {
		if err := s.Unexpose(dgst); err != nil {
			t.Error(err)
		}
	})
	waits := func() bool {
		s.index.queueMu.Lock()
		defer s.index.queueMu.Unlock()
		return len(s.index.queue) > 0
	}
	for !waits() {
		runtime.Gosched()
	}
	told := make(chan struct{})
	all.Go(func() {
		defer close(told)
		if info, err := s.Expose(dgst); err != nil || info.Size != 1000 {
			t.Errorf("expose: %+v, %v", info, err)
		}
	})
	select {
	case <-told: // from memory, which the deletion is behind of
	case <-time.After(50 * time.Millisecond):
	}
	close(answer)
	all.Wait()
	if _, ok := s.Exposed(dgst); !ok {
		t.Error("it was told to be there after it was deleted, and is not exposed")
	}
}

// TestExposeUnsureStays: that it is not known what is exposed is not forgotten with
// the process that found the index lost.
func TestExposeUnsureStays(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	data, dgst := blobOf(1, 1000)
	s := openStore(t, root, quiet())
	if err := errors.Join(s.Put(t.Context(), dgst, data, Facts{}), s.Close(), os.Remove(filepath.Join(root, "index.db"))); err != nil {
		t.Fatal(err)
	}
	reopen := func(unsure bool, opts ...Option) {
		t.Helper()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openStore(t, root, append(opts, quiet())...)
		if s.Unsure() != unsure {
			t.Errorf("it is unsure what is exposed: %t, want %t", s.Unsure(), unsure)
		}
	}
	reopen(false)
	reopen(true, WithExposure(testGrace))
	reopen(true, WithExposure(testGrace))
	if err := os.Remove(filepath.Join(root, "index.db")); err != nil {
		t.Fatal(err)
	}
	if err := s.attach(); err != nil {
		t.Fatal(err)
	}
	reopen(true, WithExposure(testGrace))
	if err := s.ExposeAll(t.Context(), []digest.Digest{dgst}); err != nil {
		t.Fatal(err)
	}
	reopen(false, WithExposure(testGrace))
	if _, ok := s.Exposed(dgst); !ok {
		t.Error("what containerd counts on is not exposed")
	}
}

// TestExposedGone: an exposed blob whose file is gone is not there for containerd,
// however it went, and is when it has come again.
func TestExposedGone(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := openStore(t, root, quiet(), WithExposure(testGrace))
	data, dgst := blobOf(1, 1000)
	there := func(when string, want bool) {
		t.Helper()
		if info, err := s.Expose(dgst); want != (err == nil && info.Size == 1000) || !want && !errdefs.IsNotFound(err) {
			t.Errorf("%s: %+v, %v, want it there: %t", when, info, err, want)
		}
	}
	put := func() {
		t.Helper()
		if err := s.Put(t.Context(), dgst, data, Facts{}); err != nil {
			t.Fatal(err)
		}
	}
	put()
	there("stored", true)
	if err := errors.Join(s.Damaged(t.Context(), dgst, errors.New("flipped")), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, root, quiet(), WithExposure(testGrace))
	there("damaged before a start", false)
	put()
	there("fetched anew", true)
	path, err := s.blobPath(dgst)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(dgst); !errdefs.IsNotFound(err) {
		t.Errorf("read: %v, want not found", err)
	}
	there("removed by hand, and read", false)
	put()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, root, quiet(), WithExposure(testGrace))
	if _, ok := s.Exposed(dgst); !ok {
		t.Error("it has come again and is not exposed")
	}
}

// listedDisk calls a function whenever a folder of blobs was opened.
type listedDisk struct {
	Disk
	opened func()
}

func (d listedDisk) OpenFile(path string, flag int, perm fs.FileMode) (File, error) {
	f, err := d.Disk.OpenFile(path, flag, perm)
	if filepath.Base(path) == "sha256" {
		d.opened()
	}
	return f, err
}

// TestExposeWhileLoaded: what is exposed while the records are read anew is not
// forgotten.
func TestExposeWhileLoaded(t *testing.T) {
	t.Parallel()
	disk := &listedDisk{Disk: OSDisk(), opened: func() {}}
	s := openStore(t, t.TempDir(), quiet(), WithDisk(disk), WithExposure(testGrace))
	var blobs []digest.Digest
	for i := range uint64(2) {
		data, dgst := blobOf(i, 1000)
		if err := s.Put(t.Context(), dgst, data, Facts{}); err != nil {
			t.Fatal(err)
		}
		blobs = append(blobs, dgst)
	}
	if _, err := s.Expose(blobs[0]); err != nil {
		t.Fatal(err)
	}
	told := make(chan error, 1)
	disk.opened = sync.OnceFunc(func() {
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, err := s.Expose(blobs[1])
			told <- err
		}()
		select {
		case <-done:
		case <-time.After(50 * time.Millisecond): // it waits for the records
		}
	})
	if err := errors.Join(s.loadExposures(false), <-told); err != nil {
		t.Fatal(err)
	}
	for _, dgst := range blobs {
		if _, ok := s.Exposed(dgst); !ok {
			t.Errorf("%s was exposed and is not", dgst)
		}
	}
}
