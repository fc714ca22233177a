package remotestest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const absent = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestServesContent(t *testing.T) {
	t.Parallel()
	r := New(t)
	blob := r.PutBlob("a/b", []byte("0123456789"))
	mf := r.PutManifest("a/b", "v1", ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2}`))
	tests := []struct {
		name, path string
		status     int
		mediaType  string
		dgst       digest.Digest
		body       string // the OCI error code where the status is an error
	}{
		{"base", "/v2/", 200, "application/json", "", "{}"},
		{"blob", "/v2/a/b/blobs/" + blob.Digest.String(), 200, "application/octet-stream", blob.Digest, "0123456789"},
		{"manifest by tag", "/v2/a/b/manifests/v1", 200, mf.MediaType, mf.Digest, `{"schemaVersion":2}`},
		{"manifest by digest", "/v2/a/b/manifests/" + mf.Digest.String(), 200, mf.MediaType, mf.Digest, `{"schemaVersion":2}`},
		{"manifest is no blob", "/v2/a/b/blobs/" + mf.Digest.String(), 404, "", "", "BLOB_UNKNOWN"},
		{"no tag", "/v2/a/b/manifests/v2", 404, "", "", "MANIFEST_UNKNOWN"},
		{"no manifest", "/v2/a/b/manifests/" + absent, 404, "", "", "MANIFEST_UNKNOWN"},
		{"no blob", "/v2/a/b/blobs/" + absent, 404, "", "", "BLOB_UNKNOWN"},
		{"bad blob digest", "/v2/a/b/blobs/sha256:12", 400, "", "", "DIGEST_INVALID"},
		{"bad manifest digest", "/v2/a/b/manifests/sha256:12", 400, "", "", "DIGEST_INVALID"},
		{"no repository", "/v2/a/manifests/v1", 404, "", "", "NAME_UNKNOWN"},
		{"no repository for blob", "/v2/a/blobs/" + absent, 404, "", "", "NAME_UNKNOWN"},
		{"no token endpoint", "/token", 404, "", "", "UNSUPPORTED"},
		{"no endpoint", "/v2/_catalog", 404, "", "", "UNSUPPORTED"},
		{"outside", "/", 404, "", "", "UNSUPPORTED"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			a := ask(t, "GET", r.URL()+tc.path)
			if a.status != tc.status || a.header.Get("Docker-Distribution-Api-Version") != "registry/2.0" {
				t.Errorf("got %d, header %v", a.status, a.header)
			}
			if tc.status == 200 && (string(a.body) != tc.body || a.header.Get("Content-Type") != tc.mediaType) {
				t.Errorf("got %q of %q", a.body, a.header.Get("Content-Type"))
			}
			if tc.status != 200 && !strings.Contains(string(a.body), `{"code":"`+tc.body+`",`) {
				t.Errorf("got %s, want code %s", a.body, tc.body)
			}
			if got := a.header.Get("Docker-Content-Digest"); got != tc.dgst.String() {
				t.Errorf("got Docker-Content-Digest %q, want %q", got, tc.dgst)
			}
			head := ask(t, "HEAD", r.URL()+tc.path)
			if head.status != tc.status || len(head.body) != 0 || head.header.Get("Content-Length") != a.header.Get("Content-Length") {
				t.Errorf("HEAD differs: %d, %v, want %v", head.status, head.header, a.header)
			}
		})
	}
	if a := ask(t, "PUT", r.URL()+"/v2/a/b/manifests/v1"); a.status != 405 || a.header.Get("Allow") == "" {
		t.Errorf("PUT: got %d", a.status)
	}
}

func TestRange(t *testing.T) {
	t.Parallel()
	whole, plain := New(t, WithoutRange(), WithoutDigestHeader()), New(t)
	b := []byte("0123456789")
	whole.PutBlob("a", b)
	path := "/v2/a/blobs/" + plain.PutBlob("a", b).Digest.String()

	got := ask(t, "GET", plain.URL()+path, "Range", "bytes=4-6")
	if got.status != 206 || string(got.body) != "456" || got.header.Get("Content-Range") != "bytes 4-6/10" {
		t.Errorf("got %d %q %q", got.status, got.body, got.header.Get("Content-Range"))
	}
	if got := ask(t, "GET", plain.URL()+path, "Range", "bytes=10-"); got.status != 416 {
		t.Errorf("beyond the end: got %d", got.status)
	}
	got = ask(t, "GET", whole.URL()+path, "Range", "bytes=4-6")
	if got.status != 200 || string(got.body) != "0123456789" || got.header.Get("Accept-Ranges") != "" {
		t.Errorf("without range: got %d %q", got.status, got.body)
	}
	for _, name := range []string{"Docker-Content-Digest", "ETag"} {
		if v := got.header.Get(name); v != "" {
			t.Errorf("without digest header: got %s %q", name, v)
		}
	}
}

func TestMoveAndDelete(t *testing.T) {
	t.Parallel()
	r := New(t)
	status := func(path string) int { t.Helper(); return ask(t, "GET", r.URL()+path).status }
	one := r.PutManifest("a", "v1", ocispec.MediaTypeImageManifest, []byte(`1`))
	two := r.PutManifest("a", "v1", ocispec.MediaTypeImageManifest, []byte(`2`))
	if got := ask(t, "GET", r.URL()+"/v2/a/manifests/v1"); string(got.body) != "2" {
		t.Errorf("moved tag: got %q", got.body)
	}
	r.PutManifest("a", "v2", two.MediaType, []byte(`2`))
	r.DeleteTag("a", "v1")
	r.DeleteTag("nowhere", "v1")
	if got := status("/v2/a/manifests/v1"); got != 404 {
		t.Errorf("deleted tag: got %d", got)
	}
	if got := status("/v2/a/manifests/" + two.Digest.String()); got != 200 {
		t.Errorf("manifest of the deleted tag: got %d", got)
	}
	r.DeleteManifest("a", two.Digest)
	if got := status("/v2/a/manifests/v2"); got != 404 {
		t.Errorf("tag of a deleted manifest: got %d", got)
	}
	blob := r.PutBlob("a", []byte("x"))
	r.DeleteBlob("a", blob.Digest)
	if got := status("/v2/a/blobs/" + blob.Digest.String()); got != 404 {
		t.Errorf("deleted blob: got %d", got)
	}
	if got := status("/v2/a/manifests/" + one.Digest.String()); got != 200 {
		t.Errorf("what was not deleted: got %d", got)
	}
	r.DeleteRepository("a")
	if got := ask(t, "GET", r.URL()+"/v2/a/manifests/"+one.Digest.String()); !strings.Contains(string(got.body), "NAME_UNKNOWN") {
		t.Errorf("deleted repository: got %s", got.body)
	}
}

func TestTagsList(t *testing.T) {
	t.Parallel()
	r := New(t)
	for _, tag := range []string{"c", "a", "b"} {
		r.PutManifest("x/y", tag, ocispec.MediaTypeImageManifest, []byte(tag))
	}
	r.PutBlob("empty", nil)
	tests := []struct {
		path   string
		status int
		body   string
		link   string
	}{
		{"/v2/x/y/tags/list", 200, `{"name":"x/y","tags":["a","b","c"]}`, ""},
		{"/v2/x/y/tags/list?n=2", 200, `{"name":"x/y","tags":["a","b"]}`, `</v2/x/y/tags/list?last=b&n=2>; rel="next"`},
		{"/v2/x/y/tags/list?last=b&n=2", 200, `{"name":"x/y","tags":["c"]}`, ""},
		{"/v2/x/y/tags/list?last=aa", 200, `{"name":"x/y","tags":["b","c"]}`, ""},
		{"/v2/x/y/tags/list?n=3", 200, `{"name":"x/y","tags":["a","b","c"]}`, ""},
		{"/v2/x/y/tags/list?n=0", 200, `{"name":"x/y","tags":[]}`, ""},
		{"/v2/x/y/tags/list?n=-1", 400, "", ""},
		{"/v2/empty/tags/list", 200, `{"name":"empty","tags":[]}`, ""},
		{"/v2/none/tags/list", 404, "", ""},
	}
	for _, tc := range tests {
		a := ask(t, "GET", r.URL()+tc.path)
		if a.status != tc.status || a.header.Get("Link") != tc.link || tc.body != "" && string(a.body) != tc.body {
			t.Errorf("%s: got %d %s, Link %q", tc.path, a.status, a.body, a.header.Get("Link"))
		}
	}
}

func TestReferrers(t *testing.T) {
	t.Parallel()
	r := New(t)
	subject := r.PutManifest("a", "v1", ocispec.MediaTypeImageManifest, []byte(`{}`))
	sbom := r.PutReferrer("a", subject, "application/x-sbom")
	sig := r.PutReferrer("a", subject, "application/x-sig")
	list := func(query string) (answer, []digest.Digest) {
		a := ask(t, "GET", r.URL()+"/v2/a/referrers/"+subject.Digest.String()+query)
		var index ocispec.Index
		if err := json.Unmarshal(a.body, &index); err != nil || index.MediaType != ocispec.MediaTypeImageIndex || index.Manifests == nil {
			t.Fatalf("got %s, %v", a.body, err)
		}
		var got []digest.Digest
		for _, m := range index.Manifests {
			got = append(got, m.Digest)
		}
		return a, got
	}
	want := []digest.Digest{sbom.Digest, sig.Digest}
	slices.Sort(want)
	if a, got := list(""); !slices.Equal(got, want) || a.header.Get("Content-Type") != ocispec.MediaTypeImageIndex {
		t.Errorf("got %v, want %v", got, want)
	}
	if a, got := list("?artifactType=application/x-sig"); !slices.Equal(got, want[slices.Index(want, sig.Digest):][:1]) || a.header.Get("OCI-Filters-Applied") != "artifactType" {
		t.Errorf("filtered: got %v, %v", got, a.header)
	}
	if _, got := list("?artifactType=other"); len(got) != 0 {
		t.Errorf("filtered by another type: got %v", got)
	}
	if a := ask(t, "GET", r.URL()+"/v2/a/referrers/v1"); a.status != 400 {
		t.Errorf("no digest: got %d", a.status)
	}
	if a := ask(t, "GET", r.URL()+"/v2/a/blobs/"+ocispec.DescriptorEmptyJSON.Digest.String()); string(a.body) != "{}" {
		t.Errorf("empty config: got %s", a.body)
	}
}

func TestStopRefusesAndStartComesBack(t *testing.T) {
	t.Parallel()
	r := New(t)
	r.PutManifest("a", "v1", ocispec.MediaTypeImageManifest, []byte(`1`))
	for range 3 {
		host := r.Host()
		r.Stop()
		r.Stop()
		if _, err := try(t.Context(), t, "GET", r.URL()+"/v2/"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("stopped: got %v, want connection refused", err)
		}
		r.Start()
		r.Start()
		if a := ask(t, "GET", r.URL()+"/v2/a/manifests/v1"); a.status != 200 || r.Host() != host {
			t.Errorf("started: got %d on %s, want 200 on %s", a.status, r.Host(), host)
		}
	}
	if n := r.Count("", ""); n != 3 {
		t.Errorf("got %d requests, want 3", n)
	}
}

func TestStopWaitsForHandlers(t *testing.T) {
	t.Parallel()
	r := New(t)
	var ended atomic.Bool
	r.Fault(Any(), func(_ http.ResponseWriter, req *http.Request, _ http.Handler) {
		<-req.Context().Done()
		<-time.After(50 * time.Millisecond) // a handler slow to end, not a wait for one
		ended.Store(true)
	})
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if a, err := try(t.Context(), t, "GET", r.URL()+"/v2/"); err == nil {
			t.Errorf("got %d of a stopped registry", a.status)
		}
	}()
	if err := r.Await(soon(t), func(all []Request) bool { return len(all) == 1 }); err != nil {
		t.Fatal(err)
	}
	r.Stop()
	if !ended.Load() {
		t.Error("Stop returned before the handler")
	}
	<-gone
}

// TestStopFreesStuckHandlers: one waits with a request body unread, where
// net/http does not notice that the client went; one writes to a client that
// does not read.
func TestStopFreesStuckHandlers(t *testing.T) {
	t.Parallel()
	r := New(t)
	desc := r.PutBlob("a", make([]byte, 64<<20)) // more than socket buffers take
	r.Fault(Method("PUT"), Hang())
	for _, raw := range []string{
		"PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
		"GET /v2/a/blobs/" + desc.Digest.String() + " HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		var d net.Dialer
		conn, err := d.DialContext(t.Context(), "tcp", r.Host())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := conn.Write([]byte(raw)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Await(soon(t), func(all []Request) bool {
		return len(all) == 2 && all[0].Bytes+all[1].Bytes > 0
	}); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() { defer close(stopped); r.Stop() }()
	select {
	case <-stopped:
	case <-soon(t).Done():
		t.Fatal("Stop hangs on stuck handlers")
	}
	for _, q := range r.Requests() {
		if !q.Done || q.Bytes >= desc.Size {
			t.Errorf("got %s %d bytes, done %t", q.Method, q.Bytes, q.Done)
		}
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	r := New(t, WithTLS())
	if _, err := try(t.Context(), t, "GET", r.URL()+"/v2/"); err == nil {
		t.Error("a client without the roots trusts the registry")
	}
	c := client(t)
	c.Transport.(*http.Transport).TLSClientConfig = r.TLSClientConfig()
	resp, err := c.Get(r.URL() + "/v2/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(r.URL(), "https://127.0.0.1:") {
		t.Errorf("%s: got %d", r.URL(), resp.StatusCode)
	}
}

func TestRequests(t *testing.T) {
	t.Parallel()
	r := New(t)
	desc := r.PutBlob("a", []byte("0123456789"))
	path := "/v2/a/blobs/" + desc.Digest.String()
	ask(t, "GET", r.URL()+path+"?ns=docker.io", "Range", "bytes=8-", "X-Secret", "s")
	ask(t, "HEAD", r.URL()+path)
	ask(t, "HEAD", r.URL()+"/v2/none/tags/list")
	if err := r.Await(soon(t), func(all []Request) bool {
		return len(all) == 3 && all[0].Done && all[1].Done && all[2].Done
	}); err != nil {
		t.Fatal(err)
	}
	all := r.Requests()
	if q := all[0]; q.Method != http.MethodGet || q.Path != path || q.Query.Get("ns") != "docker.io" || q.Host != r.Host() ||
		q.Header.Get("X-Secret") != "s" || q.Status != 206 || q.Bytes != 2 {
		t.Errorf("got %+v", q)
	}
	if q := all[1]; q.Method != http.MethodHead || q.Status != 200 || q.Bytes != 0 {
		t.Errorf("got %+v", q)
	}
	if q := all[2]; q.Status != http.StatusNotFound || q.Bytes != 0 {
		t.Errorf("HEAD of an error: got %+v", q)
	}
	for _, tc := range []struct {
		method, path string
		want         int
	}{{"GET", "", 1}, {"", "", 3}, {"", "/blobs/", 2}, {"HEAD", "/manifests/", 0}} {
		if got := r.Count(tc.method, tc.path); got != tc.want {
			t.Errorf("Count(%q, %q): got %d, want %d", tc.method, tc.path, got, tc.want)
		}
	}
	r.ResetRequests()
	if got := r.Requests(); len(got) != 0 {
		t.Errorf("after reset: got %v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Await(ctx, func([]Request) bool { return false }); !errors.Is(err, context.Canceled) {
		t.Errorf("Await: got %v, want canceled", err)
	}
}

// TestConcurrentUse has every method at work at once, for the race detector.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	r := New(t, WithToken())
	img := Build(ImageSpec{Seed: 1})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10 {
				r.PutImage("a", "v1", img)
				remove := r.Fault(Blobs(), Times(2, WrongBytes(3)))
				a := ask(t, "GET", r.URL()+"/token?scope=repository:a:pull")
				var token struct{ Token string }
				if err := json.Unmarshal(a.body, &token); err != nil {
					t.Error(err)
				}
				got := ask(t, "GET", r.URL()+"/v2/a/manifests/v1", "Authorization", "Bearer "+token.Token)
				if !bytes.Equal(got.body, img.Manifests[0].Data) {
					t.Errorf("got %d %s", got.status, got.body)
				}
				ask(t, "GET", r.URL()+"/v2/a/blobs/"+img.Blobs[0].Descriptor.Digest.String(), "Authorization", "Bearer "+token.Token)
				remove()
				r.Requests()
			}
		})
	}
	wg.Wait()
	if got := r.Count("GET", "/v2/"); got != 80 {
		t.Errorf("got %d requests, want 80", got)
	}
}
