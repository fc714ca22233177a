package mirror

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
)

// spoken sends text on a connection of its own, and returns the status of the
// answer and all that came. Status 0: the connection ended without one.
func (b *bench) spoken(text string) (status int, answer string) {
	b.t.Helper()
	conn, err := (&net.Dialer{}).DialContext(soon(b.t), "tcp4", b.addr)
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		b.t.Fatal(err)
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.WriteString(conn, text) // a server that has seen enough hangs up
	}()
	r := bufio.NewReader(conn)
	if resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodGet}); err == nil {
		status = resp.StatusCode
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16)) // a reset is one way to end
		answer = fmt.Sprint(resp.Header, string(body))
		resp.Body.Close()
	}
	conn.Close()
	<-sent
	return status, answer
}

// Requests of other protocols, and in other forms, do nothing.
func TestOtherProtocols(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	img := remotestest.Build(remotestest.ImageSpec{})
	b.up.PutImage("library/app", "1", img)
	before := b.files()
	host := "\r\nHost: " + b.addr + "\r\nConnection: close\r\n"
	for name, c := range map[string]struct {
		text string
		want []int
	}{
		"CONNECT":               {"CONNECT registry.example:443 HTTP/1.1" + host + "\r\n", []int{405}},
		"CONNECT to the store":  {"CONNECT /v2/ HTTP/1.1" + host + "\r\n", []int{400, 405}},
		"h2c by prior":          {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", []int{405, 505}},
		"h2c by upgrade":        {"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", []int{404}},
		"websocket":             {"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", []int{404}},
		"absolute, of others":   {"GET http://169.254.169.254/latest/meta-data HTTP/1.1" + host + "\r\n", []int{404}},
		"absolute, upload":      {"POST http://" + b.addr + "/v2/library/app/blobs/uploads/ HTTP/1.1" + host + "Content-Length: 0\r\n\r\n", []int{405}},
		"asterisk":              {"OPTIONS * HTTP/1.1" + host + "\r\n", []int{200, 405}},
		"HTTP/1.0 without host": {"GET /nothing HTTP/1.0\r\n\r\n", []int{404}},
		"two lengths":           {"POST /v2/ HTTP/1.1" + host + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", []int{400}},
		"length and chunks":     {"POST /v2/ HTTP/1.1" + host + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", []int{400, 405}},
		"no HTTP":               {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", []int{400}},
	} {
		status, answer := b.spoken(c.text)
		if !slices.Contains(c.want, status) || strings.Contains(answer, "HTTP2") {
			t.Errorf("%s: got %d %.200s, want %v", name, status, answer, c.want)
		}
	}
	// An absolute URI that is the mirror's own is as good as a path.
	if status, _ := b.spoken("GET http://" + b.addr + "/v2/ HTTP/1.1" + host + "\r\n"); status != http.StatusOK {
		t.Errorf("absolute URI of the mirror: got %d", status)
	}
	if n := len(b.up.Requests()); n != 0 {
		t.Errorf("upstream saw %d requests", n)
	}
	if after := b.files(); !slices.Equal(before, after) {
		t.Errorf("the store had %v, has %v", before, after)
	}
}

// Headers and numbers as large as they come cost nothing.
//
//nolint:paralleltest // it measures memory
func TestHugeRequests(t *testing.T) {
	b := newBench(t)
	b.up.PutImage("library/app", "1", remotestest.Build(remotestest.ImageSpec{}))
	before := heap()
	lines := func(n int) string {
		var s bytes.Buffer
		for i := range n {
			fmt.Fprintf(&s, "X-Header-%d: v\r\n", i)
		}
		return s.String()
	}
	for name, c := range map[string]struct {
		text string
		want int
	}{
		"header of 1 MB": {"GET /v2/ HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", 431},
		"10,000 headers": {"GET /v2/ HTTP/1.1\r\nHost: x\r\n" + lines(10_000) + "\r\n", 431},
		"URL of 1 MB":    {"GET /v2/" + strings.Repeat("x", 1<<20) + " HTTP/1.1\r\nHost: x\r\n\r\n", 431},
		"n=1e18":         {"GET /v2/library/app/tags/list?ns=docker.io&n=1000000000000000000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400},
		"n=1e30":         {"GET /v2/library/app/tags/list?ns=docker.io&n=1000000000000000000000000000000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400},
		"n=-1":           {"GET /v2/library/app/tags/list?ns=docker.io&n=-1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400},
	} {
		// Some more than once, so that what is kept of each would show.
		for range 20 {
			// Who has sent much more than was read is reset, and may see that first.
			if status, answer := b.spoken(c.text); status != c.want && (status != 0 || c.want != 431) {
				t.Errorf("%s: got %d %.200s, want %d", name, status, answer, c.want)
				break
			}
		}
	}
	after := heap()
	t.Logf("120 hostile requests: the heap was %d KiB and is %d KiB", before>>10, after>>10)
	if after > before+20<<20 {
		t.Errorf("the heap was %d KiB and is %d KiB", before>>10, after>>10)
	}
	// net/http gives who sent too much half a second to read why.
	eventually(t, "the server has let all go", func() bool {
		buf := make([]byte, 1<<20)
		return !bytes.Contains(buf[:runtime.Stack(buf, true)], []byte("closeWriteAndWait"))
	})
}

// heap is what is in use behind a collection.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// A blob may have a digest of any algorithm that is registered; the bytes are
// checked by it.
func TestSHA512(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	data := []byte("hashed by another algorithm")
	dgst := digest.SHA512.FromBytes(data)
	b.up.Fault(remotestest.Digest(dgst), remotestest.Status(http.StatusOK, nil, string(data)))
	for _, outcome := range []string{"miss", "hit"} {
		a := b.get(blobPath(dgst))
		if !bytes.Equal(a.body, data) || a.header.Get(CacheHeader) != outcome || a.header.Get("Docker-Content-Digest") != dgst.String() {
			t.Errorf("got %q, %v, want a %s", a.body, a.header, outcome)
		}
		b.settle(dgst)
	}
	other := digest.SHA512.FromString("other")
	b.up.Fault(remotestest.Digest(other), remotestest.Status(http.StatusOK, nil, string(data)))
	if a := b.ask(http.MethodGet, blobPath(other)); a.status != http.StatusBadGateway {
		t.Errorf("wrong bytes: got %d, want 502", a.status)
	}
}

// The index knows a blob whose file is gone, or has lost its bytes: it is fetched
// again, and no empty body is ever sent.
func TestVanishedFiles(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	img := remotestest.Build(remotestest.ImageSpec{})
	b.up.PutImage("library/app", "1", img)
	layer := img.Blobs[1]
	empty := 0
	for name, spoil := range map[string]func(string) error{
		"gone": os.Remove, "emptied": func(path string) error { return os.Truncate(path, 0) },
	} {
		for object, want := range map[string][]byte{
			blobPath(layer.Descriptor.Digest): layer.Data, manifestPath("1"): img.Manifests[0].Data, manifestPath(img.Root.Digest.String()): img.Manifests[0].Data,
		} {
			dgst := digest.FromBytes(want)
			b.get(object)
			b.settle(dgst)
			if err := spoil(filepath.Join(b.root, "blobs", "sha256", dgst.Encoded())); err != nil {
				t.Fatal(err)
			}
			before := b.up.Count(http.MethodGet, dgst.Encoded())
			a := b.get(object)
			if len(a.body) == 0 {
				empty++
			}
			// Of a fill that is over before it is read, it is a hit.
			if asked := b.up.Count(http.MethodGet, dgst.Encoded()) - before; !bytes.Equal(a.body, want) || asked != 1 {
				t.Errorf("%s, %s: got %d bytes, fetched %d times, want it fetched again", object, name, len(a.body), asked)
			}
			b.settle(dgst)
		}
	}
	t.Logf("%d empty bodies with a good status", empty)
}
