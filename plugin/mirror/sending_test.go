package mirror

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
)

// selfSender is a sender that sends itself up to an offset, and counts.
type selfSender struct {
	*bytes.Reader
	data   []byte
	upTo   int64 // from here on it is to be read
	broken int64 // and from here on cannot be; -1: it can
	sent   atomic.Int64
}

func (s *selfSender) SendAt(fd int, off, n int64) (int, error) {
	if off >= s.upTo {
		return 0, errors.ErrUnsupported
	}
	got, err := syscall.Write(fd, s.data[off:min(off+n, s.upTo)])
	s.sent.Add(int64(max(0, got)))
	return max(0, got), err
}

func (s *selfSender) ReadAt(p []byte, off int64) (int, error) {
	if s.broken < 0 || off+int64(len(p)) <= s.broken {
		return s.Reader.ReadAt(p, off)
	}
	if off >= s.broken {
		return 0, syscall.EIO
	}
	n, _ := s.Reader.ReadAt(p[:s.broken-off], off)
	return n, syscall.EIO
}

// TestSending has bodies sent by themselves, and copied from where they do not send
// themselves any more; over a connection of ours, and over one of somebody else's,
// on which all is copied.
func TestSending(t *testing.T) {
	t.Parallel()
	const size = 24 << 20 // more than any socket holds
	data := noise(3, size)
	for name, tc := range map[string]struct {
		upTo, broken int64
		off, n       int64
		foreign      bool
		want         int64 // bytes that come
		sent         int64 // that it sends itself: some come with the header
	}{
		"all of it":       {upTo: size, broken: -1, n: size, want: size, sent: size - 512},
		"a part":          {upTo: size, broken: -1, off: 4097, n: 9 << 20, want: 9 << 20, sent: 9<<20 - 512},
		"copied from":     {upTo: 5<<20 + 1, broken: -1, n: size, want: size, sent: 5<<20 + 1 - 512},
		"copied":          {broken: -1, n: size, want: size},
		"broken":          {upTo: 6 << 20, broken: 7 << 20, n: size, want: 7 << 20, sent: 6<<20 - 512},
		"broken at once":  {broken: 0, n: size},
		"too small":       {upTo: size, broken: -1, n: sendLeast - 1, want: sendLeast - 1},
		"another's":       {upTo: size, broken: -1, n: size, foreign: true, want: size},
		"another's, torn": {upTo: size, broken: 3 << 20, n: size, foreign: true, want: 3 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			body := &selfSender{Reader: bytes.NewReader(data), data: data, upTo: tc.upTo, broken: tc.broken}
			results := make(chan *recorder, 1)
			handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", strconv.FormatInt(tc.n, 10))
				rec := &recorder{ResponseWriter: w, buffers: &buffers{}}
				_, _ = body.Seek(tc.off, io.SeekStart)
				n, err := rec.ReadFrom(io.LimitReader(body, tc.n))
				if n != rec.bytes || (err != nil) != (tc.broken >= 0) {
					t.Errorf("%d bytes, %d recorded, %v", n, rec.bytes, err)
				}
				results <- rec
				if err != nil {
					panic(http.ErrAbortHandler)
				}
			})
			b := newBench(t)
			if tc.foreign {
				srv := httptest.NewServer(handler)
				defer srv.Close()
				b.addr = srv.Listener.Addr().String()
			} else {
				listener, err := Listen(t.Context(), "127.0.0.1:0", Bounds{}, b.listener.logger)
				if err != nil {
					t.Fatal(err)
				}
				b.addr = listener.Addr().String()
				b.serve(listener, handler)
			}
			a, err := b.try(soon(t), http.MethodGet, "/")
			if err != nil && tc.want > 0 {
				t.Fatal(err)
			}
			rec := <-results
			if rec.bytes != tc.want || int64(len(a.body)) > tc.want || tc.broken < 0 && int64(len(a.body)) != tc.want || !bytes.HasPrefix(data[tc.off:], a.body) {
				t.Errorf("%d recorded, %d right bytes came: %t; want %d", rec.bytes, len(a.body), bytes.HasPrefix(data[tc.off:], a.body), tc.want)
			}
			if got := body.sent.Load(); got != tc.sent {
				t.Errorf("it has sent %d bytes itself, want %d", got, tc.sent)
			}
			if errors.Is(rec.unread, syscall.EIO) != (tc.broken >= 0) || rec.failed != nil {
				t.Errorf("unread: %v, failed: %v", rec.unread, rec.failed)
			}
		})
	}
}

// TestSendingToNobody has the client leave while it is sent to.
func TestSendingToNobody(t *testing.T) {
	t.Parallel()
	b, dgst := storedLarge(t, func(*setup) {})
	conn := b.dial(blobPath(dgst))
	if _, err := io.ReadFull(conn, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	reset(conn.(*net.TCPConn))
	eventually(t, "the request is logged", func() bool { return len(b.log.requests(t)) > 1 })
	line := b.log.requests(t)[1]
	if line["level"] != "INFO" || line["bytes"].(float64) < 1<<20 {
		t.Errorf("the log has %v, want what was sent, and no fault of larder's", line)
	}
}

// slowSender sends one byte at a time, to nowhere.
type slowSender struct{ selfSender }

func (*slowSender) SendAt(int, int64, int64) (int, error) { return 1, nil }

// TestAllocationsOfSending has a body sent in many pieces: none of them makes garbage.
//
//nolint:paralleltest // it counts all of the process
func TestAllocationsOfSending(t *testing.T) {
	if os.Getenv("LARDER_TEST_ALLOCS") == "" {
		t.Skip("set LARDER_TEST_ALLOCS, as make allocs does")
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	send := func(pieces int64) float64 {
		return testing.AllocsPerRun(10, func() {
			s := sending{sender: &slowSender{}, left: pieces}
			if n, err := s.sendTo(c.(*net.TCPConn)); err != nil || n != pieces {
				t.Fatalf("sent %d, %v", n, err)
			}
		})
	}
	if one, many := send(1), send(1000); many > one {
		t.Errorf("1000 pieces: %.0f allocations, want the %.0f of one", many, one)
	}
}
