package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// It serves, from a process of its own, and ends when it is told to.
func TestFileServer(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	desc := ocispec.Descriptor{Digest: digest.FromString("content"), Size: 7}
	if err := os.Mkdir(filepath.Join(root, "sha256"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "sha256", desc.Digest.Encoded()), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	srv, err := startFileServer(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.fetchWhole(t.Context(), srv.blobPath(&image{}, desc.Digest), desc); err != nil {
		t.Error(err)
	}
	if err := srv.close(); err != nil {
		t.Error(err)
	}
}
