package cache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
)

// TestIndexDamagedWhileRunning damages the index below a store that runs: no
// call crashes or hangs, the damage shows, blobs are served, and the index is
// begun anew by itself, with what it had.
func TestIndexDamagedWhileRunning(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(path string) error{
		"garbage": overwriteGarbage,
		"zeros":   overwriteZeros,
		"cut":     func(path string) error { return os.Truncate(path, 8192) },
		"gone":    func(path string) error { return os.Truncate(path, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root, data, dgst := fullIndex(t)
			synctest.Test(t, func(t *testing.T) {
				s := openStore(t, root)
				if err := damage(filepath.Join(root, "index.db")); err != nil {
					t.Fatal(err)
				}
				var wg sync.WaitGroup
				for i := range 20 {
					wg.Go(func() {
						name := fmt.Sprintf("docker.io/library/nginx:%04d", i)
						if _, err := s.Tag(name); err != nil && !errors.Is(err, errDamaged) && !errdefs.IsNotFound(err) && !errdefs.IsUnavailable(err) {
							t.Errorf("tag: %v, want that the index is damaged", err)
						}
						if err := s.PutTag(Tag{Name: name}); err == nil {
							t.Error("put tag into a damaged index: no error")
						}
					})
				}
				wg.Wait()
				wantState(t, s, StateDegraded)
				wantBlob(t, s, dgst, data)
				<-time.After(3 * probeEvery)
				wantState(t, s, StateOK)
				if err := s.PutTag(Tag{Name: "docker.io/library/nginx:new"}); err != nil {
					t.Errorf("put tag after it is begun anew: %v", err)
				}
				if tag, err := s.Tag("docker.io/library/nginx:0299"); err != nil || tag.Target.Digest != dgst {
					t.Errorf("a tag of before: %+v, %v, want it restored", tag, err)
				}
				kept, err := filepath.Glob(filepath.Join(root, "index.db.damaged-*"))
				if err != nil || len(kept) > 1 {
					t.Errorf("kept %v, %v, want one damaged index at most", kept, err)
				}
			})
		})
	}
}

// TestChangesShareCommits: many who change at once share transactions, each
// gets its own error, and one that fails costs nobody else's change.
func TestChangesShareCommits(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	before := txID(t, s)
	wrong := errors.New("wrong")
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			if i%50 == 0 {
				if err := s.index.change(func(*bolt.Tx) error { return wrong }); !errors.Is(err, wrong) {
					t.Errorf("change that fails: %v, want its error", err)
				}
				return
			}
			if err := s.PutTag(Tag{Name: fmt.Sprint(i)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	tags, err := s.Tags()
	if err != nil || len(tags) != 196 {
		t.Errorf("%d tags, %v, want 196", len(tags), err)
	}
	t.Logf("196 changes in %d transactions", txID(t, s)-before)
}

func txID(t *testing.T, s *Store) (id int) {
	t.Helper()
	if err := s.index.view(func(tx *bolt.Tx) error {
		id = tx.ID()
		return nil
	}); err != nil {
		t.Error(err)
	}
	return id
}
