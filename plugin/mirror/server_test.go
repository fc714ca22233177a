package mirror

import (
	"bytes"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/larder-project/larder/remotes/remotestest"
)

// Every endpoint: HEAD has the headers of GET and no body, and what containerd
// needs is there.
func TestHeadIsGetWithoutBody(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	img := remotestest.Build(remotestest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}})
	b.up.PutImage("library/app", "1", img)
	b.up.PutReferrer("library/app", img.Root, "application/vnd.example.signature")
	layer := img.Blobs[1]
	b.get(blobPath(layer.Descriptor.Digest))
	b.settle(layer.Descriptor.Digest)
	for name, c := range map[string]struct {
		path, contentType, digest string
		size                      int64
	}{
		"ping":               {path: "/v2/", contentType: "application/json", size: 2},
		"ping without slash": {path: "/v2", contentType: "application/json", size: 2},
		"tag":                {manifestPath("1"), img.Root.MediaType, img.Root.Digest.String(), img.Root.Size},
		"digest":             {manifestPath(img.Root.Digest.String()), img.Root.MediaType, img.Root.Digest.String(), img.Root.Size},
		"child": {manifestPath(img.Manifests[0].Descriptor.Digest.String()), img.Manifests[0].Descriptor.MediaType,
			img.Manifests[0].Descriptor.Digest.String(), img.Manifests[0].Descriptor.Size},
		"by rule":   {"/v2/docker-hub/library/app/manifests/1", img.Root.MediaType, img.Root.Digest.String(), img.Root.Size},
		"blob":      {blobPath(layer.Descriptor.Digest), "application/octet-stream", layer.Descriptor.Digest.String(), layer.Descriptor.Size},
		"tags":      {path: "/v2/library/app/tags/list" + hub, contentType: "application/json", size: -1},
		"referrers": {path: "/v2/library/app/referrers/" + img.Root.Digest.String() + hub, contentType: "application/vnd.oci.image.index.v1+json", size: -1},
		"not found": {path: manifestPath("2"), contentType: "application/json", size: -1},
	} {
		b.ask(http.MethodGet, c.path) // from here on all are hits
		get, head := b.ask(http.MethodGet, c.path), b.ask(http.MethodHead, c.path)
		for _, a := range []answer{get, head} {
			a.header.Del("Date")
		}
		if get.status != head.status || !maps.EqualFunc(get.header, head.header, slices.Equal) {
			t.Errorf("%s: GET is %d %v\nHEAD is %d %v", name, get.status, get.header, head.status, head.header)
		}
		if len(head.body) != 0 || get.length != int64(len(get.body)) || head.length != get.length {
			t.Errorf("%s: GET has %d of %d bytes, HEAD %d of %d", name, len(get.body), get.length, len(head.body), head.length)
		}
		if got := get.header.Get("Content-Type"); got != c.contentType {
			t.Errorf("%s: content type %q, want %q", name, got, c.contentType)
		}
		if got := get.header.Get("Docker-Content-Digest"); got != c.digest || c.digest != "" && get.header.Get("ETag") != strconv.Quote(c.digest) {
			t.Errorf("%s: digest %q, ETag %s, want %q", name, got, get.header.Get("ETag"), c.digest)
		}
		if c.size >= 0 && get.length != c.size {
			t.Errorf("%s: %d bytes, want %d", name, get.length, c.size)
		}
		if got := get.header.Get("Docker-Distribution-Api-Version"); got != "registry/2.0" {
			t.Errorf("%s: API version %q", name, got)
		}
	}
}

// X-Larder-Cache says where an answer came from, OCI-Namespace what ns was
// taken for.
func TestOwnHeaders(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	img := remotestest.Build(remotestest.ImageSpec{Seed: 1})
	b.up.PutImage("library/app", "1", img)
	layer := img.Blobs[1].Descriptor.Digest
	const upper = "/v2/library/app/manifests/1?ns=Registry-1.Docker.IO"
	for _, c := range [][2]string{{upper, "miss"}, {upper, "hit"}, {blobPath(layer), "miss"}, {blobPath(layer), "hit"}} {
		a := b.get(c[0])
		if got := a.header.Get(CacheHeader); got != c[1] || a.header.Get("OCI-Namespace") != "docker.io" {
			t.Errorf("%s: %s, namespace %q, want %s and docker.io", c[0], got, a.header.Get("OCI-Namespace"), c[1])
		}
		if c[0] == blobPath(layer) {
			b.settle(layer)
		}
	}
	if a := b.get("/v2/docker-hub/library/app/manifests/1"); a.header.Get("OCI-Namespace") != "" {
		t.Errorf("no ns was asked, namespace is %q", a.header.Get("OCI-Namespace"))
	}
}

