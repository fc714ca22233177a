package cache

import (
	"errors"
	"testing"

	"github.com/containerd/errdefs"
)

var errTest = errors.New("not wanted any more")

// TestAbandon: what nobody else wants ends with the cause, keeps its progress, and
// leaves the way free for a fill of somebody's own, which goes on where it was.
func TestAbandon(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	data, dgst := blobOf(1, 2*HoldBack)
	first := newTap(int64(len(data)))
	f := startFill(t, s, dgst, -1, first)
	first.flow(t, data[:HoldBack+10])
	waitReceived(t, f, HoldBack+10)
	if !f.Abandon(errTest) {
		t.Fatal("not abandoned, although nobody else wants it")
	}
	second := scripted(sends(data))
	own := startFill(t, s, dgst, -1, second) // whether the first one has ended or not
	if err := f.Wait(patience(t)); !errors.Is(err, errTest) {
		t.Errorf("the abandoned fill ended with %v, want the cause", err)
	}
	if err := own.Wait(patience(t)); err != nil {
		t.Error(err)
	}
	second.wantOffsets(t, HoldBack+10)
	if f.Abandon(errTest) || own.Abandon(errTest) {
		t.Error("a fill that is over was abandoned")
	}
	wantBlob(t, s, dgst, data)
	wantNoIngests(t, s)
}

// TestAbandonSpares: a fill that somebody reads, has read or waits for goes on.
func TestAbandonSpares(t *testing.T) {
	t.Parallel()
	for name, join := range map[string]func(*testing.T, *Store, *Fill){
		"read": func(t *testing.T, s *Store, f *Fill) {
			r, err := f.NewReader(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { r.Close() })
			if !s.IsRead(f.Digest()) {
				t.Error("a fill with a reader is not read")
			}
		},
		"was read": func(t *testing.T, s *Store, f *Fill) {
			r, err := f.NewReader(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			r.Close()
			if s.IsRead(f.Digest()) {
				t.Error("a fill whose reader has left is read")
			}
		},
		"waited for": func(t *testing.T, s *Store, f *Fill) {
			if _, started, err := s.Fill(t.Context(), f.Digest(), -1, scripted()); err != nil || started {
				t.Errorf("started %t, %v, want the fill that runs", started, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openStore(t, t.TempDir())
			data, dgst := blobOf(1, 1000)
			src := newTap(int64(len(data)))
			f := startFill(t, s, dgst, -1, src)
			join(t, s, f)
			if f.Abandon(errTest) {
				t.Error("abandoned, although somebody else wants it")
			}
			src.flow(t, data)
			src.w.Close()
			if err := f.Wait(patience(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestHasRoom: there is room up to the high mark, what is promised to fills counts,
// and a store that does not store has none.
func TestHasRoom(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	if !s.HasRoom(1<<20) || s.HasRoom(1<<60) {
		t.Error("without a budget the file system is the bound")
	}
	s.budget = Budget{MaxSize: Amount{Bytes: 100 << 20}, High: 0.5, Low: 0.4}
	if !s.HasRoom(40<<20) || s.HasRoom(51<<20) {
		t.Error("want room below the high mark, and none beyond it")
	}
	data, dgst := blobOf(1, 1000)
	src := newTap(30 << 20)
	f := startFill(t, s, dgst, -1, src)
	src.flow(t, data)
	waitReceived(t, f, 1000) // its size was reserved before
	if s.HasRoom(40 << 20) {
		t.Error("what is promised to a fill counts as free")
	}
	if !f.Abandon(errTest) {
		t.Error("not abandoned")
	}
	if err := f.Wait(patience(t)); !errors.Is(err, errTest) {
		t.Error(err)
	}
	if !s.HasRoom(40 << 20) {
		t.Error("what was promised to an abandoned fill is not given back")
	}
	d := degraded(t, t.TempDir())
	d.noteDisk(t.Context(), errdefs.ErrResourceExhausted, 1)
	if d.HasRoom(1) {
		t.Error("a full store has room")
	}
}
