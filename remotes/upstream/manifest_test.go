package upstream

import (
	"bytes"
	"crypto/sha512"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestResolve(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		opts  []remotestest.Option
		fault remotestest.FaultFunc
		gets  int
	}{
		"plain":             {},
		"no digest header":  {opts: []remotestest.Option{remotestest.WithoutDigestHeader()}, gets: 1},
		"no content length": {fault: remotestest.SetHeader("Content-Length", ""), gets: 0},
		"HEAD refused":      {fault: remotestest.Error(405, "UNSUPPORTED", "no HEAD"), gets: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg, img := withImage(t, tc.opts...)
			if tc.fault != nil {
				reg.Fault(remotestest.Method("HEAD"), tc.fault)
			}
			desc, err := clientOf(t, reg).Resolve(soon(t), "team/app", "v1")
			if err != nil || desc.Digest != img.Root.Digest || desc.Size != img.Root.Size || desc.MediaType != img.Root.MediaType {
				t.Errorf("got %+v, %v, want %+v", desc, err, img.Root)
			}
			if n := reg.Count("GET", "/manifests/"); tc.gets > 0 && n != tc.gets {
				t.Errorf("%d GETs, want %d", n, tc.gets)
			}
		})
	}
}

// TestManifestByTag sends one request, and checks what came against upstream's
// word, if there is one.
func TestManifestByTag(t *testing.T) {
	t.Parallel()
	img := image(1)
	long := digest.NewDigestFromBytes(digest.SHA512, sum512(img.Manifests[0].Data))
	for name, tc := range map[string]struct {
		faults []remotestest.FaultFunc
		asked  int
		want   digest.Digest
	}{
		"plain":        {asked: 1, want: img.Root.Digest},
		"no digest":    {faults: []remotestest.FaultFunc{remotestest.SetHeader("Docker-Content-Digest", "")}, asked: 1, want: img.Root.Digest},
		"SHA-512":      {faults: []remotestest.FaultFunc{remotestest.SetHeader("Docker-Content-Digest", long.String())}, asked: 1, want: long},
		"another body": {faults: []remotestest.FaultFunc{remotestest.Times(1, remotestest.WrongBytes(10))}, asked: 2, want: img.Root.Digest},
		"cut":          {faults: []remotestest.FaultFunc{remotestest.Times(1, remotestest.CutBody(20))}, asked: 2, want: img.Root.Digest},
		"cut twice":    {faults: []remotestest.FaultFunc{remotestest.Times(2, remotestest.CutBody(20))}, asked: 3, want: img.Root.Digest},

		"another's digest":      {faults: []remotestest.FaultFunc{remotestest.SetHeader("Docker-Content-Digest", digest.FromString("x").String())}, asked: 2},
		"another algorithm's":   {faults: []remotestest.FaultFunc{remotestest.SetHeader("Docker-Content-Digest", "sha512:"+img.Root.Digest.Encoded())}, asked: 1},
		"no digest, and cut":    {faults: []remotestest.FaultFunc{remotestest.SetHeader("Docker-Content-Digest", ""), remotestest.CutBody(20)}, asked: 1},
		"wrong bytes":           {faults: []remotestest.FaultFunc{remotestest.WrongBytes(10)}, asked: 2},
		"too long, and says so": {faults: []remotestest.FaultFunc{remotestest.WrongContentLength(MaxManifestSize)}, asked: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg, _ := withImage(t)
			for _, f := range tc.faults {
				reg.Fault(remotestest.Manifests(), f)
			}
			data, dgst, contentType, err := clientOf(t, reg).ManifestByTag(soon(t), "team/app", "v1")
			switch {
			case tc.want == "" && (err == nil || data != nil || dgst != ""):
				t.Errorf("got %d bytes as %q, %v, want an error and nothing else", len(data), dgst, err)
			case tc.want != "" && (err != nil || dgst != tc.want || digest.FromBytes(data) != img.Root.Digest || contentType != img.Root.MediaType):
				t.Errorf("got %d bytes of %q as %q, %v, want %q", len(data), contentType, dgst, err, tc.want)
			}
			if n := len(reg.Requests()); n != tc.asked || reg.Count("HEAD", "") != 0 {
				t.Errorf("%d requests, %d of them HEAD, want %d GETs", n, reg.Count("HEAD", ""), tc.asked)
			}
		})
	}
}

