package integration

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larder-project/larder/integration/internal/parts"
)

// A starving larder has no file descriptor left: idle clients hold all that it
// has not opened itself.
type starving struct {
	t    *testing.T
	l    *parts.Larder
	was  unix.Rlimit
	idle []net.Conn
}

// starve leaves so many descriptors. The kernel bounds the number of the next
// one, not how many there are, so that a bound alone would leave gaps below it
// or open ones above, which are of no use once they are closed.
func starve(t *testing.T, l *parts.Larder, spare int) *starving {
	t.Helper()
	s := &starving{t: t, l: l}
	if err := unix.Prlimit(l.PID(), unix.RLIMIT_NOFILE, nil, &s.was); err != nil {
		t.Fatal(err)
	}
	files := 1 + slices.Max(settledFiles(t, l.PID()))
	s.limit(files)
	for s.dial() {
	}
	s.limit(files + spare)
	return s
}

// dial reports whether larder has taken one more client.
func (s *starving) dial() bool {
	s.t.Helper()
	c, err := (&net.Dialer{}).DialContext(s.t.Context(), "tcp", strings.TrimPrefix(s.l.URL, "http://"))
	if errors.Is(err, unix.ECONNRESET) {
		return false
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.idle = append(s.idle, c)
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		s.t.Fatal(err)
	}
	err = ask(c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.t.Fatal(err)
	}
	return err == nil
}

// ask asks for a ping, and has it.
func ask(c net.Conn) error {
	if _, err := fmt.Fprint(c, "GET /v2/ HTTP/1.1\r\nHost: larder\r\n\r\n"); err != nil {
		return err
	}
	buf := make([]byte, 4<<10)
	n, err := c.Read(buf)
	if err == nil && !strings.HasPrefix(string(buf[:n]), "HTTP/1.1 200 ") {
		err = fmt.Errorf("got %.100q", buf[:n])
	}
	return err
}

// settledFiles are the descriptors of a process that has none left to close: what
// it closes after it is bounded would be free again.
func settledFiles(t *testing.T, pid int) []int {
	t.Helper()
	var files []int
	same := 0
	eventually(t, "larder closes what its last clients left", func() bool {
		now := descriptors(t, pid)
		if same++; !slices.Equal(now, files) {
			files, same = now, 0
		}
		return same >= 4
	})
	return files
}

func (s *starving) limit(files int) {
	s.t.Helper()
	if err := unix.Prlimit(s.l.PID(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(files), Max: s.was.Max}, nil); err != nil {
		s.t.Fatal(err)
	}
}

// end gives larder back what it had.
func (s *starving) end() {
	s.t.Helper()
	s.limit(int(s.was.Cur))
	for _, c := range s.idle {
		if err := c.Close(); err != nil {
			s.t.Error(err)
		}
	}
}
