package cache

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// TestListStatuses has foreign things among the ingests.
func TestListStatuses(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := openStore(t, root)
	for _, ref := range []string{"a", "b"} {
		w, err := s.Writer(t.Context(), content.WithRef(ref))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, "data"); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	ingests := filepath.Join(root, "ingest")
	half := filepath.Join(ingests, digest.FromString("half").Encoded())
	if err := errors.Join(
		os.WriteFile(filepath.Join(ingests, "README"), []byte("x"), 0o600),
		os.Mkdir(filepath.Join(ingests, "folder"), 0o700),
		os.Mkdir(half, 0o700),
		os.WriteFile(filepath.Join(half, "ref"), []byte("half"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	st, err := s.ListStatuses(t.Context())
	if err != nil || len(st) != 2 {
		t.Errorf("list: %v, %v, want 2", st, err)
	}
	if st, err := s.ListStatuses(t.Context(), "ref==a"); err != nil || len(st) != 1 || st[0].Ref != "a" || st[0].Offset != 4 {
		t.Errorf("list with a filter: %v, %v, want a", st, err)
	}
	if _, err := s.ListStatuses(t.Context(), "=="); err == nil {
		t.Error("list with a bad filter: no error")
	}
	if _, err := s.Writer(t.Context(), content.WithRef(strings.Repeat("x", maxRef+1))); !errdefs.IsInvalidArgument(err) {
		t.Errorf("writer with a huge ref: %v, want invalid argument", err)
	}
	if _, err := s.Writer(t.Context()); !errdefs.IsInvalidArgument(err) {
		t.Errorf("writer without a ref: %v, want invalid argument", err)
	}

	// A restart removes what cannot be resumed, and nothing that is not ours.
	data, dgst := blobOf(1, 10)
	leave, err := s.openIngest(t.Context(), putRef+dgst.String(), 0, digest.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leave.Write(data); err != nil {
		t.Fatal(err)
	}
	nameless := s.ingestPath("nameless") // as a power cut may leave it
	if err := errors.Join(
		os.Mkdir(nameless, 0o700),
		os.WriteFile(filepath.Join(nameless, "data"), data, 0o600),
		os.WriteFile(filepath.Join(nameless, "ref"), nil, 0o600),
		os.WriteFile(filepath.Join(nameless, "startedat"), []byte(time.Now().Format(time.RFC3339)), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(leave.close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, root)
	if _, err := os.Stat(nameless); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("ingest without its name after a restart: %v, want it gone", err)
	}
	if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("notes without bytes after a restart: %v, want them gone", err)
	}
	if entries, err := os.ReadDir(ingests); err != nil || len(entries) != 4 {
		t.Errorf("ingest folder after a restart: %v, %v, want a, b, README and folder", entries, err)
	}
	if st, err := s.ListStatuses(t.Context()); err != nil || len(st) != 2 {
		t.Errorf("list after a restart: %v, %v, want 2", st, err)
	}
}

// TestAbortFill leaves a running fill alone.
func TestAbortFill(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	data, dgst := blobOf(1, 100)
	src := newTap(100)
	f := startFill(t, s, dgst, -1, src)
	src.flow(t, data[:50])
	waitReceived(t, f, 50)
	if err := s.Abort(t.Context(), fillRef+dgst.String()); !errdefs.IsUnavailable(err) {
		t.Errorf("abort of a running fill: %v, want unavailable", err)
	}
	if _, err := s.Writer(t.Context(), content.WithRef(fillRef+dgst.String())); !errdefs.IsUnavailable(err) {
		t.Errorf("writer on a running fill: %v, want unavailable", err)
	}
	src.flow(t, data[50:])
	src.w.Close()
	if err := f.Wait(patience(t)); err != nil {
		t.Error(err)
	}
	wantBlob(t, s, dgst, data)
}

// FuzzIngest has any content in an ingest's folder: it can be listed, and the
// next writer resumes it or begins anew.
func FuzzIngest(f *testing.F) {
	s, err := Open(f.TempDir(), WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	blob, dgst := blobOf(1, 100)
	ref := fillRef + dgst.String()
	f.Add([]byte(ref), "2026-01-01T00:00:00Z", "100", blob[:50])
	f.Add([]byte(ref), "2026-01-01T00:00:00Z", "-1", blob)
	f.Add([]byte("other"), "", "1e99", append(blob, 0))
	f.Add([]byte{}, "never", "99999999999999999999", []byte{})
	f.Add([]byte(ref), "0000-00-00", "", []byte("garbage"))
	f.Fuzz(func(t *testing.T, note []byte, started, total string, data []byte) {
		dir := s.ingestPath(ref)
		if err := errors.Join(
			os.MkdirAll(dir, 0o700),
			os.WriteFile(filepath.Join(dir, "ref"), note, 0o600),
			os.WriteFile(filepath.Join(dir, "startedat"), []byte(started), 0o600),
			os.WriteFile(filepath.Join(dir, "total"), []byte(total), 0o600),
			os.WriteFile(filepath.Join(dir, "data"), data, 0o600),
		); err != nil {
			t.Fatal(err)
		}
		st, err := s.readStatus(dir)
		if err != nil && !errdefs.IsNotFound(err) {
			t.Errorf("status: %v, want not found at most", err)
		}
		if err == nil && (st.Offset != int64(len(data)) || st.Total < 0 || st.UpdatedAt.Before(st.StartedAt)) {
			t.Errorf("status: %+v", st)
		}
		if _, err := s.ListStatuses(t.Context()); err != nil {
			t.Errorf("list: %v", err)
		}
		in, err := s.openIngest(t.Context(), ref, 0, dgst.Algorithm())
		if err != nil {
			t.Fatalf("open: %v", err)
		}
		kept := st.Ref == ref
		if kept && in.offset != int64(len(data)) || !kept && in.offset != 0 {
			t.Errorf("resumes at %d, want all of %d bytes: %t", in.offset, len(data), kept)
		}
		if _, err := in.verify(0, digest.FromBytes(data[:in.offset])); err != nil {
			t.Errorf("hash of what is there: %v", err)
		}
		in.remove(t.Context())
		if err := in.close(); err != nil {
			t.Error(err)
		}
	})
}