// TestResolveWrongDigest has upstream name something that is no digest.
func TestResolveWrongDigest(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"sha256:abc", "md5:d41d8cd98f00b204e9800998ecf8427e", "latest", "sha256:" + strings.Repeat("g", 64)} {
		reg, _ := withImage(t)
		reg.Fault(remotestest.Manifests(), remotestest.SetHeader("Docker-Content-Digest", text))
		_, err := clientOf(t, reg).Resolve(soon(t), "team/app", "v1")
		failed(t, err, errdefs.ErrDataLoss)
		_, _, _, err = clientOf(t, reg).ManifestByTag(soon(t), "team/app", "v1")
		failed(t, err, errdefs.ErrDataLoss)
	}
}

func TestManifest(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t)
	reg.Fault(remotestest.Manifests(), remotestest.SetHeader("Content-Type", "Application/Odd+JSON; charset=utf-8"))
	data, contentType, err := clientOf(t, reg).Manifest(soon(t), "team/app", img.Root.Digest)
	if err != nil || digest.FromBytes(data) != img.Root.Digest {
		t.Errorf("got %d bytes, %v", len(data), err)
	}
	if contentType != "application/odd+json" {
		t.Errorf("content type %q, want upstream's", contentType)
	}
	q := reg.Requests()[0]
	accept := q.Header.Get("Accept")
	for _, mediaType := range []string{
		ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, remotestest.MediaTypeDockerManifest, remotestest.MediaTypeDockerList, "*/*",
	} {
		if !strings.Contains(accept, mediaType) {
			t.Errorf("Accept is %q, want %s in it", accept, mediaType)
		}
	}
	if q.Query.Has("ns") || q.Header.Get("Accept-Encoding") != "identity" {
		t.Errorf("query %v, header %v", q.Query, q.Header)
	}
}

// TestManifestPrefix asks below an endpoint's prefix.
func TestManifestPrefix(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t, remotestest.WithToken())
	reg.PutImage("proxy/hub/team/app", "v1", img)
	ep := endpoint(t, reg.URL()+"/proxy/hub")
	c := named(t, reg.URL()).Client(ep)
	reg.DeleteRepository("team/app")
	for op, ask := range operations(t, img) {
		if err := ask(c); err != nil {
			t.Errorf("%s: %v", op, err)
		}
	}
}

// TestManifestTooLarge is about manifests around the bound, with and without
// a length, and such as never end; and about a repository whose name looks
// like the path of a blob.
func TestManifestTooLarge(t *testing.T) {
	t.Parallel()
	for _, repo := range []string{"team/app", "team/blobs/app"} {
		for extra, ok := range map[int]bool{0: true, 1: false} {
			reg := remotestest.New(t)
			desc := reg.PutManifest(repo, "v1", ocispec.MediaTypeImageManifest, bytes.Repeat([]byte{' '}, MaxManifestSize+extra))
			for _, fault := range []remotestest.FaultFunc{nil, remotestest.ShortChunked(1 << 30)} {
				if fault != nil {
					reg.Fault(remotestest.Method("GET"), fault)
				}
				c := clientOf(t, reg)
				data, _, err := c.Manifest(soon(t), repo, desc.Digest)
				if ok != (err == nil) || ok && len(data) != MaxManifestSize {
					t.Errorf("%s, %d bytes too much: %d bytes, %v", repo, extra, len(data), err)
				}
				if _, _, _, err := c.ManifestByTag(soon(t), repo, "v1"); ok != (err == nil) || !ok && !errdefs.IsDataLoss(err) {
					t.Errorf("%s, %d bytes too much: by tag: %v", repo, extra, err)
				}
				_, rerr := c.Resolve(soon(t), repo, "v1")
				if ok != (rerr == nil) {
					t.Errorf("%s, %d bytes too much: resolve: %v", repo, extra, rerr)
				}
				if !ok {
					failed(t, err, errdefs.ErrDataLoss)
					if failed(t, rerr, errdefs.ErrDataLoss); errdefs.IsNotFound(rerr) {
						t.Errorf("%v: too large is not deleted", rerr)
					}
				}
			}
		}
		var sent atomic.Int64
		url := serve(t, func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodHead {
				w.WriteHeader(http.StatusOK)
				return
			}
			endless(w, req, "{", &sent)
		})
		c := named(t, url).Client(endpoint(t, url))
		_, _, err := c.Manifest(soon(t), repo, digest.FromString("x"))
		failed(t, err, errdefs.ErrDataLoss)
		_, err = c.Resolve(soon(t), repo, "v1")
		failed(t, err, errdefs.ErrDataLoss)
		_, err = c.Referrers(soon(t), repo, digest.FromString("x"), "")
		failed(t, err, errdefs.ErrDataLoss)
		_, _, err = c.Tags(soon(t), repo, 0, "")
		failed(t, err, errdefs.ErrDataLoss)
		if n := sent.Load(); n > 16*MaxManifestSize {
			t.Errorf("%s: %d bytes were taken", repo, n)
		}
	}
}