func TestIfNoneMatch(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	img := remotestest.Build(remotestest.ImageSpec{Seed: 1})
	b.up.PutImage("library/app", "1", img)
	layer := img.Blobs[1].Descriptor.Digest
	b.get(blobPath(layer))
	b.settle(layer)
	for path, etag := range map[string]string{manifestPath("1"): img.Root.Digest.String(), blobPath(layer): layer.String()} {
		for match, want := range map[string]int{
			strconv.Quote(etag): 304, `W/` + strconv.Quote(etag): 304, "*": 304, `"x", ` + strconv.Quote(etag): 304, `"x"`: 200, etag: 200,
		} {
			a := b.ask(http.MethodGet, path, "If-None-Match", match)
			if a.status != want || want == 304 && len(a.body) != 0 || a.err != nil {
				t.Errorf("%s: If-None-Match %s: status %d with %d bytes, %v, want %d", path, match, a.status, len(a.body), a.err, want)
			}
		}
	}
}

// Accept converts nothing: what is stored is served.
func TestAcceptConvertsNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	img := remotestest.Build(remotestest.ImageSpec{Docker: true, Platforms: []string{"linux/amd64", "linux/arm64"}})
	b.up.PutImage("library/app", "1", img)
	a := b.get(manifestPath("1"), "Accept", "application/vnd.oci.image.manifest.v1+json", "Accept-Encoding", "zstd, gzip")
	if a.header.Get("Content-Type") != img.Root.MediaType || !bytes.Equal(a.body, img.Manifests[2].Data) || a.header.Get("Content-Encoding") != "" {
		t.Errorf("got %s with %d bytes, want the list as it is", a.header.Get("Content-Type"), len(a.body))
	}
}

// Nothing but GET and HEAD, and nothing is done for the others.
func TestMethods(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.up.PutImage("library/app", "1", remotestest.Build(remotestest.ImageSpec{}))
	before := b.files()
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get", "PROPFIND"} {
		for _, path := range []string{"/v2/", manifestPath("1"), "/v2/library/app/blobs/uploads/" + hub, "/x"} {
			a := b.ask(method, path)
			if a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") != "GET, HEAD" || a.entry().Code != "UNSUPPORTED" {
				t.Errorf("%s %s: %d, Allow %q, %+v, want 405", method, path, a.status, a.header.Get("Allow"), a.entry())
			}
		}
	}
	if n := len(b.up.Requests()); n != 0 {
		t.Errorf("upstream saw %d requests, want 0", n)
	}
	if after := b.files(); !slices.Equal(before, after) {
		t.Errorf("the store had %v, has %v", before, after)
	}
}

// A name that does not exist leaves no trace.
func TestUnknownNamesLeaveNoTrace(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	before := b.files()
	const dgst = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for i := range 20 {
		name := "no/such" + strconv.Itoa(i)
		for _, what := range []string{"manifests/1", "manifests/" + dgst, "blobs/" + dgst, "tags/list"} {
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				if a := b.ask(method, "/v2/"+name+"/"+what+hub); a.status != http.StatusNotFound {
					t.Errorf("%s %s: %d, want 404", name, what, a.status)
				}
			}
		}
	}
	eventually(t, "the store is as it was", func() bool { return slices.Equal(before, b.files()) })
	if tags, err := b.store.Tags(); err != nil || len(tags) != 0 {
		t.Errorf("tags are %v, %v, want none", tags, err)
	}
	if links, err := b.store.Links(); err != nil || len(links) != 0 {
		t.Errorf("links are %v, %v, want none", links, err)
	}
}

// files lists what is in the store's folder.
func (b *bench) files() (all []string) {
	b.t.Helper()
	if err := filepath.WalkDir(b.root, func(path string, _ os.DirEntry, _ error) error {
		// The snapshot of the index comes a second after the start.
		if rel := strings.TrimPrefix(path, b.root); !strings.HasPrefix(rel, "/index.json") {
			all = append(all, rel)
		}
		return nil
	}); err != nil {
		b.t.Fatal(err)
	}
	return all
}

