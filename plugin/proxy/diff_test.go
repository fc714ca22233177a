package proxy

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/diff/apply"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/plugin/unpack/unpacktest"
)

// layerEntry is a file of a test's layer.
type layerEntry struct {
	tar.Header
	body []byte
}

// layerOf writes a tar stream.
func layerOf(t *testing.T, entries ...layerEntry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		e.Size, e.Format = int64(len(e.body)), tar.FormatPAX
		if e.ModTime.IsZero() {
			e.ModTime = time.Unix(1_700_000_000, 123_456_789)
		}
		e.Mode = cmp.Or(e.Mode, 0o644)
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// testLayers are a base and what changes it, with all that a layer can have.
func testLayers(t *testing.T) [][]byte {
	t.Helper()
	dir := func(name string, mode int64) layerEntry {
		return layerEntry{Header: tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: mode}}
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
	base := layerOf(t,
		dir("etc/", 0o755), dir("tmp/", 0o1777), dir("gone/", 0o755), dir("opaque/", 0o700), dir("opaque/below/", 0o755),
		layerEntry{tar.Header{Name: "etc/passwd", Uid: 0, Gid: 42}, []byte("root:x:0:0::/root:/bin/sh\n")},
		layerEntry{tar.Header{Name: "etc/shadow", Mode: 0o600, Uid: 7, Gid: 8}, []byte("secret")},
		layerEntry{tar.Header{Name: "bin/su", Mode: 0o4755}, big},
		layerEntry{tar.Header{Name: "bin/su-link", Typeflag: tar.TypeLink, Linkname: "bin/su"}, nil},
		layerEntry{tar.Header{Name: "bin/sh", Typeflag: tar.TypeSymlink, Linkname: "/bin/su", Mode: 0o777}, nil},
		layerEntry{tar.Header{Name: "bin/caps", Mode: 0o755, PAXRecords: map[string]string{
			"SCHILY.xattr.user.x":              "y",
			"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		}}, []byte("x")},
		layerEntry{tar.Header{Name: "gone/file"}, []byte("x")},
		layerEntry{tar.Header{Name: "opaque/hidden"}, []byte("x")},
		layerEntry{tar.Header{Name: "empty", ModTime: time.Unix(1, 0)}, nil},
		layerEntry{tar.Header{Name: "dev/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666}, nil},
		layerEntry{tar.Header{Name: "dev/fifo", Typeflag: tar.TypeFifo}, nil},
		layerEntry{tar.Header{Name: "long/" + strings.Repeat("n", 200) + "/ü", Uid: 1 << 22}, []byte("x")},
	)
	change := layerOf(t,
		layerEntry{tar.Header{Name: "gone/.wh.file"}, nil},
		layerEntry{tar.Header{Name: ".wh.empty"}, nil},
		layerEntry{tar.Header{Name: "opaque/.wh..wh..opq"}, nil},
		layerEntry{tar.Header{Name: "opaque/new", Mode: 0o640}, []byte("new")},
		layerEntry{tar.Header{Name: "etc/passwd", Mode: 0o644}, []byte("changed")},
		layerEntry{tar.Header{Name: "tmp", Typeflag: tar.TypeReg}, []byte("a folder no more")},
		layerEntry{tar.Header{Name: "etc/link", Typeflag: tar.TypeLink, Linkname: "etc/passwd"}, nil},
	)
	return [][]byte{base, change}
}

// compressions are all that containerd's differ takes.
var compressions = map[string]func(t *testing.T, layer []byte) (mediaType string, blob []byte){ //nolint:gochecknoglobals // a table of the tests
	"plain": func(_ *testing.T, layer []byte) (string, []byte) { return ocispec.MediaTypeImageLayer, layer },
	"gzip": func(t *testing.T, layer []byte) (string, []byte) {
		t.Helper()
		return ocispec.MediaTypeImageLayerGzip, gzipped(t, layer)
	},
	"gzip in two members, docker's type": func(t *testing.T, layer []byte) (string, []byte) {
		t.Helper()
		return "application/vnd.docker.image.rootfs.diff.tar.gzip", slices.Concat(gzipped(t, layer[:700]), gzipped(t, layer[700:]))
	},
	"zstd": func(t *testing.T, layer []byte) (string, []byte) {
		t.Helper()
		return ocispec.MediaTypeImageLayerZstd, zstdOf(t, layer)
	},
	"zstd that calls itself gzip": func(t *testing.T, layer []byte) (string, []byte) {
		t.Helper()
		return ocispec.MediaTypeImageLayerGzip, zstdOf(t, layer)
	},
}

func gzipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func zstdOf(t *testing.T, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(data, nil)
}

// snapshotters are how containerd has a differ write: the mounts of a layer over
// others below dir, and where its files are.
var snapshotters = map[string]func(dir string, layer int) (mounts []mount.Mount, root string){ //nolint:gochecknoglobals // as above
	"overlayfs": func(dir string, layer int) ([]mount.Mount, string) {
		upper := filepath.Join(dir, fmt.Sprint(layer))
		if layer == 0 {
			return []mount.Mount{{Type: "bind", Source: upper, Options: []string{"rw", "rbind"}}}, upper
		}
		return []mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{
			"workdir=" + dir + "-work", "upperdir=" + upper, "lowerdir=" + filepath.Join(dir, fmt.Sprint(layer-1)),
		}}}, upper
	},
	"native": func(dir string, _ int) ([]mount.Mount, string) {
		root := filepath.Join(dir, "0") // all layers in one folder
		return []mount.Mount{{Type: "bind", Source: root, Options: []string{"rw", "rbind"}}}, root
	},
}

// TestApply unpacks layers with larder and with containerd's own differ: both have
// the same files, in all that files have, and the same digest.
func TestApply(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("NOT TESTED: unpacking; owners and devices need root")
	}
	for compressed, compress := range compressions {
		for snapshotter, mountsOf := range snapshotters {
			t.Run(compressed+" on "+snapshotter, func(t *testing.T) {
				t.Parallel()
				store, err := cache.Open(t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				defer store.Close()
				ours, theirs := t.TempDir(), t.TempDir()
				for i, layer := range testLayers(t) {
					mediaType, blob := compress(t, layer)
					desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(blob), Size: int64(len(blob))}
					if err := store.Put(t.Context(), desc.Digest, blob, cache.Facts{}); err != nil {
						t.Fatal(err)
					}
					unpack := func(dir string, a diff.Applier) (ocispec.Descriptor, map[string]string) {
						mounts, root := mountsOf(dir, i)
						if err := os.MkdirAll(root, 0o755); err != nil {
							t.Fatal(err)
						}
						applied, err := a.Apply(t.Context(), desc, mounts, diff.WithSyncFs(i == 1))
						if err != nil {
							t.Fatal(err)
						}
						return applied, unpacktest.Files(t, root)
					}
					got, files := unpack(ours, applier{&differ{store: store, logger: slog.New(slog.DiscardHandler)}})
					want, wantFiles := unpack(theirs, apply.NewFileSystemApplier(store))
					if got.Digest != want.Digest || got.Digest != digest.FromBytes(layer) || got.Size != want.Size || got.MediaType != want.MediaType {
						t.Errorf("layer %d: applied %+v, containerd %+v", i, got, want)
					}
					if len(wantFiles) < 8 {
						t.Errorf("layer %d: %d files", i, len(wantFiles))
					}
					if diff := unpacktest.Diff(files, wantFiles); diff != "" {
						t.Errorf("layer %d: %s", i, diff)
					}
				}
			})
		}
	}
}

// applier is a differ as containerd's interface.
type applier struct{ *differ }

func (a applier) Apply(ctx context.Context, desc ocispec.Descriptor, mounts []mount.Mount, opts ...diff.ApplyOpt) (ocispec.Descriptor, error) {
	var c diff.ApplyConfig
	for _, opt := range opts {
		if err := opt(ctx, desc, &c); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	return a.apply(ctx, desc, mounts, c.SyncFs)
}

// TestApplyRefuses what is another differ's to unpack.
func TestApplyRefuses(t *testing.T) {
	t.Parallel()
	store, err := cache.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	d := &differ{store: store, logger: slog.New(slog.DiscardHandler)}
	layer := layerOf(t)
	desc := ocispec.Descriptor{Digest: digest.FromBytes(layer), Size: int64(len(layer))}
	if err := store.Put(t.Context(), desc.Digest, layer, cache.Facts{}); err != nil {
		t.Fatal(err)
	}
	for mediaType, dgst := range map[string]digest.Digest{
		"application/vnd.oci.image.layer.v1.tar+gzip+encrypted": desc.Digest,
		"application/vnd.in-toto+json":                          desc.Digest,
		"":                                                      desc.Digest,
		ocispec.MediaTypeImageLayer:                             digest.FromString("not stored"),
	} {
		_, err := d.apply(t.Context(), ocispec.Descriptor{MediaType: mediaType, Digest: dgst}, nil, false)
		if !errdefs.IsNotImplemented(err) {
			t.Errorf("%s: %v, want not implemented", mediaType, err)
		}
	}
}

// TestApplyHugeWindow: a layer that wants very much memory is left to containerd, but
// not one of which something is written already.
func TestApplyHugeWindow(t *testing.T) {
	t.Parallel()
	store, err := cache.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	// A frame header of RFC 8878 with a window of 256 MiB, and an empty last block.
	huge := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 18 << 3, 0x01, 0x00, 0x00}
	for _, blob := range [][]byte{huge, append(zstdOf(t, layerOf(t)), huge...)} {
		desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerZstd, Digest: digest.FromBytes(blob), Size: int64(len(blob))}
		if err := store.Put(t.Context(), desc.Digest, blob, cache.Facts{}); err != nil {
			t.Fatal(err)
		}
		d := &differ{store: store, logger: slog.New(slog.DiscardHandler)}
		mounts, root := snapshotters["overlayfs"](t.TempDir(), 1)
		if err := os.MkdirAll(root, 0o755); err != nil {
			t.Fatal(err)
		}
		_, err := d.apply(t.Context(), desc, mounts, false)
		if isFirst := len(blob) == len(huge); err == nil || errdefs.IsNotImplemented(err) != isFirst {
			t.Errorf("it is the first frame: %t, got %v", isFirst, err)
		}
	}
}