// TestManifestWrongBytes asks more often than the breaker bears failures:
// one bad manifest must not cost all the others.
func TestManifestWrongBytes(t *testing.T) {
	t.Parallel()
	unnamed := map[string]bool{"empty": true, "other": true}
	for name, fault := range map[string]remotestest.FaultFunc{
		"wrong": remotestest.WrongBytes(10), "short": remotestest.ShortBody(10), "short, chunked": remotestest.ShortChunked(10),
		"empty": remotestest.Status(200, nil, ""), "other": remotestest.Status(200, nil, "<html>"),
	} {
		reg, img := withImage(t)
		remove := reg.Fault(remotestest.Manifests(), fault)
		c := clientOf(t, reg)
		for range 2 * failuresToOpen {
			_, _, err := c.Manifest(soon(t), "team/app", img.Root.Digest)
			failed(t, err, errdefs.ErrDataLoss)
			if unnamed[name] {
				continue // by tag there is nothing to compare with
			}
			_, _, _, err = c.ManifestByTag(soon(t), "team/app", "v1")
			failed(t, err, errdefs.ErrDataLoss)
		}
		remove()
		if _, _, err := c.Manifest(soon(t), "team/app", img.Root.Digest); err != nil {
			t.Errorf("%s: when upstream is right again: %v", name, err)
		}
	}
}

// TestManifestCut resumes inside of containerd's client.
func TestManifestCut(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t)
	reg.Fault(remotestest.Manifests(), remotestest.Times(1, remotestest.CutBody(20)))
	if _, _, err := clientOf(t, reg).Manifest(soon(t), "team/app", img.Root.Digest); err != nil {
		t.Error(err)
	}
}

func TestDigestsAreChecked(t *testing.T) {
	t.Parallel()
	reg, _ := withImage(t)
	c := clientOf(t, reg)
	for _, text := range []digest.Digest{"", "latest", "sha256:abc", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:../../x"} {
		_, _, err := c.Manifest(soon(t), "team/app", text)
		failed(t, err, errdefs.ErrInvalidArgument)
		_, _, err = c.Blob(soon(t), "team/app", text, 0)
		failed(t, err, errdefs.ErrInvalidArgument)
		_, err = c.Referrers(soon(t), "team/app", text, "")
		failed(t, err, errdefs.ErrInvalidArgument)
	}
	if n := len(reg.Requests()); n != 0 {
		t.Errorf("%d requests, want none", n)
	}
	data := []byte(`{"schemaVersion":2}`)
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, "%s", data) })
	dgst := digest.NewDigestFromBytes(digest.SHA512, sum512(data))
	if got, _, err := named(t, url).Client(endpoint(t, url)).Manifest(soon(t), "team/app", dgst); err != nil || !bytes.Equal(got, data) {
		t.Errorf("sha512: %q, %v", got, err)
	}
}

func sum512(data []byte) []byte {
	sum := sha512.Sum512(data)
	return sum[:]
}

// TestContentEncodingRefused codes every kind of answer.
func TestContentEncodingRefused(t *testing.T) {
	t.Parallel()
	for _, coding := range []string{"gzip", "zstd", "identity, gzip", "br"} {
		reg, img := withImage(t)
		reg.Fault(remotestest.Any(), remotestest.SetHeader("Content-Encoding", coding))
		for _, ask := range operations(t, img) {
			if e := failure(t, ask(clientOf(t, reg)), errdefs.ErrDataLoss); !strings.Contains(e.Error(), "content encoding") {
				t.Errorf("%s: %v", coding, e)
			}
		}
	}
	reg, img := withImage(t)
	reg.Fault(remotestest.Any(), remotestest.SetHeader("Content-Encoding", "Identity"))
	for op, ask := range operations(t, img) {
		if err := ask(clientOf(t, reg)); err != nil {
			t.Errorf("%s: identity: %v", op, err)
		}
	}
	for _, q := range reg.Requests() {
		if got := q.Header.Get("Accept-Encoding"); got != "identity" {
			t.Errorf("%s: Accept-Encoding is %q", q.Path, got)
		}
	}
}
