package mirror

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes/remotestest"
)

// What is answered at the door is what ServeHTTP answers, and so is the line in the
// log; and what is not answered there is answered by ServeHTTP.
func TestAnswerPlain(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	b := newBench(t, func(s *setup) { s.secret = secret })
	img := remotestest.Build(remotestest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}})
	b.up.PutImage("library/app", "1", img)
	child := img.Manifests[0].Descriptor.Digest.String()
	own := SecretHeader + ": " + secret
	for _, path := range []string{manifestPath("1"), manifestPath(child), "/v2/docker-hub/library/app/manifests/1"} {
		b.get(path, SecretHeader, secret) // a miss
		b.get(path, SecretHeader, secret)
		eventually(t, path+" is at hand", func() bool {
			_, ok := b.server.answerPlain(t.Context(), nil, plainOf(t, get(path, own)))
			return ok
		})
	}
	for name, c := range map[string]struct {
		text  string
		plain bool // answered at the door
	}{
		"HEAD by tag":     {head(manifestPath("1"), own), true},
		"GET by tag":      {get(manifestPath("1"), own), true},
		"GET by digest":   {get(manifestPath(child), own), true},
		"by rule":         {get("/v2/docker-hub/library/app/manifests/1", own), true},
		"like containerd": {get(manifestPath("1"), own, "User-Agent: containerd/v2.4.2", "Accept: a, */*", "Accept-Encoding: gzip"), true},
		"pull secret":     {get(manifestPath("1"), own, "Authorization: Basic bm9ib2R5Om5vdGhpbmc="), true},
		"wrong secret":    {get(manifestPath("1"), SecretHeader+": x"), false},
		"no secret":       {get(manifestPath("1")), false},
		"not there":       {get(manifestPath("2"), own), false},
		"bad name":        {get("/v2/library/App/manifests/1?ns=docker.io", own), false},
		"blob":            {get(blobPath(img.Blobs[0].Descriptor.Digest), own), false},
		"ping":            {get("/v2/", own), false},
		"range":           {get(manifestPath("1"), own, "Range: bytes=0-3"), false},
		"condition":       {get(manifestPath("1"), own, "If-None-Match: *"), false},
		"loop":            {get(manifestPath("1"), own, "Via: 1.1 "+b.server.options.ID), false},
	} {
		p, _, ok := parsePlain([]byte(c.text))
		var atDoor []byte
		if ok {
			atDoor, ok = b.server.answerPlain(t.Context(), nil, p)
		}
		if ok != c.plain {
			t.Errorf("%s: answered at the door is %t, want %t", name, ok, c.plain)
		}
		if !ok {
			continue
		}
		lines := b.log.requests(t)
		want := b.byNetHTTP(c.text)
		got := readAnswer(t, name, string(atDoor), p.head)
		if got.status != want.status || fmt.Sprint(got.header) != fmt.Sprint(want.header) || string(got.body) != string(want.body) || got.length != want.length {
			t.Errorf("%s: at the door %+v\nnet/http %+v", name, got, want)
		}
		eventually(t, "the line is written", func() bool { return len(b.log.requests(t)) > len(lines) })
		here, there := lines[len(lines)-1], b.log.requests(t)[len(lines)]
		for _, line := range []map[string]any{here, there} {
			delete(line, "dur")
			delete(line, "time")
		}
		if fmt.Sprint(here) != fmt.Sprint(there) {
			t.Errorf("%s: the log has %v\nand of net/http %v", name, here, there)
		}
	}
}

func plainOf(t *testing.T, text string) plain {
	t.Helper()
	p, n, ok := parsePlain([]byte(text))
	if !ok || n != len(text) {
		t.Fatalf("%q is not plain", text)
	}
	return p
}

// byNetHTTP has the server's ServeHTTP answer, which no door is before.
func (b *bench) byNetHTTP(text string) answer {
	b.t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(b.server.ServeHTTP))
	defer srv.Close()
	c, err := (&net.Dialer{}).DialContext(soon(b.t), "tcp4", srv.Listener.Addr().String())
	if err != nil {
		b.t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		b.t.Fatal(err)
	}
	return parseAnswer(b.t, text, bufio.NewReader(c), strings.HasPrefix(text, "HEAD"))
}

func readAnswer(t *testing.T, name, text string, head bool) answer {
	t.Helper()
	r := bufio.NewReader(strings.NewReader(text))
	a := parseAnswer(t, name, r, head)
	if n := r.Buffered(); n > 0 {
		t.Errorf("%s: %d bytes behind the answer", name, n)
	}
	return a
}

func parseAnswer(t *testing.T, name string, r *bufio.Reader, head bool) answer {
	t.Helper()
	method := map[bool]string{true: http.MethodHead, false: http.MethodGet}[head]
	resp, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, header: resp.Header, length: resp.ContentLength}
	if a.body, err = io.ReadAll(resp.Body); err != nil || resp.Close {
		t.Errorf("%s: body %v, closes %t", name, err, resp.Close)
	}
	if date, err := http.ParseTime(a.header.Get("Date")); err != nil || time.Since(date).Abs() > time.Minute {
		t.Errorf("%s: date %q, %v", name, a.header.Get("Date"), err)
	}
	a.header.Del("Date")
	return a
}

// What a tag says of its manifest's size may be wrong. No answer has more or fewer bytes
// than it says: what comes next would be read amid it.
func TestWrongSizeIsNotAnsweredAtTheDoor(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	img := remotestest.Build(remotestest.ImageSpec{})
	b.up.PutImage("library/app", "1", img)
	b.get(manifestPath("1"))
	for off, want := range map[int64]bool{0: true, 1: false, -1: false} {
		root, now := img.Root, time.Now()
		root.Size += off
		if err := b.store.PutTag(cache.Tag{Name: "docker.io/library/app:1", Target: root, Created: now, Moved: now, Validated: now}); err != nil {
			t.Fatal(err)
		}
		if _, ok := b.server.answerPlain(t.Context(), nil, plainOf(t, get(manifestPath("1")))); ok != want {
			t.Errorf("a size that is off by %d: answered at the door is %t, want %t", off, ok, want)
		}
		if a, err := b.try(soon(t), http.MethodGet, manifestPath("1")); (err == nil && a.err == nil) != want {
			t.Errorf("a size that is off by %d: net/http gives %d with %d of %d bytes, %v, %v", off, a.status, len(a.body), a.length, err, a.err)
		}
	}
}
