package mirror

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
)

// wire makes a request, calls begun when the header is there, and returns all
// that came over the connection.
func (b *bench) wire(path string, begun func()) (header, body []byte) {
	b.t.Helper()
	conn := b.dial(path)
	defer conn.Close()
	r := bufio.NewReader(conn)
	for !bytes.HasSuffix(header, []byte("\r\n\r\n")) {
		line, err := r.ReadBytes('\n')
		if err != nil {
			b.t.Fatalf("header %q: %v", header, err)
		}
		header = append(header, line...)
	}
	begun()
	body, _ = io.ReadAll(r) // a reset is one way to be cut off
	return header, body
}

func (b *bench) dial(path string) net.Conn {
	b.t.Helper()
	ctx := soon(b.t)
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp4", b.addr)
	if err != nil {
		b.t.Fatal(err)
	}
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		b.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, b.addr); err != nil {
		b.t.Fatal(err)
	}
	return conn
}

// A body that is not what its digest says is cut off: neither all of its
// length nor the last chunk is ever sent.
func TestAbortOnBadBytes(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	chunked := func(f remotestest.FaultFunc) remotestest.FaultFunc { // no Content-Length, and a fault
		return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			remotestest.ShortChunked(size)(w, r, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(w, r, next) }))
		}
	}
	for name, f := range map[string]remotestest.FaultFunc{
		"first byte":         remotestest.WrongBytes(0),
		"last byte":          remotestest.WrongBytes(size - 1),
		"last byte, chunked": chunked(remotestest.WrongBytes(size - 1)),
		"short":              remotestest.ShortBody(size - 1),
		"short, chunked":     remotestest.ShortChunked(size - 1),
		"long length":        remotestest.WrongContentLength(10),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			whole := noise(4, size)
			desc := b.up.PutBlob("library/app", whole)
			release := make(chan struct{})
			remove := b.up.Fault(remotestest.Blobs(), func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				f(w, r, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					remotestest.Gate(3<<20, release)(w, r, next)
				}))
			})
			header, body := b.wire(blobPath(desc.Digest), func() { close(release) })
			if !bytes.HasPrefix(header, []byte("HTTP/1.1 200 ")) {
				t.Fatalf("got %.200s, want a good status: the body has begun", header)
			}
			if isChunked := bytes.Contains(header, []byte("Transfer-Encoding: chunked")); isChunked {
				if bytes.HasSuffix(body, []byte("0\r\n\r\n")) {
					t.Error("the last chunk was sent: the body ended cleanly")
				}
			} else {
				var length int
				for line := range strings.SplitSeq(string(header), "\r\n") {
					_, _ = fmt.Sscanf(line, "Content-Length: %d", &length) // other lines do not match
				}
				if length == 0 || len(body) >= length {
					t.Errorf("%d of %d bytes were sent: the body ended cleanly", len(body), length)
				}
			}
			// Upstream may have been wrong about the length only: then the
			// bytes are good, though this client was promised more.
			if has, err := b.store.Has(desc.Digest); has && name != "long length" || err != nil {
				t.Errorf("it is published: %t, %v", has, err)
			}
			// After the fault the next pull gets it.
			remove()
			eventually(t, "the next pull succeeds", func() bool {
				a := b.ask(http.MethodGet, blobPath(desc.Digest))
				return a.err == nil && digest.FromBytes(a.body) == desc.Digest
			})
		})
	}
}

// A blob that is held back whole until it is verified is refused properly.
func TestSmallBadBlobIsRefused(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]remotestest.FaultFunc{
		"wrong": remotestest.WrongBytes(1), "short": remotestest.ShortBody(1), "chunked": remotestest.ShortChunked(1),
	} {
		b := newBench(t)
		desc := b.up.PutBlob("library/app", []byte("small"))
		b.up.Fault(remotestest.Blobs(), f)
		a := b.ask(http.MethodGet, blobPath(desc.Digest))
		if a.status != http.StatusBadGateway || a.err != nil || a.entry().Code != "UNAVAILABLE" {
			t.Errorf("%s: got %d %+v, %v, want 502", name, a.status, a.entry(), a.err)
		}
	}
}