func TestSecret(t *testing.T) {
	t.Parallel()
	const secret = "node-hunter2"
	b := newBench(t, func(s *setup) { s.secret = secret })
	b.up.PutImage("library/app", "1", remotestest.Build(remotestest.ImageSpec{}))
	for name, header := range map[string][]string{
		"none": nil, "empty": {SecretHeader, ""}, "wrong": {SecretHeader, "hunter"}, "longer": {SecretHeader, secret + "x"},
		"other case": {SecretHeader, strings.ToUpper(secret)}, "elsewhere": {"Authorization", "Bearer " + secret},
	} {
		for _, path := range []string{"/v2/", manifestPath("1"), "/nothing"} {
			a := b.ask(http.MethodGet, path, header...)
			if a.status != http.StatusForbidden || a.entry().Code != "DENIED" || !strings.Contains(a.entry().Message, "the node secret is missing or wrong") {
				t.Errorf("%s: %s: %d %+v, want 403", name, path, a.status, a.entry())
			}
		}
		if a := b.ask(http.MethodPost, "/v2/", header...); a.status != http.StatusForbidden {
			t.Errorf("%s: POST: %d, want 403", name, a.status)
		}
	}
	if n := len(b.up.Requests()); n != 0 {
		t.Errorf("upstream saw %d requests, want 0", n)
	}
	b.get(manifestPath("1"), SecretHeader, secret)
	for _, req := range b.up.Requests() {
		if got := req.Header.Get(SecretHeader); got != "" {
			t.Errorf("upstream was sent the node secret: %q", got)
		}
	}
	if strings.Contains(b.log.String(), "hunter") {
		t.Errorf("the log has a secret:\n%s", b.log)
	}
}

// A request that larder itself sent, by a route that leads back to it, is
// refused such that the next upstream of the route is asked.
func TestLoopIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(s *setup) { s.self = true })
	img := remotestest.Build(remotestest.ImageSpec{Seed: 1})
	b.up.PutImage("library/app", "1", img)
	layer := img.Blobs[1]
	if a := b.get(manifestPath("1")); !bytes.Equal(a.body, img.Manifests[0].Data) {
		t.Errorf("got %d bytes, want the manifest", len(a.body))
	}
	if a := b.get(blobPath(layer.Descriptor.Digest)); !bytes.Equal(a.body, layer.Data) {
		t.Errorf("got %d bytes, want the layer", len(a.body))
	}
	loops := 0
	for _, line := range b.log.requests(t) {
		if line["status"] == float64(http.StatusLoopDetected) {
			loops++
		}
	}
	if loops == 0 {
		t.Errorf("no request of larder's own was refused: the test proves nothing\n%s", b.log)
	}
	// Others in Via are not larder.
	for via, want := range map[string]int{
		"1.1 larder-someone-else": 200, "1.1 proxy, 1.1 squid (x)": 200, "larder": 200, "": 200,
	} {
		if a := b.ask(http.MethodGet, "/v2/", "Via", via); a.status != want {
			t.Errorf("Via %q: %d, want %d", via, a.status, want)
		}
	}
}

func TestIsOwn(t *testing.T) {
	t.Parallel()
	s := &Server{options: Options{ID: "larder-abc"}}
	for _, c := range []struct {
		via  []string
		want bool
	}{
		{nil, false},
		{[]string{"1.1 larder-abc"}, true},
		{[]string{"1.1 proxy, HTTP/1.1 larder-abc (comment), 2 other"}, true},
		{[]string{"1.1 proxy", "1.1 larder-abc"}, true},
		{[]string{"1.1 larder-abcd"}, false},
		{[]string{"1.1 xlarder-abc"}, false},
		{[]string{"larder-abc"}, false},
		{[]string{",,"}, false},
	} {
		if got := s.isOwn(c.via); got != c.want {
			t.Errorf("Via %q: own is %t, want %t", c.via, got, c.want)
		}
	}
	if (&Server{}).isOwn([]string{"1.1 larder-"}) {
		t.Error("without an ID everyone is larder")
	}
}
