package cache

import (
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/containerd/errdefs"
)

// What is held, or served while a removal runs, is not deleted; and nothing is
// remembered when all is over.
func TestRemovalSparesHeld(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	data, dgst := blobOf(1, 10)
	deleted := func() bool {
		gone, err := s.DeleteUnlessHeld(t.Context(), dgst)
		if err != nil {
			t.Fatal(err)
		}
		return gone
	}
	put := func() {
		if err := s.Put(t.Context(), dgst, data, Facts{}); err != nil {
			t.Fatal(err)
		}
	}
	put()
	release := s.Hold(dgst)
	if deleted() {
		t.Error("a held blob was deleted")
	}
	end := s.BeginRemoval()
	release()
	if deleted() {
		t.Error("a blob that was held when the removal began was deleted by it")
	}
	end()
	if !deleted() {
		t.Error("a blob is held after all let go")
	}
	put()
	end = s.BeginRemoval()
	s.NoteServed(dgst)
	if deleted() {
		t.Error("a blob that was served behind the removal's begin was deleted")
	}
	end()
	put()
	b, err := s.Open(dgst)
	if err != nil {
		t.Fatal(err)
	}
	evicted := func() bool {
		gone, err := s.holds.unlessBusy(dgst, func() error { return s.Delete(t.Context(), dgst) })
		if err != nil {
			t.Fatal(err)
		}
		return gone
	}
	if evicted() {
		t.Error("a blob was evicted under its reader")
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if !evicted() {
		t.Error("a blob is busy after its reader has gone")
	}
	if n := len(s.holds.open); n != 0 {
		t.Errorf("%d digests are read for ever", n)
	}
	if n := len(s.holds.held); n != 0 {
		t.Errorf("%d digests are held for ever", n)
	}
}

// slowDisk takes its time to remove a file: until go is closed.
type slowDisk struct {
	Disk
	slow   string
	begun  chan struct{} // closed when it has begun
	finish chan struct{}
}

func (d slowDisk) Remove(name string) error {
	if filepath.Base(name) == d.slow {
		close(d.begun)
		<-d.finish
	}
	return d.Disk.Remove(name)
}

// TestRemovalHoldsUpNobodyElse: who wants a blob that is removed just now waits,
// and finds that it is gone; all others go on.
func TestRemovalHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		going, dgst := blobOf(1, 10)
		staying, other := blobOf(2, 10)
		disk := slowDisk{Disk: OSDisk(), slow: dgst.Encoded(), begun: make(chan struct{}), finish: make(chan struct{})}
		s := openStore(t, t.TempDir(), WithDisk(disk))
		if err := errors.Join(s.Put(t.Context(), dgst, going, Facts{}), s.Put(t.Context(), other, staying, Facts{})); err != nil {
			t.Fatal(err)
		}
		defer s.BeginRemoval()()
		go func() {
			if deleted, err := s.DeleteUnlessHeld(t.Context(), dgst); !deleted || err != nil {
				t.Errorf("deleted: %t, %v", deleted, err)
			}
		}()
		<-disk.begun
		s.NoteServed(other)
		s.Hold(other)()
		wantBlob(t, s, other, staying)
		if deleted, err := s.DeleteUnlessHeld(t.Context(), other); deleted || err != nil {
			t.Errorf("what was served meanwhile is deleted: %t, %v", deleted, err)
		}
		var late atomic.Int32
		for _, take := range []func(){
			func() { s.Hold(dgst)() },
			func() { s.NoteServed(dgst) },
			func() {
				if b, err := s.Open(dgst); !errdefs.IsNotFound(err) {
					t.Errorf("open: %v, %v, want not found", b, err)
				}
			},
			func() {
				if deleted, err := s.DeleteUnlessHeld(t.Context(), dgst); deleted || err != nil {
					t.Errorf("deleted twice: %t, %v", deleted, err)
				}
			},
		} {
			go func() {
				take()
				late.Add(1)
			}()
		}
		synctest.Wait()
		if n := late.Load(); n != 0 {
			t.Errorf("%d of those who want what is being removed did not wait", n)
		}
		close(disk.finish)
		synctest.Wait()
		if n := late.Load(); n != 4 {
			t.Errorf("%d of 4 go on when it is gone", n)
		}
	})
}
