package unpack

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff/apply"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/plugins/content/local"
	kgzip "github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/larder-project/larder/plugin/unpack/unpacktest"
)

const (
	// figuresEnv is how many rounds TestFigures has; it takes minutes, so that it runs
	// by "make bench-unpack" only.
	figuresEnv = "LARDER_BENCH_UNPACK"
	// figuresBytes is how many bytes of files the layer has, at most.
	figuresBytes = 1_200_000_000
)

// blobFile is a layer in a file.
type blobFile string

func (f blobFile) ReaderAt(context.Context, ocispec.Descriptor) (content.ReaderAt, error) {
	return local.OpenReader(string(f))
}

// TestFigures unpacks one layer by larder, from a copy, and by containerd's own
// differ, in turns, each time into a new file system, and says how much of
// containerd's time larder takes. containerd uses igzip or unpigz, whichever is in
// PATH.
//
//nolint:paralleltest // it measures
func TestFigures(t *testing.T) {
	rounds, err := strconv.Atoi(os.Getenv(figuresEnv))
	if err != nil {
		t.Skip("takes minutes: make bench-unpack")
	}
	for _, kind := range []string{"gzip", "zstd", "plain"} {
		blob, files := figuresLayer(t, kind)
		fi, err := os.Stat(string(blob))
		if err != nil {
			t.Fatal(err)
		}
		unpackers := figuresUnpackers(t, blob)
		var figures unpacktest.Figures
		for round := range rounds + 1 {
			names := slices.Sorted(maps.Keys(unpackers))
			if round%2 == 1 {
				slices.Reverse(names)
			}
			for _, name := range names {
				seconds := inFreshSnapshot(t, unpackers[name])
				if round > 0 { // the first one warms the page cache
					figures.Add(name, seconds)
				}
			}
		}
		t.Logf("%s, %d MB, %d files; containerd inflates with %s; minimum, median and maximum of %d rounds\n%s",
			kind, fi.Size()/1e6, files, inflater(), rounds, figures.Table("containerd"))
	}
}

// inflater is what containerd inflates gzip with.
func inflater() string {
	for _, name := range []string{"igzip", "unpigz"} {
		if _, err := exec.LookPath(name); err == nil {
			return name
		}
	}
	return "Go's own code"
}

// figuresUnpackers are those that are compared.
func figuresUnpackers(t *testing.T, blob blobFile) map[string]func(mounts []mount.Mount) error {
	t.Helper()
	ours := func(copies *Copies) func(mounts []mount.Mount) error {
		return func(mounts []mount.Mount) error {
			ra, err := blob.ReaderAt(t.Context(), ocispec.Descriptor{})
			if err != nil {
				return err
			}
			_, err = Unpacker{Copies: copies}.Apply(t.Context(), digest.FromString("layer"), ra, mounts, false)
			return errors.Join(err, ra.Close())
		}
	}
	copies, err := OpenCopies(t.TempDir(), CopiesOptions{Layers: blob, Max: 4 << 30})
	if err != nil {
		t.Fatal(err)
	}
	f, err := copies.make(t.Context(), digest.FromString("layer"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the copy has %d MB", f.bytes/1e6)
	return map[string]func(mounts []mount.Mount) error{
		"larder":           ours(nil),
		"larder, its copy": ours(copies),
		"containerd": func(mounts []mount.Mount) error {
			_, err := apply.NewFileSystemApplier(blob).Apply(t.Context(), ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip}, mounts)
			return err
		},
	}
}

// inFreshSnapshot unpacks into an overlay's snapshot on an ext4 of its own, and says
// how many seconds that takes. One from which many files were just removed makes new
// ones slowly, and what others have written is not to cost who comes next.
func inFreshSnapshot(t *testing.T, unpack func(mounts []mount.Mount) error) float64 {
	t.Helper()
	dir := t.TempDir()
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "at")
	for _, args := range [][]string{
		{"truncate", "-s", "8G", image},
		{"mkfs.ext4", "-q", "-F", image},
		{"mkdir", at},
		{"mount", "-o", "loop", image, at},
		{"mkdir", filepath.Join(at, "lower"), filepath.Join(at, "upper"), filepath.Join(at, "work")},
	} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	unix.Sync()
	began := time.Now()
	err := unpack([]mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{
		"workdir=" + filepath.Join(at, "work"), "upperdir=" + filepath.Join(at, "upper"), "lowerdir=" + filepath.Join(at, "lower"),
	}}})
	took := time.Since(began).Seconds()
	if err := errors.Join(err, unix.Unmount(at, 0), os.Remove(image)); err != nil {
		t.Fatal(err)
	}
	return took
}

// figuresLayer makes a layer of real files, and says of how many.
func figuresLayer(t *testing.T, kind string) (blob blobFile, files int) {
	t.Helper()
	paths, err := unpacktest.GoFiles(t.Context(), figuresBytes)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "layer"))
	if err != nil {
		t.Fatal(err)
	}
	z := packers()[kind](f)
	if err := errors.Join(unpacktest.WriteArchive(z, paths), z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return blobFile(f.Name()), len(paths)
}

// packers are the forms that a layer or its copy can have.
func packers() map[string]func(io.Writer) io.WriteCloser {
	return map[string]func(io.Writer) io.WriteCloser{
		"plain": func(w io.Writer) io.WriteCloser { return nopCloser{w} },
		"gzip":  func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		"zstd": func(w io.Writer) io.WriteCloser {
			z, _ := zstd.NewWriter(w) // it has no options that could be wrong
			return z
		},
		"S2": func(w io.Writer) io.WriteCloser { return s2.NewWriter(w) },
	}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// BenchmarkStages says how fast each of the stages is by itself, in bytes of the tar
// stream, and how small the forms are that it can have.
func BenchmarkStages(b *testing.B) {
	paths, err := unpacktest.GoFiles(b.Context(), figuresBytes/4)
	if err != nil {
		b.Fatal(err)
	}
	var plain bytes.Buffer
	if err := unpacktest.WriteArchive(&plain, paths); err != nil {
		b.Fatal(err)
	}
	stage := func(name, kind string, read func(io.Reader) (io.Reader, error)) {
		var packed bytes.Buffer
		z := packers()[kind](&packed)
		if _, err := z.Write(plain.Bytes()); err != nil {
			b.Fatal(err)
		}
		if err := z.Close(); err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(plain.Len()))
			chunk := make([]byte, chunkSize)
			for b.Loop() {
				r, err := read(bytes.NewReader(packed.Bytes()))
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, chunk); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(100*float64(packed.Len())/float64(plain.Len()), "%size")
		})
	}
	stage("gzip, Go's", "gzip", func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) })
	stage("gzip", "gzip", func(r io.Reader) (io.Reader, error) { return kgzip.NewReader(r) })
	stage("gzip, igzip", "gzip", func(r io.Reader) (io.Reader, error) {
		cmd := exec.CommandContext(b.Context(), "igzip", "-d", "-c")
		cmd.Stdin = r
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		b.Cleanup(func() { _ = cmd.Wait() })
		return out, err
	})
	stage("zstd", "zstd", func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r, zstd.WithDecoderConcurrency(1)) })
	stage("S2", "S2", func(r io.Reader) (io.Reader, error) { return s2.NewReader(r), nil })
	stage("digest", "plain", func(r io.Reader) (io.Reader, error) { return io.TeeReader(r, digest.SHA256.Hash()), nil })
}
