package cache

import (
	"errors"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/containerd/containerd/v2/core/content"
	"golang.org/x/sys/unix"
)

// slowConn is a file whose disk takes a piece only when it is let.
type slowConn struct {
	let     chan struct{}
	written *int
}

func (c slowConn) Control(func(fd uintptr)) error {
	<-c.let
	*c.written++
	return errors.New("advice is not taken")
}

func (c slowConn) Read(func(fd uintptr) bool) error  { return errors.ErrUnsupported }
func (c slowConn) Write(func(fd uintptr) bool) error { return errors.ErrUnsupported }

var _ syscall.RawConn = slowConn{}

// TestWritebackWaitsForNobody: nobody who adds waits for a disk that takes nothing,
// what waits for it is bounded, and close waits for what the disk has.
func TestWritebackWaitsForNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var w writeback
		written := 0
		slow := pages{conn: slowConn{make(chan struct{}), &written}, n: 1}
		for range 10 * writebackQueue {
			w.add(slow)
			synctest.Wait()
		}
		if len(w.queue) != writebackQueue {
			t.Errorf("%d pieces wait, want %d", len(w.queue), writebackQueue)
		}
		w.add(pages{n: 1}) // a file of no disk of the machine's
		slow.conn.(slowConn).let <- struct{}{}
		synctest.Wait()
		w.add(slow)
		closed := make(chan struct{})
		go func() {
			w.close()
			close(closed)
		}()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("closed while the disk has a piece")
		default:
		}
		slow.conn.(slowConn).let <- struct{}{}
		<-closed
		if w.add(slow); written != 2 || len(w.queue) != 0 {
			t.Errorf("%d pieces written, %d wait after the end, want 2 and none", written, len(w.queue))
		}
	})
}

// TestWriteback: of a file that grows the kernel has begun to write all but the last
// piece, before anybody has asked for an fsync.
func TestWriteback(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	var fs unix.Statfs_t
	if err := unix.Statfs(s.Root(), &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Type == unix.TMPFS_MAGIC {
		t.Skip("the folder for temporary files has no disk")
	}
	w, err := s.Writer(t.Context(), content.WithRef("grows"))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	const pieces = 4
	for range pieces * writebackPiece / (1 << 20) {
		if _, err := w.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Write([]byte("more")); err != nil {
		t.Fatal(err)
	}
	s.writeback.ended.Wait()
	var stat unix.Cachestat_t
	err = pagesOf(w.(*writer).in.file, 0, 0).control(func(fd uintptr) error {
		return unix.Cachestat(uint(fd), &unix.CachestatRange{Len: pieces * writebackPiece}, &stat, 0)
	})
	if errors.Is(err, unix.ENOSYS) {
		t.Skip("the kernel cannot tell what is written")
	}
	if err != nil || stat.Cache == 0 || stat.Dirty != 0 {
		t.Errorf("%+v, %v, want no dirty page", stat, err)
	}
}
