package cache_test

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/cache/disktest"
)

// TestAdoptOnFaultyDisk fails each call once: the blob is whole or absent, the file keeps its name, and the next
// time it works.
func TestAdoptOnFaultyDisk(t *testing.T) {
	t.Parallel()
	data := bytes.Repeat([]byte("blob "), 20_000)
	dgst := digest.FromBytes(data)
	for n := 1; ; n++ {
		disk := disktest.NewFaulty(cache.OSDisk())
		s, err := cache.Open(t.TempDir(), cache.WithDisk(disk))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, data, 0o444); err != nil {
			t.Fatal(err)
		}
		disk.Fail(n, syscall.EIO)
		_, aerr := s.Adopt(t.Context(), dgst, path, nil)
		failed := disk.Failed()
		disk.Heal()
		if got, rerr := content.ReadBlob(t.Context(), s, ocispec.Descriptor{Digest: dgst}); aerr == nil && rerr != nil || rerr == nil && !bytes.Equal(got, data) {
			t.Fatalf("call %d: %v; the blob: %d bytes, %v", n, aerr, len(got), rerr)
		}
		if kept, kerr := os.ReadFile(path); kerr != nil || len(kept) != len(data) {
			t.Fatalf("call %d: the file: %d bytes, %v", n, len(kept), kerr)
		}
		if _, err := s.Adopt(t.Context(), dgst, path, nil); err != nil {
			t.Fatalf("call %d: the next time: %v", n, err)
		}
		if got, err := content.ReadBlob(t.Context(), s, ocispec.Descriptor{Digest: dgst}); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("call %d: the next time: %d bytes, %v", n, len(got), err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if !failed {
			if n < 8 {
				t.Errorf("%d calls: the test shows nothing", n)
			}
			return
		}
	}
}
