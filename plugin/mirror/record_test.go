package mirror

import (
	"net/http"
	"strings"
	"testing"

	"github.com/larder-project/larder/remotes/remotestest"
)

// One line a request, with what is needed to understand it, and no secrets.
func TestLogLine(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	b := newBench(t, func(s *setup) { s.secret = secret })
	img := remotestest.Build(remotestest.ImageSpec{Seed: 1})
	b.up.PutImage("library/app", "1", img)
	layer := img.Blobs[1].Descriptor
	auth := []string{SecretHeader, secret, "Authorization", "Basic " + secret, "Cookie", secret}
	for _, c := range []struct {
		method, path string
		header       []string
		want         map[string]any
	}{
		{"HEAD", manifestPath("1"), auth, map[string]any{"level": "INFO", "kind": "manifests", "ns": "docker.io", "repository": "library/app",
			"object": "1", "status": 200.0, "outcome": "miss", "bytes": 0.0}},
		{"GET", manifestPath("1"), auth, map[string]any{"status": 200.0, "outcome": "hit", "bytes": float64(img.Root.Size)}},
		{"GET", blobPath(layer.Digest), append([]string{"Range", "bytes=0-9"}, auth...), map[string]any{"kind": "blobs", "object": layer.Digest.String(),
			"status": 206.0, "outcome": "miss", "bytes": 10.0, "range": "bytes=0-9"}},
		{"GET", manifestPath("2"), auth, map[string]any{"level": "INFO", "status": 404.0, "outcome": ""}},
		{"GET", "/v2/a/manifests/1?ns=me:" + secret + "@docker.io", auth, map[string]any{"status": 400.0, "ns": "…@docker.io"}},
		{"GET", "/v2/a/manifests/1?ns=" + strings.Repeat("n", 9000), auth, map[string]any{"status": 400.0, "ns": strings.Repeat("n", 300) + "…"}},
		{"GET", manifestPath("1"), []string{SecretHeader, secret + "?"}, map[string]any{"status": 403.0}},
		{"GET", "/v2/", auth, map[string]any{"kind": "ping", "status": 200.0}},
		{"PUT", "/v2/", auth, map[string]any{"method": "PUT", "status": 405.0}},
	} {
		before := len(b.log.requests(t))
		b.ask(c.method, c.path, c.header...)
		eventually(t, "the line is written", func() bool { return len(b.log.requests(t)) > before })
		lines := b.log.requests(t)[before:]
		if len(lines) != 1 {
			t.Errorf("%s %.60s: %d lines, want 1", c.method, c.path, len(lines))
		}
		for key, want := range c.want {
			if got := lines[0][key]; got != want {
				t.Errorf("%s %.60s: %s is %v, want %v", c.method, c.path, key, got, want)
			}
		}
		for _, key := range []string{"method", "status", "dur", "bytes"} {
			if _, ok := lines[0][key]; !ok {
				t.Errorf("%s %.60s: line has no %s: %v", c.method, c.path, key, lines[0])
			}
		}
	}
	if log := b.log.String(); strings.Contains(log, secret) {
		t.Errorf("the log has a secret:\n%s", log)
	}
}

// What larder could not do is a warning: upstream down, and a body cut off.
func TestLogLevel(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	desc := b.up.PutBlob("library/app", noise(7, 3<<20))
	b.up.Fault(remotestest.Blobs(), remotestest.WrongBytes(1))
	b.ask(http.MethodGet, blobPath(desc.Digest))
	b.up.Stop()
	b.ask(http.MethodGet, manifestPath("1"))
	eventually(t, "the lines are written", func() bool { return len(b.log.requests(t)) == 2 })
	for _, line := range b.log.requests(t) {
		if line["level"] != "WARN" || line["err"] == nil {
			t.Errorf("line %v, want a warning with its reason", line)
		}
	}
}
