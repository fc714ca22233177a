package cache

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// socket is a pair of connected sockets: fd does not block, and is full when nobody
// reads the other end.
func socket(t *testing.T) (fd int, other *os.File) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	other = os.NewFile(uintptr(pair[1]), "other end")
	t.Cleanup(func() {
		_ = unix.Close(pair[0])
		_ = other.Close()
	})
	return pair[0], other
}

// sendAll sends a blob from an offset on; the socket's other end is read meanwhile.
func sendAll(t *testing.T, b *Blob, off int64) (sent int64, got []byte, _ error) {
	t.Helper()
	fd, other := socket(t)
	read := make(chan []byte)
	go func() {
		all, _ := io.ReadAll(other)
		read <- all
	}()
	err := func() error {
		defer func() { _ = unix.Shutdown(fd, unix.SHUT_WR) }()
		for off+sent < b.Size() {
			n, err := b.SendAt(fd, off+sent, b.Size()-off-sent)
			sent += int64(n)
			if errors.Is(err, syscall.EAGAIN) {
				_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1)
			}
			if err != nil && !errors.Is(err, syscall.EINTR) {
				return err
			}
		}
		return nil
	}()
	return sent, <-read, err
}

// resident is how much of a file is mapped and resident in this process, in KiB, and
// whether any of it is mapped.
func resident(t *testing.T, path string) (kib int, isMapped bool) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	in := false
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		line := lines.Text()
		switch fields := strings.Fields(line); {
		case strings.Contains(fields[0], "-"): // a range of addresses
			in = strings.HasSuffix(line, path)
			isMapped = isMapped || in
		case in && fields[0] == "Rss:":
			var n int
			if _, err := fmt.Sscan(fields[1], &n); err != nil {
				t.Fatal(err)
			}
			kib += n
		}
	}
	return kib, isMapped
}

// TestSend sends a blob from all sorts of offsets. Nothing of it stays resident, and
// nothing mapped once it is closed.
func TestSend(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	data, dgst := putBlob(t, s, 1, 3*sendPiece+123)
	path, err := s.blobPath(dgst)
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{0, 1, 4095, 4096, sendPiece - 1, 3 * sendPiece, int64(len(data)) - 1} {
		b, err := s.Open(dgst)
		if err != nil {
			t.Fatal(err)
		}
		sent, got, err := sendAll(t, b, off)
		if err != nil || sent != int64(len(got)) || !bytes.Equal(got, data[off:]) {
			t.Errorf("from %d: sent %d, %v, %d bytes came, want %d", off, sent, err, len(got), len(data[off:]))
		}
		if kib, isMapped := resident(t, path); kib != 0 || !isMapped {
			t.Errorf("from %d: %d KiB are resident, mapped: %t; want it mapped and none resident", off, kib, isMapped)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if _, isMapped := resident(t, path); isMapped {
			t.Errorf("from %d: the blob is closed, and mapped still", off)
		}
		if _, err := b.SendAt(0, 0, 1); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("send of a closed blob: %v, want unsupported", err)
		}
	}
}

// TestSendToFull has nobody read: what the socket takes is sent, then it is full.
func TestSendToFull(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	_, dgst := putBlob(t, s, 1, 8<<20)
	b, err := s.Open(dgst)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	fd, other := socket(t)
	for off := int64(0); ; {
		n, err := b.SendAt(fd, off, b.Size()-off)
		if off += int64(n); errors.Is(err, syscall.EAGAIN) && n == 0 && off > 0 {
			break
		}
		if err != nil || n == 0 || off == b.Size() {
			t.Fatalf("at %d: %d bytes, %v, want a full socket", off, n, err)
		}
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	if _, err := b.SendAt(fd, 0, 1); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("nobody is there any more: %v, want a broken pipe", err)
	}
}

// TestAllocationsOfSends has sends make no garbage, of which a stream of a large blob
// would make much: pieces, copies, and what a full socket does not take.
//
//nolint:paralleltest // it counts all of the process
func TestAllocationsOfSends(t *testing.T) {
	if os.Getenv("LARDER_TEST_ALLOCS") == "" {
		t.Skip("set LARDER_TEST_ALLOCS, as make allocs does")
	}
	s := openStore(t, t.TempDir())
	_, dgst := putBlob(t, s, 1, sendPiece)
	b, err := s.Open(dgst)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	fd, other := socket(t)
	buf := make([]byte, 8192)
	drained := func(n int, err error) {
		if err != nil || n != 4096 {
			t.Fatalf("sent %d, %v", n, err)
		}
		if _, err := io.ReadFull(other, buf[:n]); err != nil {
			t.Fatal(err)
		}
	}
	calls := map[string]func(){
		"piece": func() { drained(b.SendAt(fd, 0, 4096)) },
		"copy":  func() { drained(b.sendCopy(fd, 0, 4096)) },
		"full": func() {
			for {
				if _, err := b.SendAt(fd, 0, sendPiece); errors.Is(err, syscall.EAGAIN) {
					return
				}
			}
		},
	}
	for _, name := range []string{"piece", "copy", "full"} {
		if n := testing.AllocsPerRun(200, calls[name]); n > 0 {
			t.Errorf("%s: %.0f allocations, want none", name, n)
		}
	}
}

