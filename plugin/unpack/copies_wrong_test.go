package unpack

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// TestNoCopyOfDamaged: a layer that the disk has spoiled gets no copy, which would be
// well in itself and outlive the damage.
func TestNoCopyOfDamaged(t *testing.T) {
	t.Parallel()
	dir, b := t.TempDir(), blobs{}
	for name, pack := range map[string]func(testing.TB, []byte) []byte{
		"plain": func(_ testing.TB, data []byte) []byte { return data },
		"zstd":  zstdOf,
	} {
		layer := b.add(pack(t, noisyLayer(t, 40)))
		damaged := noisyLayer(t, 40)
		damaged[2<<20] ^= 1
		b[layer] = pack(t, damaged)
		c := openCopies(t, dir, 1<<30, b)
		if _, err := c.make(t.Context(), layer); !errdefs.IsDataLoss(err) || len(namesIn(t, dir)) > 0 || c.has(layer) {
			t.Errorf("%s: got %v; there are %v", name, err, namesIn(t, dir))
		}
	}
}

// TestNoRoomIsNoNews: a full disk leaves nothing behind and is not told each time, nor
// is a layer that is gone.
func TestNoRoomIsNoNews(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir, b := t.TempDir(), blobs{}
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("NOT TESTED: a full disk; %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	var log bytes.Buffer
	c, err := OpenCopies(dir, CopiesOptions{Layers: b, Max: 1 << 30, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	layer := b.add(gzipped(t, noisyLayer(t, 41)))
	if _, err := c.make(t.Context(), layer); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v, want no space", err)
	}
	c.makeWanted(t.Context(), layer)
	c.makeWanted(t.Context(), digest.FromString("gone"))
	if log.Len() > 0 || len(namesIn(t, dir)) > 0 {
		t.Errorf("there are %v, and told is %s", namesIn(t, dir), &log)
	}
}

// TestCopiesOfOthers: what others put into the folder keeps nobody from opening it, and
// does not count for good.
func TestCopiesOfOthers(t *testing.T) {
	t.Parallel()
	dir, b := t.TempDir(), blobs{}
	f := copyFile{layer: digest.FromString("layer"), plain: digest.FromString("plain"), size: 1}
	g := f
	g.plain = digest.FromString("another")
	for _, name := range []string{f.name(), g.name()} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, unfinished+"1", "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	c := openCopies(t, dir, 1<<30, b)
	if c.total != 100 || len(c.files) != 1 || len(namesIn(t, dir)) != 2 {
		t.Errorf("%d bytes in %v", c.total, namesIn(t, dir))
	}
}
