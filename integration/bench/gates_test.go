package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// What a server answers has the right status, length and digest, or it is an error.
func TestFetchWhole(t *testing.T) {
	t.Parallel()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/missing" {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = io.WriteString(w, "content")
	}))
	t.Cleanup(web.Close)
	srv := &server{who: "a server", addr: strings.TrimPrefix(web.URL, "http://")}
	right := ocispec.Descriptor{Digest: digest.FromString("content"), Size: 7}
	if err := srv.fetchWhole(t.Context(), "/", right); err != nil {
		t.Errorf("the right one: %v", err)
	}
	for name, tc := range map[string]struct {
		path string
		want ocispec.Descriptor
	}{
		"status": {"/missing", right},
		"digest": {"/", ocispec.Descriptor{Digest: digest.FromString("other"), Size: 7}},
		"length": {"/", ocispec.Descriptor{Digest: right.Digest, Size: 8}},
	} {
		if err := srv.fetchWhole(t.Context(), tc.path, tc.want); err == nil {
			t.Errorf("wrong %s: no error", name)
		}
	}
}

func TestQuietly(t *testing.T) {
	t.Parallel()
	im, img := makeImage(t, small(7))
	u, err := startUpstream(im)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = u.Close() })
	asks := func(path string) func() error {
		return func() error { ask(t, "GET", u.URL()+path, ""); return nil }
	}
	if err := quietly(u, asks("/v2/library/x/manifests/1")); err != nil {
		t.Errorf("a manifest: %v, want that only blobs count", err)
	}
	if err := quietly(u, asks("/v2/library/x/blobs/"+img.config.Digest.String())); err == nil {
		t.Error("a blob: no error")
	}
}

func TestCheckStore(t *testing.T) {
	t.Parallel()
	im, img := makeImage(t, small(7))
	srv := &server{root: im.dir}
	if err := checkStore(srv, img, true); err != nil {
		t.Errorf("a store that has all: %v", err)
	}
	if err := checkStore(srv, img, false); err == nil {
		t.Error("a store that should be empty: no error")
	}
	if err := checkStore(&server{root: t.TempDir()}, img, false); err != nil {
		t.Errorf("an empty store: %v", err)
	}
	layer := im.path(img.layers[0].Digest)
	data, err := os.ReadFile(layer)
	if err != nil {
		t.Fatal(err)
	}
	data[0]++
	if err := os.WriteFile(layer, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := checkFile(layer, img.layers[0], true); err == nil {
		t.Error("a wrong byte: no error")
	}
	if err := os.Truncate(layer, 1); err != nil {
		t.Fatal(err)
	}
	if err := checkStore(srv, img, true); err == nil {
		t.Error("a layer that is too short: no error")
	}
	if err := os.Remove(layer); err != nil {
		t.Fatal(err)
	}
	if err := checkStore(srv, img, true); err == nil {
		t.Error("a layer that is missing: no error")
	}
}

func TestSizeOf(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"a", "b/c", "b/index.db"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, make([]byte, 5000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	size, err := sizeOf(dir)
	if err != nil || size.inodes != 5 || size.index < 5000 || size.blocks < 3*size.index {
		t.Errorf("got %+v, %v, want 5 inodes and the blocks of 3 files", size, err)
	}
}

// This process is in its own group, and has memory.
func TestProcesses(t *testing.T) {
	t.Parallel()
	leader, err := unix.Getpgid(0)
	if err != nil {
		t.Fatal(err)
	}
	pids, err := group(leader)
	if err != nil || !slices.Contains(pids, os.Getpid()) {
		t.Errorf("got %v, %v, want %d among them", pids, err, os.Getpid())
	}
	if kib, err := memoryOf(os.Getpid(), "VmHWM"); err != nil || kib < 100 {
		t.Errorf("memory: %v KiB, %v", kib, err)
	}
	if _, err := memoryOf(os.Getpid(), "VmNothing"); err == nil {
		t.Error("a line that is not there: no error")
	}
}

func TestMachine(t *testing.T) {
	t.Parallel()
	if got := machine(t.TempDir()); !strings.Contains(got, "GiB") || !strings.Contains(got, "Linux") {
		t.Errorf("the machine is %q", got)
	}
}