// TestSendAmongMany has as many at it as may be: it waits for none of them, and sends
// a copy.
func TestSendAmongMany(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir(), quiet())
	data, dgst := putBlob(t, s, 1, sendPiece)
	b, err := s.Open(dgst)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for range cap(s.senders) {
		s.senders <- struct{}{}
	}
	fd, _ := socket(t)
	if n, err := b.SendAt(fd, 0, sendPiece); err != nil || n > copiedPiece {
		t.Errorf("sent %d, %v, want %d by way of a buffer", n, err, copiedPiece)
	}
	sent, got, err := sendAll(t, b, 4097)
	if err != nil || sent != sendPiece-4097 || !bytes.Equal(got, data[4097:]) {
		t.Errorf("sent %d, %v, %d bytes came", sent, err, len(got))
	}
	tamper(t, s, dgst, func(f *os.File) error { return f.Truncate(100) })
	if n, err := b.SendAt(fd, 100, 1); n != 0 || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("behind the end: %d, %v, want unsupported", n, err)
	}
	<-s.senders
	if n, err := b.SendAt(fd, 0, 100); n != 100 || err != nil || len(s.senders) != cap(s.senders)-1 {
		t.Errorf("one place is free: sent %d, %v, and %d of %d places are taken", n, err, len(s.senders), cap(s.senders))
	}
}

// TestSendOfLost has pages that the disk does not give, in the middle of a blob: what
// is before them is sent, and then the blob is not to be sent but to be read.
func TestSendOfLost(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir(), quiet())
	data, dgst := putBlob(t, s, 1, 3*sendPiece)
	b, err := s.Open(dgst)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	const left = sendPiece + 4096
	tamper(t, s, dgst, func(f *os.File) error { return f.Truncate(left) })
	sent, got, err := sendAll(t, b, 0)
	if !errors.Is(err, errors.ErrUnsupported) || sent < left/2 || sent > left || !bytes.Equal(got, data[:sent]) {
		t.Errorf("sent %d, %v, want most of %d and then that it is to be read", sent, err, left)
	}
	rest := make([]byte, left-sent)
	if _, err := b.ReadAt(rest, sent); err != nil || !bytes.Equal(rest, data[sent:left]) {
		t.Errorf("read what was not sent: %v", err)
	}
	if _, err := b.SendAt(0, 0, 1); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("the next send: %v, want unsupported", err)
	}
}

// plainFile is a file of which no more is known than that it is one.
type plainFile struct{ File }

type plainDisk struct{ Disk }

func (d plainDisk) OpenFile(path string, flag int, perm os.FileMode) (File, error) {
	f, err := d.Disk.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err
	}
	return plainFile{f}, nil
}

// TestSendUnsupported: a file of another Disk is not mapped, since that would go past
// whatever that does, and no wrong part is sent.
func TestSendUnsupported(t *testing.T) {
	t.Parallel()
	for name, disk := range map[string]Disk{"own disk": OSDisk(), "another": plainDisk{OSDisk()}} {
		s := openStore(t, t.TempDir(), WithDisk(disk))
		_, dgst := putBlob(t, s, 1, 4096)
		b, err := s.Open(dgst)
		if err != nil {
			t.Fatal(err)
		}
		fd, _ := socket(t)
		for _, part := range [][2]int64{{-1, 1}, {0, 0}, {0, -1}, {0, 4097}, {4096, 1}, {1, 1 << 62}, {1 << 62, 1 << 62}} {
			if n, err := b.SendAt(fd, part[0], part[1]); n != 0 || !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("%s: part %v: %d, %v, want unsupported", name, part, n, err)
			}
		}
		n, err := b.SendAt(fd, 0, 4096)
		if name == "another" && !errors.Is(err, errors.ErrUnsupported) || name == "own disk" && (n != 4096 || err != nil) {
			t.Errorf("%s: %d, %v", name, n, err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if _, isMapped := resident(t, filepath.Base(b.Name())); isMapped && name == "another" {
			t.Errorf("%s: it is mapped", name)
		}
	}
}
