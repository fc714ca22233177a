package cache

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/containerd/errdefs"
)

// TestAwaitFillOfSilent: nothing moves before an upstream answers.
func TestAwaitFillOfSilent(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, root)
		_, dgst := blobOf(1, 1000)
		answer := make(chan struct{})
		startFill(t, s, dgst, -1, sourceFunc(func(context.Context, int64) (Stream, error) {
			<-answer
			return Stream{}, errTest
		}))
		var moved atomic.Int32
		ended := make(chan error, 1)
		go func() { ended <- s.AwaitFill(t.Context(), dgst, func() { moved.Add(1) }) }()
		synctest.Wait()
		close(answer)
		if err := <-ended; !errors.Is(err, errTest) || moved.Load() != 0 {
			t.Errorf("%v, moved %d times, want the error alone", err, moved.Load())
		}
	})
}

// TestAwaitFill: it waits as a reader does, begins nothing, and ends with the fill or
// with who waits.
func TestAwaitFill(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, root)
		data, dgst := blobOf(1, 1000)
		if err := s.AwaitFill(t.Context(), dgst, func() {}); !errdefs.IsNotFound(err) {
			t.Errorf("%v without a fill, want not found", err)
		}
		src := newTap(int64(len(data)))
		f := startFill(t, s, dgst, -1, src)
		left, leave := context.WithCancelCause(t.Context())
		ended := make(chan error, 2)
		go func() { ended <- s.AwaitFill(left, dgst, func() {}) }()
		synctest.Wait()
		if !s.IsRead(dgst) || f.Abandon(errTest) {
			t.Error("nobody reads the fill, or it was abandoned")
		}
		leave(errTest)
		if err := <-ended; !errors.Is(err, errTest) || s.IsRead(dgst) {
			t.Errorf("%v, is read: %t; want the cause, and nobody", err, s.IsRead(dgst))
		}
		var moved atomic.Int32
		go func() { ended <- s.AwaitFill(t.Context(), dgst, func() { moved.Add(1) }) }()
		synctest.Wait()
		if p, ok := s.FillProgress(dgst); !ok || p.Done || p.Size != int64(len(data)) {
			t.Errorf("%+v, %t, want a fill that runs", p, ok)
		}
		src.flow(t, data)
		src.w.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if _, ok := s.FillProgress(dgst); ok {
			t.Error("a fill runs, behind its end")
		}
		if moved.Load() == 0 {
			t.Error("nothing moved")
		}
		wantBlob(t, s, dgst, data)
	})
}
