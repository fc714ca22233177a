package remotestest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// layer is a compressed layer and the digest of its tar.
type layer struct {
	data   []byte
	diffID digest.Digest
}

// payloadLayer holds size bytes of src in <name>/payload, and a text file
// beside it so that even an empty payload makes a layer that differs.
func payloadLayer(src io.Reader, name string, size int64) layer {
	return writeLayer(size, func(tw *tar.Writer) {
		addDir(tw, name)
		addFile(tw, name+"/name", 0o644, int64(len(name)), strings.NewReader(name))
		addFile(tw, name+"/payload", 0o644, size, io.LimitReader(src, size))
	})
}

// fileLayer holds the given files and the folders they need.
func fileLayer(files []File) layer {
	var size int64
	for _, f := range files {
		size += int64(len(f.Data))
	}
	return writeLayer(size, func(tw *tar.Writer) {
		var made []string
		for _, f := range files {
			name := strings.TrimPrefix(path.Clean("/"+f.Path), "/")
			for i, c := range name {
				if dir := name[:i]; c == '/' && !slices.Contains(made, dir) {
					made = append(made, dir)
					addDir(tw, dir)
				}
			}
			addFile(tw, name, f.Mode, int64(len(f.Data)), bytes.NewReader(f.Data))
		}
	})
}

// writeLayer runs fill on a gzipped tar; size is a hint of what it will hold.
func writeLayer(size int64, fill func(*tar.Writer)) layer {
	var buf bytes.Buffer
	buf.Grow(int(size) + int(size>>8) + 8<<10)
	// The payload does not compress; trying would only cost time.
	gz, err := gzip.NewWriterLevel(&buf, gzip.NoCompression)
	must(err)
	diff := digest.SHA256.Digester()
	tw := tar.NewWriter(io.MultiWriter(gz, diff.Hash()))
	fill(tw)
	must(tw.Close())
	must(gz.Close())
	return layer{data: buf.Bytes(), diffID: diff.Digest()}
}

// archiveLayer is a tar stream, compressed as usual.
func archiveLayer(archive []byte) layer {
	var buf bytes.Buffer
	gz := gzip.NewWriter(&buf)
	_, err := gz.Write(archive)
	must(err)
	must(gz.Close())
	return layer{data: buf.Bytes(), diffID: digest.FromBytes(archive)}
}

func addDir(tw *tar.Writer, name string) {
	must(tw.WriteHeader(&tar.Header{
		Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: time.Unix(0, 0), Format: tar.FormatPAX,
	}))
}

func addFile(tw *tar.Writer, name string, mode, size int64, src io.Reader) {
	must(tw.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: size, ModTime: time.Unix(0, 0), Format: tar.FormatPAX,
	}))
	_, err := io.Copy(tw, src)
	must(err)
}

// must is for writes to memory, which fail only by a mistake in this package.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
