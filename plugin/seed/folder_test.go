package seed

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// TestFolder: what cannot be linked into is told apart.
func TestFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	folder := func(names ...string) string {
		path := filepath.Join(append([]string{dir}, names...)...)
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	root := folder("store")
	folder("used", "blobs")
	folder("used", "ingest")
	folder("other", "etc")
	file := filepath.Join(folder("files"), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	memory, err := os.MkdirTemp("/dev/shm", "larder-seed-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(memory) })
	if err := os.Symlink(memory, filepath.Join(folder("led away"), "blobs")); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		content string
		kind    func(error) bool
		text    string
	}{
		"new":               {folder("new"), nil, ""},
		"used":              {filepath.Join(dir, "used"), nil, ""},
		"none":              {filepath.Join(dir, "none"), errdefs.IsNotFound, "is not there"},
		"another's":         {filepath.Join(dir, "other"), errdefs.IsFailedPrecondition, "has etc in it"},
		"other file system": {memory, errdefs.IsFailedPrecondition, "two file systems"},
		"blobs elsewhere":   {filepath.Join(dir, "led away"), errdefs.IsFailedPrecondition, "two file systems"},
		"file":              {file, func(error) bool { return true }, "not a directory"},
	} {
		err := Check(c.content, root)
		if c.kind == nil && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if c.kind != nil && (err == nil || !c.kind(err) || !strings.Contains(err.Error(), c.text)) {
			t.Errorf("%s: got %v, want %q", name, err, c.text)
		}
	}
	if err := Check(filepath.Join(dir, "new"), filepath.Join(dir, "no store")); err == nil {
		t.Error("no store: no error")
	}
}

// TestFolderOnOtherMount: a bind mount of the same file system takes no links.
func TestFolderOnOtherMount(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("to mount needs root")
	}
	dir := t.TempDir()
	root, content := filepath.Join(dir, "store"), filepath.Join(dir, "content")
	for _, path := range []string{root, content} {
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount(content, content, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(content, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	err := Check(content, root)
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "two mounts") {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(filepath.Join(root, "a"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(root, "a"), filepath.Join(content, "a")); err == nil {
		t.Error("it can be linked into: the check is wrong")
	}
}

// TestLink: a name that is taken meanwhile is no error, and a file that is gone
// is not brought back.
func TestLink(t *testing.T) {
	t.Parallel()
	e := newBench(t, image())
	folder := content{path: e.content, root: e.root}
	dgst := e.img.Blobs[1].Descriptor.Digest
	b, err := e.registry.OpenSure(t.Context(), repository(), dgst)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for range 2 {
		if err := folder.link(b); err != nil {
			t.Error(err)
		}
	}
	if err := folder.sync(dgst.Algorithm()); err != nil || !isSame(e.stored(dgst), e.linkOf(dgst)) {
		t.Errorf("it is not linked: %v", err)
	}
	for _, path := range []string{e.linkOf(dgst), e.stored(dgst)} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(e.stored(dgst), []byte("another"), 0o444); err != nil {
		t.Fatal(err)
	}
	if err := folder.link(b); err == nil || e.names() > 0 {
		t.Errorf("what is at the path now is linked: %v", err)
	}
}
