package cache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

func walk(t *testing.T, s *Store, filters ...string) []digest.Digest {
	t.Helper()
	var found []digest.Digest
	err := s.Walk(t.Context(), func(info content.Info) error {
		found = append(found, info.Digest)
		return nil
	}, filters...)
	if err != nil {
		t.Errorf("walk: %v", err)
	}
	return found
}

// TestWalk has foreign things everywhere among the blobs.
func TestWalk(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	var want []digest.Digest
	for i := range uint64(5) {
		data, dgst := blobOf(i, 10+int(i))
		if err := s.Put(t.Context(), dgst, data, Facts{Labels: map[string]string{"n": string(rune('a' + i%2))}}); err != nil {
			t.Fatal(err)
		}
		want = append(want, dgst)
	}
	blobs := filepath.Join(s.Root(), "blobs")
	_, dirDigest := blobOf(100, 10)
	if err := errors.Join(
		os.WriteFile(filepath.Join(blobs, "README"), nil, 0o600),
		os.Symlink("/etc", filepath.Join(blobs, "sha512")),
		os.Mkdir(filepath.Join(blobs, "md5"), 0o700),
		os.WriteFile(filepath.Join(blobs, "md5", "x"), nil, 0o600),
		os.WriteFile(filepath.Join(blobs, "sha256", "x"), nil, 0o600),
		os.WriteFile(filepath.Join(blobs, "sha256", want[0].Encoded()+".tmp"), nil, 0o600),
		os.Mkdir(filepath.Join(blobs, "sha256", dirDigest.Encoded()), 0o700),
		syscall.Mkfifo(filepath.Join(blobs, "sha256", "fifo"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	if got := slices.Sorted(slices.Values(walk(t, s))); !slices.Equal(got, want) {
		t.Errorf("walk finds %v, want %v", got, want)
	}
	if got := walk(t, s, `labels."n"==a`); len(got) != 3 {
		t.Errorf("walk with a filter finds %d, want 3", len(got))
	}
	if got := walk(t, s, `digest==sha256:x`, `digest==`+want[0].String()); !slices.Equal(got, want[:1]) {
		t.Errorf("walk with filters finds %v, want %s", got, want[0])
	}
	fn := func(content.Info) error { return nil }
	if err := s.Walk(t.Context(), fn, "=="); err == nil {
		t.Error("walk with a bad filter: no error")
	}
	stop := errors.New("stop")
	if err := s.Walk(t.Context(), func(content.Info) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("walk: %v, want the function's error", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Walk(ctx, fn); !errors.Is(err, context.Canceled) {
		t.Errorf("walk: %v, want canceled", err)
	}
	// The function may change the store.
	if err := s.Walk(t.Context(), func(info content.Info) error { return s.Delete(t.Context(), info.Digest) }); err != nil {
		t.Errorf("walk that deletes: %v", err)
	}
	if got := walk(t, s); len(got) != 0 {
		t.Errorf("walk finds %v after all were deleted", got)
	}
	if err := s.Delete(t.Context(), want[0]); !errdefs.IsNotFound(err) {
		t.Errorf("second delete: %v, want not found", err)
	}
}