// Somebody shortens a stored file while it is served: too late for a refusal,
// but not for a cut.
func TestAbortOnShrunkFile(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const size = 24 << 20 // more than any socket holds
	desc := b.up.PutBlob("library/app", make([]byte, size))
	b.get(blobPath(desc.Digest))
	b.settle(desc.Digest)
	conn := b.dial(blobPath(desc.Digest))
	defer conn.Close()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	path := filepath.Join(b.root, "blobs", "sha256", desc.Digest.Encoded())
	if err := os.Truncate(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil || n >= size {
		t.Errorf("got %d of %d bytes with a clean end", n, size)
	}
	eventually(t, "the log says so", func() bool { return strings.Contains(b.log.String(), "body ended at") })
	if a := b.get(blobPath(desc.Digest)); digest.FromBytes(a.body) != desc.Digest || a.header.Get(CacheHeader) != "miss" {
		t.Errorf("the next pull: %d bytes, %s, want it fetched again", len(a.body), a.header.Get(CacheHeader))
	}
}

// Upstream does not tell the size: no length, no ranges, and a clean end only
// after the digest matched.
func TestUnknownSize(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	whole := noise(5, 3<<20)
	desc := b.up.PutBlob("library/app", whole)
	release := make(chan struct{})
	b.up.Fault(remotestest.Blobs(), func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		remotestest.ShortChunked(1<<40)(w, r, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			remotestest.Gate(2<<20, release)(w, r, next)
		}))
	})
	head := b.ask(http.MethodHead, blobPath(desc.Digest))
	if head.status != 200 || head.length != -1 {
		t.Errorf("HEAD: %d, length %d, want 200 and none", head.status, head.length)
	}
	conn := b.dial(blobPath(desc.Digest))
	defer conn.Close()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.ContentLength != -1 || resp.Header.Get("Accept-Ranges") != "" || resp.Header.Get("Docker-Content-Digest") != desc.Digest.String() {
		t.Errorf("length %d, header %v", resp.ContentLength, resp.Header)
	}
	close(release)
	if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, whole) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
}

// The client leaves half-way: the fill goes on, and the log does not blame
// anybody.
func TestFillOutlivesClient(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	whole := noise(6, 4<<20)
	desc := b.up.PutBlob("library/app", whole)
	release := make(chan struct{})
	b.up.Fault(remotestest.Blobs(), remotestest.Gate(3<<20, release))
	ctx, leave := context.WithCancel(soon(t))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.addr+blobPath(desc.Digest), nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, resp.Body, 1<<20); err != nil {
		t.Fatal(err)
	}
	leave()
	resp.Body.Close()
	eventually(t, "the request is over", func() bool { return len(b.log.requests(t)) == 1 })
	if line := b.log.requests(t)[0]; line["level"] != "INFO" {
		t.Errorf("log line is %v, want no warning", line)
	}
	close(release)
	eventually(t, "the fill ends", func() bool {
		has, err := b.store.Has(desc.Digest)
		return has && err == nil
	})
	if a := b.get(blobPath(desc.Digest)); !bytes.Equal(a.body, whole) {
		t.Errorf("got %d bytes", len(a.body))
	}
	if n := b.up.Count(http.MethodGet, "/blobs/"); n != 1 {
		t.Errorf("upstream saw %d GETs, want 1", n)
	}
}

// TestUnknownSizeArrivesLate: an upstream that answers at once, does not tell
// the size, and then sends little. Nothing could be answered in time but a
// refusal; the fill goes on, and serves the next client.
func TestUnknownSizeArrivesLate(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(s *setup) { s.wait = 2 * time.Second })
	data := bytes.Repeat([]byte("late "), 60_000)
	desc := b.up.PutBlob("library/app", data)
	release := make(chan struct{})
	b.up.Fault(remotestest.Blobs(), func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		gated := remotestest.Gate(100_000, release)
		gated(w, r, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			remotestest.ShortChunked(int64(len(data)))(w, r, next)
		}))
	})
	if a := b.ask(http.MethodGet, blobPath(desc.Digest)); a.status != http.StatusServiceUnavailable {
		t.Errorf("status %d, want 503", a.status)
	}
	close(release)
	b.settle(desc.Digest)
	if a := b.get(blobPath(desc.Digest)); !bytes.Equal(a.body, data) {
		t.Errorf("afterwards: %d bytes, want %d", len(a.body), len(data))
	}
}
