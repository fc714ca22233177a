package mirror

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/cache/disktest"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
)

// badSectors is a disk on which no published blob can be read from an offset on.
// -1: all can.
type badSectors struct {
	cache.Disk
	from atomic.Int64
}

func (d *badSectors) OpenFile(path string, flag int, perm fs.FileMode) (cache.File, error) {
	f, err := d.Disk.OpenFile(path, flag, perm)
	if err != nil || filepath.Base(filepath.Dir(path)) != "sha256" {
		return f, err
	}
	return &badFile{File: f, disk: d}, nil
}

type badFile struct {
	cache.File
	disk *badSectors
	off  int64
}

func (f *badFile) Seek(offset int64, whence int) (n int64, err error) {
	n, err = f.File.Seek(offset, whence)
	f.off = n
	return n, err
}

func (f *badFile) Read(p []byte) (int, error) {
	n, err := f.ReadAt(p, f.off)
	f.off += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

func (f *badFile) ReadAt(p []byte, off int64) (int, error) {
	from := f.disk.from.Load()
	if from < 0 || off+int64(len(p)) <= from {
		return f.File.ReadAt(p, off)
	}
	if off >= from {
		return 0, syscall.EIO
	}
	n, err := f.File.ReadAt(p[:from-off], off)
	if err == nil {
		err = syscall.EIO
	}
	return n, err
}

// TestUnreadableHit has the disk lose the bytes of a stored layer. From its
// first byte on: the client gets it all the same. From further on: what came was
// right, the connection is cut, and the client gets the rest when it asks for it,
// as containerd does.
func TestUnreadableHit(t *testing.T) {
	t.Parallel()
	data := noise(1, 3<<20)
	for name, from := range map[string]int64{"at the start": 0, "midway": 2 << 20} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := &badSectors{Disk: cache.OSDisk()}
			disk.from.Store(-1)
			b := newBench(t, func(s *setup) { s.disk = disk })
			dgst := b.up.PutBlob("library/app", data).Digest
			b.get(blobPath(dgst))
			b.settle(dgst)
			disk.from.Store(from)
			a := b.ask(http.MethodGet, blobPath(dgst))
			if a.status != 200 || !bytes.HasPrefix(data, a.body) {
				t.Fatalf("status %d, %d bytes, %v, want right ones", a.status, len(a.body), a.err)
			}
			if whole := len(a.body) == len(data); whole != (from == 0) || whole != (a.err == nil) {
				t.Errorf("%d bytes, then %v", len(a.body), a.err)
			}
			disk.from.Store(-1)
			rest := b.get(blobPath(dgst), "Range", "bytes=2097152-")
			if rest.status != 206 || !bytes.Equal(rest.body, data[2<<20:]) {
				t.Errorf("rest: status %d, %d bytes", rest.status, len(rest.body))
			}
			b.settle(dgst)
			if again := b.get(blobPath(dgst)); again.header.Get(CacheHeader) != "hit" || digest.FromBytes(again.body) != dgst {
				t.Errorf("in the end: %q, %d bytes, want a hit", again.header.Get(CacheHeader), len(again.body))
			}
		})
	}
}

// TestReadOnlyDisk answers everything from upstream, HEAD before GET and ranges
// too, and the ping as ever.
func TestReadOnlyDisk(t *testing.T) {
	t.Parallel()
	disk := disktest.NewFaulty(cache.OSDisk())
	b := newBench(t, func(s *setup) { s.disk = disk })
	img := remotestest.Build(remotestest.ImageSpec{Seed: 1, Layers: []int64{6 << 20}})
	b.up.PutImage("library/app", "1", img)
	disk.FailFrom(1, syscall.EROFS, disktest.Changes()...)
	for range 2 {
		if a := b.ask(http.MethodHead, manifestPath("1")); a.status != 200 || a.header.Get("Docker-Content-Digest") != img.Root.Digest.String() {
			t.Errorf("head: status %d", a.status)
		}
		for _, object := range []string{"1", img.Root.Digest.String()} {
			if a := b.get(manifestPath(object)); a.header.Get(CacheHeader) != "miss" || digest.FromBytes(a.body) != img.Root.Digest {
				t.Errorf("manifest %s: %q, %d bytes", object, a.header.Get(CacheHeader), len(a.body))
			}
		}
		for _, blob := range img.Blobs {
			if a := b.get(blobPath(blob.Descriptor.Digest)); !bytes.Equal(a.body, blob.Data) {
				t.Errorf("blob: %d bytes, want %d", len(a.body), len(blob.Data))
			}
			at := len(blob.Data) / 2
			if a := b.get(blobPath(blob.Descriptor.Digest), "Range", fmt.Sprintf("bytes=%d-", at)); a.status != 206 || !bytes.Equal(a.body, blob.Data[at:]) {
				t.Errorf("half a blob: status %d, %d bytes, want %d", a.status, len(a.body), len(blob.Data)-at)
			}
		}
	}
	if a := b.get("/v2/"); string(a.body) != "{}" {
		t.Errorf("ping: %s", a.body)
	}
}

// TestTooMuchPassedThrough: who cannot be passed through gets a refusal that
// sends it elsewhere, and says whose limit it was.
func TestTooMuchPassedThrough(t *testing.T) {
	t.Parallel()
	disk := disktest.NewFaulty(cache.OSDisk())
	b := newBench(t, func(s *setup) { s.disk = disk })
	disk.FailFrom(1, syscall.EROFS, disktest.Changes()...)
	for i := range byte(16) {
		conn, err := (&net.Dialer{}).DialContext(soon(t), "tcp", b.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		dgst := b.up.PutBlob("library/app", noise(10+i, 16<<20)).Digest
		if _, err := io.WriteString(conn, "GET "+blobPath(dgst)+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 1024)); err != nil { // and takes no more
			t.Fatal(err)
		}
	}
	one := b.up.PutBlob("library/app", noise(1, 16<<20)).Digest
	a := b.ask(http.MethodGet, blobPath(one))
	if a.status != http.StatusServiceUnavailable || a.entry().Code != "UNAVAILABLE" {
		t.Errorf("status %d, %.300s, want 503", a.status, a.body)
	}
	if want := "larder cannot store it, and passes as much through already as it may"; !bytes.Contains(a.body, []byte(want)) {
		t.Errorf("refusal is %s, want %q", a.body, want)
	}
}
