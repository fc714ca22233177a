package upstream

import (
	"bytes"
	"net/http"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
)

func TestHasManifest(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t, remotestest.WithToken())
	c := clientOf(t, reg)
	for object, want := range map[string]bool{
		"v1": true, img.Root.Digest.String(): true, "v9": false, digest.FromString("none").String(): false,
	} {
		reg.ResetRequests()
		err := c.HasManifest(soon(t), "team/app", object)
		if (err == nil) != want || !want && !errdefs.IsNotFound(err) {
			t.Errorf("%s: got %v, want it there: %t", object, err, want)
		}
		// Never HEAD of a blob, whatever is not there.
		if n := reg.Count("", "/blobs/") + reg.Count(http.MethodGet, "/manifests/"); n != 0 {
			t.Errorf("%s: %d other requests", object, n)
		}
	}
	reg.Fault(remotestest.Method(http.MethodHead), remotestest.Error(http.StatusMethodNotAllowed, "UNSUPPORTED", "no HEAD"))
	if err := c.HasManifest(soon(t), "team/app", "v1"); err != nil {
		t.Errorf("without HEAD: %v", err)
	}
	for status, is := range map[int]func(error) bool{
		401: errdefs.IsPermissionDenied, 403: errdefs.IsPermissionDenied, 404: errdefs.IsNotFound, 500: errdefs.IsUnavailable, 429: errdefs.IsResourceExhausted,
	} {
		remove := reg.Fault(remotestest.Manifests(), remotestest.Error(status, "DENIED", "no"))
		if err := c.HasManifest(soon(t), "team/app", "v1"); !is(err) {
			t.Errorf("%d: got %v", status, err)
		}
		remove()
	}
}

func TestSample(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]remotestest.Option{
		"range": {remotestest.WithToken()}, "no range": {remotestest.WithToken(), remotestest.WithoutRange()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := remotestest.New(t, opts...)
			data := bytes.Repeat([]byte("0123456789"), 10_000)
			desc := reg.PutBlob("team/app", data)
			c := clientOf(t, reg)
			for offset, n := range map[int64]int{0: 1, 99_990: 10, 12_345: 100} {
				got, err := c.Sample(soon(t), "team/app", desc.Digest, offset, n)
				if err != nil || !bytes.Equal(got, data[offset:offset+int64(n)]) {
					t.Errorf("%d from %d: got %d bytes, %v", n, offset, len(got), err)
				}
			}
			if _, err := c.Sample(soon(t), "team/app", digest.FromString("none"), 0, 1); !errdefs.IsNotFound(err) {
				t.Errorf("no such blob: got %v", err)
			}
			if got, err := c.Sample(soon(t), "team/app", desc.Digest, 99_995, 10); err == nil {
				t.Errorf("more than there is: got %d bytes", len(got))
			}
		})
	}
	// A part from elsewhere is not taken for the one asked for.
	reg := remotestest.New(t)
	desc := reg.PutBlob("team/app", make([]byte, 1000))
	reg.Fault(remotestest.Blobs(), func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Range", "bytes 0-9/1000")
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(make([]byte, 10)) // the client may be gone
	})
	if _, err := clientOf(t, reg).Sample(soon(t), "team/app", desc.Digest, 5, 10); !errdefs.IsDataLoss(err) {
		t.Errorf("a part from elsewhere: got %v, want data loss", err)
	}
}

// TestSampleIsABlob: a part of a blob may be long in coming, where an upstream
// ignores Range. It has a blob's place, a blob's speed, and a blob's allowance.
func TestSampleIsABlob(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t)
	release := make(chan struct{})
	reg.Fault(remotestest.Any(), limits(0))
	reg.Fault(remotestest.Blobs(), remotestest.GateHeader(release))
	c := newPool(t, Options{Named: endpoints(t, reg.URL()), MaxConnections: 2}).Client(endpoint(t, reg.URL()))
	if err := resolve(soon(t), c); err != nil {
		t.Fatal(err)
	}
	sampled := make(chan error, 1)
	go func() {
		_, err := c.Sample(soon(t), "team/app", layer(img).Descriptor.Digest, 5, 10)
		sampled <- err
	}()
	if err := reg.Await(soon(t), func([]remotestest.Request) bool { return reg.Count("", "/blobs/") > 0 }); err != nil {
		t.Fatalf("nothing is left of the allowance, and the sample was not sent: %v, %v", err, <-sampled)
	}
	if !c.site.places.others.TryAcquire(1) {
		t.Error("what is short waits behind a sample")
	}
	close(release)
	if err := <-sampled; err != nil {
		t.Error(err)
	}
}
