package remotes

import (
	"bytes"
	"strings"
	"testing"

	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/larder-project/larder/remotes/upstream"
)

// TestLargeBlobInParts asks for a blob in parts if its manifest says that it is
// large. If the bytes are wrong, who asks again gets it by one request: an
// upstream may be one that cannot send parts and does not say so.
func TestLargeBlobInParts(t *testing.T) {
	t.Parallel()
	img := remotestest.Build(remotestest.ImageSpec{Seed: 7, Layers: []int64{17 << 20, 1000}})
	for name, wrong := range map[string]bool{"right": false, "wrong": true} {
		up := remotestest.New(t)
		up.PutImage("library/app", "v1", img)
		if wrong {
			up.Fault(remotestest.And(remotestest.Blobs(), remotestest.Ranged()), remotestest.WrongBytes(1000))
		}
		b := newBench(t, []*remotestest.Registry{up}, func(s *setup) {
			s.upstream = upstream.Options{Parallel: 4}
		})
		if _, err := b.Manifest(soon(t), app(t, img.Root.Digest.String())); err != nil {
			t.Fatal(err)
		}
		for _, blob := range img.Blobs {
			up.ResetRequests()
			data, _, err := b.read(appRepo(), blob.Descriptor.Digest)
			first := ranged(up)
			if large := blob.Descriptor.Size > 16<<20; large != (first > 0) {
				t.Errorf("%s: %d requests for parts of %d bytes", name, first, blob.Descriptor.Size)
			}
			if wrong && first > 0 {
				if err == nil {
					t.Fatal("wrong bytes ended well")
				}
				up.ResetRequests()
				data, _, err = b.read(appRepo(), blob.Descriptor.Digest)
				if n := len(up.Requests()); n != 1 || ranged(up) != 0 {
					t.Errorf("the next time: %d requests, %d for parts, want one for all", n, ranged(up))
				}
			}
			if err != nil || !bytes.Equal(data, blob.Data) {
				t.Errorf("%s: %d bytes, %v", name, len(data), err)
			}
		}
	}
}

// ranged counts requests for parts of blobs.
func ranged(up *remotestest.Registry) (n int) {
	for _, q := range up.Requests() {
		if strings.Contains(q.Path, "/blobs/") && q.Header.Get("Range") != "" {
			n++
		}
	}
	return n
}
