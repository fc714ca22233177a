package load

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is a limit that no test comes near.
const patience = time.Minute

func TestMain(m *testing.M) {
	if code, ok := Child(); ok {
		os.Exit(code)
	}
	goleak.VerifyTestMain(m)
}

// sizes serves n bytes at /n.
func sizes(t *testing.T) (address string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var n int
		if _, err := fmt.Sscanf(r.URL.Path, "/%d", &n); err != nil || r.Header.Get("Accept") != "a/b" {
			http.Error(w, "what?", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(n))
		_, _ = w.Write(make([]byte, n))
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func TestBodies(t *testing.T) {
	t.Parallel()
	address := sizes(t)
	for _, size := range []int64{0, 1, bufferSize - 1, bufferSize, 3*bufferSize + 7} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			r, err := Do(Plan{Address: address, Method: method, Path: fmt.Sprintf("/%d", size), Accept: "a/b", Size: size, Conns: 5, Each: 4, Limit: patience})
			want := 20 * size
			if method == http.MethodHead {
				want = 0
			}
			if err != nil || r.Requests != 20 || r.Bytes != want || r.Max < r.P99 || r.P99 < r.Median || r.Took < r.Max {
				t.Errorf("%s of %d bytes: %+v, %v, want 20 requests and %d bytes", method, size, r, err, want)
			}
		}
	}
}

// All paths of a plan are asked for as often as each other.
func TestTurns(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	asked := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked[r.URL.String()]++
	}))
	t.Cleanup(server.Close)
	plan := Plan{Address: strings.TrimPrefix(server.URL, "http://"), Method: http.MethodGet, Path: "/tag*?ns=x", Turns: 6, Conns: 4, Each: 12, Limit: patience}
	if r, err := Do(plan); err != nil || r.Requests != 48 {
		t.Fatalf("got %+v, %v, want 48 requests", r, err)
	}
	mu.Lock()
	defer mu.Unlock()
	for i := range plan.Turns {
		if path := fmt.Sprintf("/tag%d?ns=x", i); asked[path] != 8 {
			t.Errorf("%s was asked for %d times, want 8: %v", path, asked[path], asked)
		}
	}
	for _, path := range []string{"/", "/*/*"} {
		if _, err := Do(Plan{Address: plan.Address, Method: http.MethodGet, Path: path, Turns: 2, Conns: 1, Each: 1, Limit: patience}); err == nil {
			t.Errorf("turns of %s: no error", path)
		}
	}
}

func TestForSomeTime(t *testing.T) {
	t.Parallel()
	r, err := Do(Plan{Address: sizes(t), Method: http.MethodGet, Path: "/100", Accept: "a/b", Size: 100, Conns: 3, For: time.Nanosecond, Limit: patience})
	if err != nil || r.Requests != 3 || r.Bytes != 300 {
		t.Errorf("no time at all: %+v, %v, want one request a connection", r, err)
	}
}

func TestProcess(t *testing.T) {
	t.Parallel()
	address := sizes(t)
	r, err := Start(t.Context(), Plan{Address: address, Method: http.MethodGet, Path: "/1000", Accept: "a/b", Size: 1000, Conns: 2, Each: 3, Limit: patience})
	if err != nil || r.Requests != 6 || r.Bytes != 6000 {
		t.Errorf("got %+v, %v, want 6 requests and 6000 bytes", r, err)
	}
	if _, err := Start(t.Context(), Plan{Address: address, Method: http.MethodGet, Path: "/x", Conns: 1, Each: 1, Limit: patience}); err == nil || !strings.Contains(err.Error(), "want 200") {
		t.Errorf("an answer of 400: got %v, want what the process said of it", err)
	}
}

// scripted is a server that sends each of pieces by itself, for each request, once
// the piece before was read or lies in a buffer of the kernel's.
func scripted(t *testing.T, pieces ...string) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() {
		_ = ln.Close()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				r := bufio.NewReader(conn)
				for {
					if _, err := http.ReadRequest(r); err != nil {
						return
					}
					for _, piece := range pieces {
						if _, err := conn.Write([]byte(piece)); err != nil {
							return
						}
					}
				}
			})
		}
	})
	return ln.Addr().String()
}

func TestAnswersInPieces(t *testing.T) {
	t.Parallel()
	const header, body = "HTTP/1.1 200 OK\r\nX-First: 1\r\ncontent-length:  26\r\n\r\n", "abcdefghijklmnopqrstuvwxyz"
	for name, pieces := range map[string][]string{
		"as one":           {header + body},
		"byte by byte":     strings.Split(header+body, ""),
		"header, body":     {header, body},
		"torn at the end":  {header[:len(header)-1], header[len(header)-1:] + body},
		"torn in the body": {header + body[:1], body[1:]},
	} {
		r, err := Do(Plan{Address: scripted(t, pieces...), Method: http.MethodGet, Path: "/", Size: 26, Conns: 2, Each: 3, Limit: patience})
		if err != nil || r.Requests != 6 || r.Bytes != 6*26 {
			t.Errorf("%s: %+v, %v, want 6 requests of 26 bytes", name, r, err)
		}
	}
}

func TestWrongAnswers(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ answer, want string }{
		"status":    {"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc", "want 200"},
		"length":    {"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd", "want 3 bytes"},
		"no length": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "without Content-Length"},
		"too much":  {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd", "1 bytes more"},
		"no end":    {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxHeader+bufferSize), "header of more"},
	} {
		_, err := Do(Plan{Address: scripted(t, tc.answer), Method: http.MethodGet, Path: "/", Size: 3, Conns: 1, Each: 2, Limit: patience})
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, tc.want)
		}
	}
	if _, err := Do(Plan{Address: "localhost:80", Method: http.MethodGet, Path: "/", Conns: 1, Each: 1, Limit: patience}); err == nil {
		t.Error("a name in place of an address: no error")
	}
}

func TestSilence(t *testing.T) {
	t.Parallel()
	_, err := Do(Plan{Address: scripted(t), Method: http.MethodGet, Path: "/", Conns: 2, Each: 1, Limit: time.Millisecond})
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, want that the limit was over", err)
	}
}

func TestBusyOf(t *testing.T) {
	t.Parallel()
	got, err := busyOf("cpu  1 2 4 8 16 32 64 128 256 512\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
	if err != nil || got != 103*tick {
		t.Errorf("got %v, %v, want %v", got, err, 103*tick)
	}
	for _, text := range []string{"", "cpu 1 2", "cpu a b c d e f g h i j"} {
		if _, err := busyOf(text); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
	if _, err := Busy(); err != nil {
		t.Error(err)
	}
}
