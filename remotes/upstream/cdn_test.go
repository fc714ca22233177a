package upstream

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
)

// TestExpiredLink has a registry redirect to links that are good for one request,
// while the body is cut again and again: each time a new link is asked for.
func TestExpiredLink(t *testing.T) {
	t.Parallel()
	const pulls = 20
	reg, img := withImage(t)
	cdn, _ := withImage(t)
	want := layer(img)
	var mu sync.Mutex
	links, used, expired := 0, map[string]bool{}, 0
	reg.Fault(remotestest.Blobs(), func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		mu.Lock()
		links++
		link := fmt.Sprintf("%s%s?sig=%d", cdn.URL(), r.URL.Path, links)
		mu.Unlock()
		remotestest.RedirectTo(link)(w, r, next)
	})
	cdn.Fault(remotestest.Blobs(), func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		sig := r.URL.Query().Get("sig")
		mu.Lock()
		again := used[sig]
		used[sig] = true
		if again {
			expired++
		}
		mu.Unlock()
		switch {
		case again:
			remotestest.Error(http.StatusForbidden, "AccessDenied", "request has expired")(w, r, next)
		case r.Header.Get("Range") == "":
			remotestest.CutBody(100_000)(w, r, next)
		default:
			next.ServeHTTP(w, r)
		}
	})
	c := named(t, reg.URL(), cdn.URL()).Client(endpoint(t, reg.URL()))
	good := 0
	for range pulls {
		data, _, err := readBlob(t, c, "team/app", want, 0)
		if err == nil && bytes.Equal(data, want.Data) {
			good++
		} else {
			t.Errorf("%d bytes, %v", len(data), err)
		}
	}
	t.Logf("%d of %d pulls whole; %d links for them, %d expired ones used", good, pulls, links, expired)
	if links != 2*pulls {
		t.Errorf("%d links were asked for, want two a pull", links)
	}
}

// spoken serves one canned answer to whoever connects.
func spoken(t *testing.T, text string) string {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() { l.Close(); all.Wait() })
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					_, _ = io.WriteString(conn, text) // the client may have enough
				}
			})
		}
	})
	return "http://" + l.Addr().String()
}

// TestOddContentLengths has lengths that are doubled, huge, negative or no number,
// and more bytes than announced. No more is read than was announced, nothing is
// allocated by it, and what contradicts itself is an error.
func TestOddContentLengths(t *testing.T) {
	t.Parallel()
	const body = "twelve bytes"
	for name, tc := range map[string]struct {
		head string
		want string // "": an error
	}{
		"right":            {"Content-Length: 12\r\n", body},
		"twice the same":   {"Content-Length: 12\r\nContent-Length: 12\r\n", body},
		"two":              {"Content-Length: 12\r\nContent-Length: 5\r\n", ""},
		"list":             {"Content-Length: 12, 5\r\n", ""},
		"huge":             {"Content-Length: 4611686018427387904\r\n", ""},
		"too large":        {"Content-Length: 9223372036854775808\r\n", ""},
		"negative":         {"Content-Length: -1\r\n", ""},
		"no number":        {"Content-Length: many\r\n", ""},
		"extra bytes":      {"Content-Length: 6\r\n", body[:6]},
		"none":             {"", body},
		"and chunks":       {"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", ""},
		"chunk cut short":  {"Transfer-Encoding: chunked\r\n\r\n20\r\n", ""},
		"chunk of no size": {"Transfer-Encoding: chunked\r\n\r\nzz\r\n", ""},
	} {
		head := "HTTP/1.1 200 OK\r\nConnection: close\r\n" + tc.head
		if !strings.HasSuffix(head, "\r\n\r\n") && !strings.Contains(tc.head, "\r\n\r\n") {
			head += "\r\n"
		}
		url := spoken(t, head+body)
		blob, _, err := named(t, url).Client(endpoint(t, url)).Blob(soon(t), "team/app", digest.FromString(body), 0)
		var got []byte
		if err == nil {
			got, err = io.ReadAll(blob)
			blob.Close()
		}
		if tc.want != "" && (err != nil || string(got) != tc.want) || tc.want == "" && !errdefs.IsUnavailable(err) && !errdefs.IsDataLoss(err) {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, tc.want)
		}
	}
}
