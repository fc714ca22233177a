package main

import (
	"io"
	"net/http"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestUpstreamCounts(t *testing.T) {
	t.Parallel()
	im, img := makeImage(t, small(7))
	img.numbered = 3
	u, err := startUpstream(im)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	blob := img.layers[0]
	if !u.firstByte(blob.Digest).IsZero() {
		t.Error("a blob went out that nobody asked for")
	}
	for _, tc := range []struct {
		method, path, bytes string
		status              int
		body                int64
		want                traffic
	}{
		{"GET", "/v2/", "", 200, 0, traffic{Others: 1}},
		{"HEAD", "/v2/library/x/manifests/1", "", 200, 0, traffic{Others: 1}},
		{"GET", "/v2/library/x/manifests/1", "", 200, img.manifest.Size, traffic{Others: 1}},
		{"GET", "/v2/library/x/manifests/" + img.manifest.Digest.String(), "", 200, img.manifest.Size, traffic{Others: 1}},
		{"GET", "/v2/library/x/manifests/2", "", 404, -1, traffic{Others: 1}},
		{"HEAD", "/v2/library/x/manifests/t2", "", 200, 0, traffic{Others: 1}},
		{"HEAD", "/v2/library/x/manifests/t3", "", 404, -1, traffic{Others: 1}},
		{"HEAD", "/v2/library/x/manifests/t", "", 404, -1, traffic{Others: 1}},
		{"GET", "/v2/library/y/manifests/1", "", 404, -1, traffic{Others: 1}},
		{"GET", "/v2/library/x/referrers/x", "", 404, -1, traffic{Others: 1}},
		{"HEAD", "/v2/library/x/blobs/" + blob.Digest.String(), "", 200, 0, traffic{Others: 1}},
		{"GET", "/v2/library/x/blobs/" + blob.Digest.String(), "", 200, blob.Size, traffic{Blobs: 1, Bytes: blob.Size}},
		{"GET", "/v2/library/x/blobs/" + blob.Digest.String(), "bytes=1-1000", 206, 1000, traffic{Blobs: 1, Bytes: 1000}},
		{"GET", "/v2/library/x/blobs/" + digest.FromString("x").String(), "", 404, -1, traffic{Blobs: 1}},
		{"GET", "/v2/library/x/blobs/x", "", 404, -1, traffic{Blobs: 1}},
	} {
		before := u.traffic()
		status, body := ask(t, tc.method, u.URL()+tc.path, tc.bytes)
		if status != tc.status || tc.body >= 0 && body != tc.body {
			t.Errorf("%s %s %s: status %d and %d bytes, want %d and %d", tc.method, tc.path, tc.bytes, status, body, tc.status, tc.body)
		}
		if got := u.traffic().sub(before); got != tc.want {
			t.Errorf("%s %s %s: counted %+v, want %+v", tc.method, tc.path, tc.bytes, got, tc.want)
		}
	}
	if u.firstByte(blob.Digest).IsZero() {
		t.Error("the blob's first byte is not noted")
	}
	if u.forget(); !u.firstByte(blob.Digest).IsZero() {
		t.Error("the blob's first byte is not forgotten")
	}
}

func ask(t *testing.T, method, url, bytes string) (status int, body int64) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if bytes != "" {
		req.Header.Set("Range", bytes)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, n
}
