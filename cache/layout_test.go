package cache

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestOpenNewerFormat leaves a store of a newer larder alone.
func TestOpenNewerFormat(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ text, says string }{
		"newer":     {`{"format":2,"else":true}`, "format 2"},
		"garbage":   {"\x00\x01", "larder.json"},
		"empty":     {"", "larder.json"},
		"no format": {"{}", "format is 0"},
		"wrong":     {`{"format":"1"}`, "larder.json"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			path := filepath.Join(root, "larder.json")
			if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Open(root)
			if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("open: %v, want failed precondition with %q", err, tc.says)
			}
			entries, err := os.ReadDir(root)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if e.Name() != "larder.json" && e.Name() != "lock" {
					t.Errorf("open made %s in a store that is not its own", e.Name())
				}
			}
		})
	}
}

// TestOpenMakesLayout makes what other tools look for, and keeps what is there.
func TestOpenMakesLayout(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "a", "b")
	s := openStore(t, root)
	text, err := os.ReadFile(filepath.Join(root, "oci-layout"))
	var layout ocispec.ImageLayout
	if err != nil || json.Unmarshal(text, &layout) != nil || layout.Version != "1.0.0" {
		t.Errorf("oci-layout is %q, %v, want version 1.0.0", text, err)
	}
	if fi, err := os.Stat(root); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("root has mode %v, %v, want 0700", fi.Mode(), err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	note := filepath.Join(root, "larder.json")
	if err := os.WriteFile(note, []byte(` {"format": 1, "note": "kept"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	openStore(t, root)
	if text, err := os.ReadFile(note); err != nil || !strings.Contains(string(text), "kept") {
		t.Errorf("larder.json is %q, %v, want it kept", text, err)
	}
}

// FuzzBlobPath has no digest lead out of the blobs folder.
func FuzzBlobPath(f *testing.F) {
	for _, seed := range []string{
		"", ":", "sha256:", "sha256:../../etc/passwd", "../x:abc", "sha256:" + strings.Repeat("a", 64),
		"sha256:" + strings.Repeat("A", 64), "sha512:" + strings.Repeat("0", 128), "sha256+b64:x", "sha256:" + strings.Repeat("a", 63) + "/",
		"sha384:" + strings.Repeat("f", 96), "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256\x00:" + strings.Repeat("a", 64),
	} {
		f.Add(seed)
	}
	s := &Store{root: "/root"}
	f.Fuzz(func(t *testing.T, text string) {
		path, err := s.blobPath(digest.Digest(text))
		if err != nil {
			if !errdefs.IsInvalidArgument(err) || path != "" {
				t.Errorf("%q: %q, %v, want invalid argument", text, path, err)
			}
			return
		}
		alg, hex, _ := strings.Cut(text, ":")
		if path != "/root/blobs/"+alg+"/"+hex || path != filepath.Clean(path) || strings.Count(path, "/") != 4 {
			t.Errorf("%q leads to %q", text, path)
		}
		if strings.Trim(hex, "0123456789abcdef") != "" || len(hex) < 64 {
			t.Errorf("%q is taken for a digest", text)
		}
	})
}
