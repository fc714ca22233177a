package mirror

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
)

// stall of the tests: long for a busy machine, short for who waits for it.
const stall = 2 * time.Second

// large is more than any socket holds.
const large = 24 << 20

// storedLarge is a bench that has a large blob, and its digest.
func storedLarge(t *testing.T, change func(*setup)) (*bench, digest.Digest) {
	t.Helper()
	b := newBench(t, change)
	dgst := b.up.PutBlob("library/app", make([]byte, large)).Digest
	b.get(blobPath(dgst))
	b.settle(dgst)
	return b, dgst
}

// A client that reads nothing of a stored blob is cut, and who reads little but
// steadily is not, for as long as it takes.
func TestStalledReaderIsCut(t *testing.T) {
	t.Parallel()
	b, dgst := storedLarge(t, func(s *setup) { s.bounds.Stall = stall })
	stalled, steady := b.dial(blobPath(dgst)), b.dial(blobPath(dgst))
	defer stalled.Close()
	defer steady.Close()
	begun := time.Now()
	slow := make(chan error, 1)
	go func() { slow <- readSteadily(steady) }()
	eventually(t, "the stalled reader is cut", func() bool { return len(b.log.requests(t)) > 1 })
	t.Logf("cut after %s with a stall of %s", time.Since(begun).Round(time.Millisecond), stall)
	line := b.log.requests(t)[1]
	// The kernel tells the time-out once: to who sends, or to who waits for the
	// client's next request. The other is told that the connection is gone.
	why := line["err"].(string)
	if line["level"] != "INFO" || !strings.Contains(why, syscall.ETIMEDOUT.Error()) && !strings.Contains(why, syscall.EPIPE.Error()) {
		t.Errorf("the log has %v, want the time-out as no fault of larder's", line)
	}
	if n, err := io.Copy(io.Discard, stalled); err == nil && n >= large {
		t.Errorf("stalled reader: got all %d bytes", n)
	}
	if err := <-slow; err != nil {
		t.Errorf("steady reader: %v after %s", err, time.Since(begun))
	}
}

// readSteadily takes two stalls and a half for most of an answer, a little at a
// time.
func readSteadily(conn net.Conn) error {
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	tick := time.NewTicker(stall / 10)
	defer tick.Stop()
	for i := range 25 {
		if _, err := io.CopyN(io.Discard, resp.Body, large/40); err != nil {
			return fmt.Errorf("cut in piece %d: %w", i, err)
		}
		<-tick.C
	}
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && n != large-25*(large/40) {
		err = fmt.Errorf("%d bytes at the end: %w", n, io.ErrUnexpectedEOF)
	}
	return err
}

// Above the bound clients are told so, above that they are reset, and below it
// all is as before.
func TestConnectionsAboveTheBound(t *testing.T) {
	t.Parallel()
	const bound = 4
	b := newBench(t, func(s *setup) { s.bounds.Connections = bound })
	b.up.PutImage("library/app", "1", remotestest.Build(remotestest.ImageSpec{}))
	// Connections that say nothing count.
	idle := b.connect(bound)
	a := b.ask(http.MethodGet, manifestPath("1"))
	if a.status != http.StatusServiceUnavailable || a.entry().Code != "UNAVAILABLE" || !strings.Contains(a.entry().Message, "as many connections as it can") {
		t.Errorf("above the bound: got %d %+v, want 503", a.status, a.entry())
	}
	if n := len(b.up.Requests()); n != 0 {
		t.Errorf("upstream saw %d requests", n)
	}
	// The one that was told has left when the listener says so.
	eventually(t, "the silent ones are all", func() bool { return b.listener.open.Load() == bound })
	over := b.connect(int(told(bound)))
	if a, err := b.try(soon(t), http.MethodGet, "/v2/"); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("far above the bound: got %d, %v, want a reset", a.status, err)
	}
	for _, c := range append(idle, over...) {
		c.Close()
	}
	eventually(t, "clients are served again", func() bool { a, err := b.try(soon(t), http.MethodGet, "/v2/"); return err == nil && a.status == 200 })
	if n := strings.Count(b.log.String(), "too many connections"); n == 0 || n > 3 {
		t.Errorf("the log says %d times that there are too many, want it once or so", n)
	}
}

// connect makes connections, and waits until the listener has them.
func (b *bench) connect(n int) []net.Conn {
	b.t.Helper()
	var all []net.Conn
	want := b.listener.open.Load() + int64(n)
	for range n {
		c, err := (&net.Dialer{}).DialContext(soon(b.t), "tcp4", b.addr)
		if err != nil {
			b.t.Fatal(err)
		}
		b.t.Cleanup(func() { c.Close() })
		all = append(all, c)
	}
	eventually(b.t, "the listener has them", func() bool { return b.listener.open.Load() == want })
	return all
}

// So many stored blobs are sent at a time; who waits for a place in vain is
// told, and holds up nobody.
func TestOpenBlobsAreBounded(t *testing.T) {
	t.Parallel()
	b, dgst := storedLarge(t, func(s *setup) { s.maxOpen, s.wait = 1, 3*time.Second })
	holder := b.dial(blobPath(dgst))
	defer holder.Close()
	if _, err := io.ReadFull(holder, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if a := b.ask(http.MethodGet, blobPath(dgst)); a.status != http.StatusServiceUnavailable || !strings.Contains(a.entry().Message, "as many blobs as it can") {
		t.Errorf("a second one: got %d %+v, want 503", a.status, a.entry())
	}
	// What is not stored has no file of its own.
	if small := b.up.PutBlob("library/app", []byte("small")).Digest; digest.FromBytes(b.get(blobPath(small)).body) != small {
		t.Error("what is not stored is not fetched")
	}
	holder.Close()
	eventually(t, "the place is given back", func() bool { return b.ask(http.MethodGet, blobPath(dgst)).status == 200 })
	eventually(t, "all places are free", func() bool { return b.ask(http.MethodHead, blobPath(dgst)).status == 200 })
}

// A listener that was closed ends, also while it has no spare descriptor.
func TestListenerEnds(t *testing.T) {
	t.Parallel()
	l, err := Listen(t.Context(), "127.0.0.1:0", Bounds{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := l.acceptWithSpare()
		ended <- err
	}()
	eventually(t, "the spare is lent", func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.spare == nil })
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v, want that it is closed", err)
	}
	if _, err := l.accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v, want that it is closed", err)
	}
	if l.spare != nil {
		t.Errorf("a descriptor is left open: %v", l.spare)
	}
}

func TestOutOfFiles(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]bool{
		&net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}:       true,
		&net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.ENFILE)}:       true,
		&net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.ECONNABORTED)}: false,
		net.ErrClosed: false,
	} {
		if got := isOutOfFiles(err); got != want {
			t.Errorf("%v: got %t, want %t", err, got, want)
		}
	}
}
