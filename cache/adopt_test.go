package cache

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// outside writes a file beside the store.
func outside(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAdopt(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	data, dgst := blobOf(1, 100_000)
	path := outside(t, data)
	paced := 0
	linked, err := s.Adopt(t.Context(), dgst, path, func(_ context.Context, n int) error { paced += n; return nil })
	if err != nil || !linked || paced < len(data) {
		t.Fatalf("got %t, %v, %d bytes paced", linked, err, paced)
	}
	wantBlob(t, s, dgst, data)
	was, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	is, err := os.Stat(filepath.Join(s.blobsPath(), "sha256", dgst.Encoded()))
	if err != nil || !os.SameFile(was, is) || is.Mode().Perm() != 0o444 {
		t.Errorf("it is another file, or has mode %v: %v", is.Mode(), err)
	}
	if u := s.usage.read(); u.Blobs != 1 || u.Taken < 100_000 {
		t.Errorf("usage: %+v", u)
	}
	if linked, err := s.Adopt(t.Context(), dgst, path, nil); linked || err != nil {
		t.Errorf("again: %t, %v", linked, err)
	}
}

func TestAdoptRefuses(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	data, dgst := blobOf(2, 1000)
	path := outside(t, data)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	foreign := outside(t, data)
	for name, test := range map[string]struct {
		dgst digest.Digest
		path string
		is   func(error) bool
	}{
		"other bytes": {digest.FromString("other"), path, errdefs.IsDataLoss},
		"no digest":   {"sha256:../../x", path, errdefs.IsInvalidArgument},
		"a folder":    {dgst, filepath.Dir(path), errdefs.IsFailedPrecondition},
		"a link":      {dgst, link, func(err error) bool { return err != nil }},
		"nothing":     {dgst, path + "x", func(err error) bool { return errors.Is(err, fs.ErrNotExist) }},
		"foreign":     {dgst, foreign, errdefs.IsFailedPrecondition},
	} {
		if name == "foreign" && os.Chown(foreign, 12345, -1) != nil {
			continue // who is not root cannot give a file away
		}
		linked, err := s.Adopt(t.Context(), test.dgst, test.path, nil)
		if linked || !test.is(err) {
			t.Errorf("%s: got %t, %v", name, linked, err)
		}
	}
	if has, _ := s.Has(dgst); has {
		t.Error("what was refused is there")
	}
}

func TestLinkTo(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	data, dgst := blobOf(4, 1000)
	if err := s.Put(t.Context(), dgst, data, Facts{}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "file")
	for range 2 {
		if err := s.LinkTo(t.Context(), dgst, path); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Delete(t.Context(), dgst); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || digest.FromBytes(got) != dgst {
		t.Errorf("it did not outlive the blob: %v", err)
	}
	if err := s.LinkTo(t.Context(), dgst, path); !errdefs.IsNotFound(err) {
		t.Errorf("without a blob: %v", err)
	}
}
