package cache

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"
)

// largeIndex makes a store whose index is too large to be read before it is used,
// and closes it. Its tags are those of fullIndex.
func largeIndex(t *testing.T) (root string) {
	t.Helper()
	root, _, _ = fullIndex(t)
	path := filepath.Join(root, "index.db")
	db, err := bolt.Open(path, 0o600, &bolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for i := range readAtOnce >> 17 {
			if err := tx.Bucket([]byte(endedBucket)).Put(fmt.Appendf(nil, "%04d", i), make([]byte, 1<<17)); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Size() <= readAtOnce {
		t.Fatalf("index: %v, %v, want more than %d bytes", fi.Size(), err, readAtOnce)
	}
	return root
}

// loseTags has one page of tags be a copy of another one, as a disk leaves it that
// wrote in the wrong place. No page is wrong in itself.
func loseTags(path string) error {
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	size := db.Info().PageSize
	var pages []int
	err = db.View(func(tx *bolt.Tx) error {
		for i := 2; i < len(data)/size; i++ {
			info, err := tx.Page(i)
			if err != nil || info == nil {
				return err
			}
			isTags := bytes.Contains(data[i*size:(i+1)*size], []byte(`"lastError":"xxx`))
			if isTags && info.Type == "leaf" && info.OverflowCount == 0 {
				pages = append(pages, i)
			}
		}
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil || len(pages) < 10 {
		return fmt.Errorf("tags are on the pages %v, want some: %w", pages, err)
	}
	from, to := pages[1], pages[len(pages)-2]
	page := bytes.Clone(data[from*size : (from+1)*size])
	binary.NativeEndian.PutUint64(page, uint64(to))
	return overwrite(path, page, int64(to*size))
}

// TestLargeIndexIsReadLater: a store with a large index is open before all of it
// was read, and what is found afterwards costs no tag.
func TestLargeIndexIsReadLater(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(path string) error{
		"whole":   nil,
		"garbage": func(path string) error { return overwrite(path, bytes.Repeat([]byte{0xa5}, 1<<20), 16<<20) },
		"cut":     truncateHalf,
		"wrong":   loseTags,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := largeIndex(t)
			if damage != nil {
				if err := damage(filepath.Join(root, "index.db")); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Test(t, func(t *testing.T) {
				s := openStore(t, root, quiet())
				synctest.Wait() // it is read
				if s.index.unread.Load() != (damage != nil && name != "cut") {
					t.Errorf("unread: %t", s.index.unread.Load())
				}
				s.indexChanged()
				<-time.After(3 * probeEvery)
				wantState(t, s, StateOK)
				if tags, err := s.Tags(); err != nil || len(tags) != 300 {
					t.Errorf("%d tags, %v, want all 300", len(tags), err)
				}
				if found, _, err := s.readSnapshot(); err != nil || len(found.tags) != 300 {
					t.Errorf("%d tags in the snapshot, %v, want all 300", len(found.tags), err)
				}
				kept, err := filepath.Glob(filepath.Join(root, "index.db.damaged-*"))
				if err != nil || len(kept) > 0 != (damage != nil) {
					t.Errorf("kept %v, %v", kept, err)
				}
			})
		})
	}
}

// TestOldCheckSaysNothingOfNewIndex has the reading of an index end while another
// file takes the index's place: that one is not taken for read.
func TestOldCheckSaysNothingOfNewIndex(t *testing.T) {
	t.Parallel()
	root := largeIndex(t)
	path := filepath.Join(root, "index.db")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other := path + ".other"
	garbage := bytes.Repeat([]byte{0xa5}, 1<<20)
	if err := errors.Join(os.WriteFile(other, data, 0o600), overwrite(other, garbage, 16<<20)); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, root, quiet())
		synctest.Wait()
		s.healer.begin(func(ctx context.Context) {
			<-ctx.Done() // it came too late
			s.index.unread.Store(false)
		})
		if err := errors.Join(os.Rename(other, path), s.attach()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !s.index.unread.Load() {
			t.Error("the damaged index counts as read")
		}
	})
}

// TestNoSnapshotOfUnreadIndex: what was not read when a snapshot ends is none,
// whatever it was when it began.
func TestNoSnapshotOfUnreadIndex(t *testing.T) {
	t.Parallel()
	root, _, _ := fullIndex(t)
	s := openStore(t, root, quiet())
	s.index.unread.Store(true)
	before, err := os.ReadFile(s.snapshotPath())
	if err := errors.Join(err, s.DeleteTag("docker.io/library/nginx:0001")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.replaceSnapshot(); !errors.Is(err, errNotRead) {
		t.Errorf("snapshot: %v, want %v", err, errNotRead)
	}
	if after, err := os.ReadFile(s.snapshotPath()); err != nil || !bytes.Equal(after, before) {
		t.Errorf("snapshot has changed, or %v", err)
	}
}

// TestWalksFindLostTags: an index of which tags are missing, and that was not read
// yet, is none from which to tell what may go, nor what a snapshot has.
func TestWalksFindLostTags(t *testing.T) {
	t.Parallel()
	root := largeIndex(t)
	if err := loseTags(filepath.Join(root, "index.db")); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, root, quiet())
	s.healer.pause()
	if _, err := s.loadGraph(t.Context()); !errors.Is(err, errDamaged) {
		t.Errorf("graph: %v, want %v", err, errDamaged)
	}
	if tags, err := s.Tags(); !errors.Is(err, errDamaged) {
		t.Errorf("%d tags, %v, want %v", len(tags), err, errDamaged)
	}
	if _, err := s.index.snapshotSum(); !errors.Is(err, errDamaged) {
		t.Errorf("snapshot: %v, want %v", err, errDamaged)
	}
}
