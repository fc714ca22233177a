package integration

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// calls are a process's system calls that read and write, and the bytes of the reads,
// of files and sockets alike (proc_pid_io(5)).
type calls struct{ reads, writes, bytesRead float64 }

func callsOf(pid int) (c calls, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return c, err
	}
	_, err = fmt.Sscanf(string(text), "rchar: %g\nwchar: %g\nsyscr: %g\nsyscw: %g\n", &c.bytesRead, new(float64), &c.reads, &c.writes)
	return c, err
}

// each is what one of n requests cost.
func (c calls) each(before calls, n int) calls {
	return calls{(c.reads - before.reads) / float64(n), (c.writes - before.writes) / float64(n), (c.bytesRead - before.bytesRead) / float64(n)}
}

// TestSystemCalls bounds what the daemon asks of the kernel for what it has stored, by
// counts, which other programs on the machine hardly change: a manifest costs the read
// of the request, one that finds no other, the writes of answer and log line, and now
// and then one that wakes a thread; nothing is read from the disk. A layer costs a few
// calls a MiB.
func TestSystemCalls(t *testing.T) {
	t.Parallel()
	const layer = 32 << 20
	b := newBench(t, "larder")
	upstream := remotestest.New(t)
	img := remotestest.Build(remotestest.ImageSpec{Seed: 102})
	upstream.PutImage("library/app", "1", img)
	blob := upstream.PutBlob("library/app", noise(102, layer))
	l := b.larder(dockerHub(upstream.URL()))
	tag, object := manifestURL(l.URL, "library/app", "1"), blobURL(l.URL, "library/app", blob.Digest)
	for _, url := range []string{tag, manifestURL(l.URL, "library/app", img.Root.Digest.String()), object} {
		eventually(t, url+" is a hit", func() bool { return get(t, url).cache() == "hit" })
	}
	for name, tc := range map[string]struct {
		method, url string
		requests    int
		size        int64
		most        calls // for each
	}{
		"HEAD by tag":   {http.MethodHead, tag, 2000, 0, calls{3.2, 4, 400}},
		"GET by digest": {http.MethodGet, manifestURL(l.URL, "library/app", img.Root.Digest.String()), 2000, img.Root.Size, calls{3.2, 4, 400}},
		"layer":         {http.MethodGet, object, 10, layer, calls{20, 300, 8192}},
	} {
		got, err := costOf(t.Context(), l, tc.method, tc.url, tc.requests, tc.size)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		t.Logf("%s: %+v", name, got)
		if got.reads > tc.most.reads || got.writes > tc.most.writes || got.bytesRead > tc.most.bytesRead {
			t.Errorf("%s: a request costs %+v, want at most %+v", name, got, tc.most)
		}
	}
	if a := get(t, object); a.digest != blob.Digest {
		t.Errorf("layer: got %v", a)
	}
}

// costOf asks n times over one connection.
func costOf(ctx context.Context, l *parts.Larder, method, url string, n int, size int64) (calls, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return calls{}, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", req.URL.Host)
	if err != nil {
		return calls{}, err
	}
	defer conn.Close()
	in := bufio.NewReaderSize(conn, 1<<20)
	before, err := callsOf(l.Process().PID())
	if err != nil {
		return calls{}, err
	}
	for range n {
		if err := req.Write(conn); err != nil {
			return calls{}, err
		}
		resp, err := http.ReadResponse(in, req)
		if err != nil {
			return calls{}, err
		}
		got, err := io.Copy(io.Discard, resp.Body)
		if err != nil || got != size || resp.StatusCode != http.StatusOK || !strings.Contains(resp.Header.Get("X-Larder-Cache"), "hit") {
			return calls{}, fmt.Errorf("%s, %d bytes, %q, %w", resp.Status, got, resp.Header.Get("X-Larder-Cache"), err)
		}
	}
	after, err := callsOf(l.Process().PID())
	return after.each(before, n), err
}
