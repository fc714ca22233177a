package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// defaultACL is what files inherit of their folder, as the kernel has it: all for a user,
// and for others little.
const defaultACL = "\x02\x00\x00\x00" +
	"\x01\x00\x07\x00\xff\xff\xff\xff\x02\x00\x07\x00\x05\x00\x00\x00\x04\x00\x05\x00\xff\xff\xff\xff" +
	"\x10\x00\x07\x00\xff\xff\xff\xff\x20\x00\x05\x00\xff\xff\xff\xff"

func aDir(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeDir} }

func aFile(name string, size int64) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeReg, Size: size}
}

func aLink(name, to string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to}
}

func aSymlink(name, to string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}
}

// layerOf is a layer of entries, each of which can be told from the others.
func layerOf(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for i, hdr := range entries {
		if hdr.Typeflag != tar.TypeXGlobalHeader {
			hdr.Mode, hdr.ModTime = 0o600+int64(i%64), time.Unix(1_600_000_000+int64(i), 0)
		}
		if err := w.WriteHeader(&hdr); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bytes.Repeat([]byte{byte('a' + i)}, int(hdr.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// paxHeader is an extended header with one record, whatever it says.
func paxHeader(t testing.TB, key, value string) []byte {
	t.Helper()
	size := len(key) + len(value) + 3
	for n := 0; n != size; {
		n, size = size, len(fmt.Sprintf("%d %s=%s\n", size, key, value))
	}
	body := fmt.Sprintf("%d %s=%s\n", size, key, value)
	b := layerOf(t, aFile("x", int64(len(body))))
	b = b[:len(b)-2*blockSize]
	copy(b[blockSize:], body)
	b[156] = tar.TypeXHeader
	copy(b[148:156], "        ")
	sum := 0
	for _, c := range b[:blockSize] {
		sum += int(c)
	}
	copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// TestDealByLinks: paths that lead elsewhere than they say, beside a large file that is
// written meanwhile, and what files have from their folder.
func TestDealByLinks(t *testing.T) {
	t.Parallel()
	needRoot(t)
	const large = 3 << 20
	inheritsACL := []tar.Header{aDir("d"), aFile("d/large", large)}
	for i := range 150 {
		inheritsACL = append(inheritsACL, aFile(fmt.Sprintf("d/%d", i), 0))
	}
	withACL := aDir("d")
	withACL.PAXRecords = map[string]string{"SCHILY.xattr.system.posix_acl_default": defaultACL}
	for name, entries := range map[string][]tar.Header{
		"a link made over a link in a folder's place": {aDir("d"), aDir("d/e"), aDir("z"), aSymlink("s", "d"), aSymlink("s/e", "/z"), aFile("z/f", large), aFile("d/e/f", 5)},
		"a link made over a link":                     {aDir("d"), aDir("z"), aSymlink("s", "d"), aSymlink("s/e", "/z"), aFile("d/e/x", 1), aFile("z/f", large), aFile("d/e/f", 5)},
		"a link to a file by a link and back":         {aDir("d"), aDir("d/e"), aSymlink("s", "d/e"), aFile("d/f", large), aLink("g", "s/../f")},
		"a link to what a link with a slash leads to": {aFile("t", large), aSymlink("s", "t"), aLink("g", "s/")},
		"an ACL that its files do not inherit":        append(inheritsACL, withACL),
		"a global header":                             {{Name: "g", Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "0"}}, aDir("d"), aFile("d/f", 10)},
	} {
		layer := layerOf(t, entries...)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for round := range 6 {
				if !sameAsContainerd(t, layer, round%2 == 0) {
					t.Fatal("containerd does not take it")
				}
			}
		})
	}
}

// TestEndless: headers that are larger than what may be ahead, and a size of which
// sums overflow, keep nobody waiting.
func TestEndless(t *testing.T) {
	t.Parallel()
	needRoot(t)
	many := bytes.Repeat(paxHeader(t, "comment", strings.Repeat("y", 1<<20-100)), chunks*chunkSize>>20+2)
	for name, c := range map[string]struct {
		layer []byte
		taken bool
	}{
		"headers": {append(many, layerOf(t, aFile("f", 5))...), true},
		"size":    {append(paxHeader(t, "size", "9223372036854775807"), layerOf(t, aFile("f", 0), tar.Header{Name: "f", Typeflag: tar.TypeFifo})...), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			mounts, _ := mountsBelow(t, t.TempDir(), false)
			u := unpacking{layer: memory{bytes.NewReader(c.layer)}, sides: 2}
			if err := u.apply(ctx, mounts, false); (err == nil) != c.taken || errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("got %v", err) // what is below would wait, too
			}
			if taken := sameAsContainerd(t, c.layer, false); taken != c.taken {
				t.Errorf("containerd takes it: %t", taken)
			}
		})
	}
}
