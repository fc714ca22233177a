package integration

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larder-project/larder/integration/internal/disks"
	"github.com/larder-project/larder/remotes/remotestest"
)

// The drive below the store fails every read, and what is stored is not in memory
// any more: it is fetched from upstream, nobody gets a wrong byte, and larder
// stores again when the drive is well.
func TestDriveFailsReads(t *testing.T) {
	t.Parallel()
	drive := disks.NewDrive(t, 128<<20)
	d := newDiskBench(t, disks.Options{Kind: disks.Ext4, Backing: drive.File()})
	good := d.timed()
	unix.Sync()
	dropPages(t, d.l.Root())
	drive.Set(disks.Fault{FailReads: true})
	bad := d.timed()
	t.Logf("the slowest answer took %v, and %v from a drive that works", bad, good)
	for n := range 3 {
		d.pull("stored", d.stored, true)
		tag := fmt.Sprintf("during-%d", n)
		d.pull(tag, d.image(tag, 950+uint64(n)), true)
	}
	drive.Set(disks.Fault{})
	if log := d.l.Log(); !strings.Contains(log, "input/output error") {
		t.Error("larder's log does not say that the drive fails: this test shows nothing")
	}
	eventually(t, "the image is stored anew", func() bool {
		for _, b := range d.stored.Blobs {
			_, _ = fetch(t.Context(), http.MethodGet, blobURL(d.l.URL, diskRepo, b.Descriptor.Digest))
		}
		_, _ = fetch(t.Context(), http.MethodGet, manifestURL(d.l.URL, diskRepo, "stored"))
		return d.isStored(d.stored)
	})
	verifyStore(t, d.l)
}

// What a stored layer begins with is in memory, and the drive does not give the
// rest: the connection is cut, and who asks again has it from upstream. The kernel
// sends such a layer by itself.
func TestDriveFailsAmidAnAnswer(t *testing.T) {
	t.Parallel()
	drive := disks.NewDrive(t, 128<<20)
	d := newDiskBench(t, disks.Options{Kind: disks.Ext4, Backing: drive.File()})
	dgst := largest(d.stored).Digest
	unix.Sync()
	dropPages(t, d.l.Root())
	readFirstPage(t, filepath.Join(d.l.Root(), "blobs", "sha256", dgst.Encoded()))
	drive.Set(disks.Fault{FailReads: true})
	url := blobURL(d.l.URL, diskRepo, dgst)
	a, err := fetch(t.Context(), http.MethodGet, url)
	if err != nil || a.bodyErr == nil || a.whole(dgst) {
		t.Errorf("layer of which one page is left: got %v, %v; want it cut: this test shows nothing", a, err)
	}
	d.get(url, dgst, true)
	drive.Set(disks.Fault{})
	eventually(t, "it is stored anew", func() bool {
		_, _ = fetch(t.Context(), http.MethodGet, url)
		return published(d.l, dgst)
	})
	verifyStore(t, d.l)
}

// readFirstPage has the kernel remember the first page of a file, and no more.
func readFirstPage(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(make([]byte, 1), 0); err != nil {
		t.Fatal(err)
	}
}

// timed pulls the stored image and returns how long its slowest answer took.
func (d *diskBench) timed() (slowest time.Duration) {
	d.t.Helper()
	for _, b := range d.stored.Blobs {
		begun := time.Now()
		d.get(blobURL(d.l.URL, diskRepo, b.Descriptor.Digest), b.Descriptor.Digest, true)
		slowest = max(slowest, time.Since(begun).Round(time.Microsecond))
	}
	return slowest
}

// dropPages has the kernel forget what it has of the blobs of a store.
func dropPages(t *testing.T, root string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "blobs", "sha256", "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no blobs: %v", err)
	}
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
			t.Error(err)
		}
		f.Close()
	}
}

// The store's disk turns read-only while a real containerd pulls a layer, and
// stays so for the next pull: containerd gets both images from larder and from
// nobody else, and status says what is wrong.
func TestContainerdPullsWhileDiskTurnsReadOnly(t *testing.T) {
	t.Parallel()
	disk := disks.New(t, disks.Options{Kind: disks.Ext4})
	b := newBench(t, "larder", "containerd", "ctr")
	upstream := remotestest.New(t)
	l := b.larderOn(filepath.Join(disk.Path, "store"), strings.Replace(impatient, "[upstream]\n", "[upstream]\nparallel = 1\n", 1)+noCompanions+routeFor(closedHost, upstream.URL()))
	certs := b.certs(l)
	c := b.containerd(certs, false)
	const size = 24 << 20
	first := remotestest.Build(remotestest.ImageSpec{Seed: 960, Layers: []int64{size}})
	second := remotestest.Build(remotestest.ImageSpec{Seed: 961, Layers: []int64{size}})
	upstream.PutImage("library/app", "1", first)
	upstream.PutImage("library/app", "2", second)
	gate := make(chan struct{})
	upstream.Fault(remotestest.Digest(largest(first).Digest), remotestest.Gate(size/2, gate))
	pulled := make(chan error, 1)
	go func() {
		_, err := c.Ctr(t.Context(), pullArgs(closedHost+"/library/app:1", certs, false)...)
		pulled <- err
	}()
	eventually(t, "half of the layer has come", func() bool { return ingestBytes(l.Root()) >= size/2 })
	disk.BreakReadOnly()
	close(gate)
	if err := <-pulled; err != nil {
		t.Errorf("pull amid which the disk turned read-only: %v", err)
	}
	if _, err := c.Ctr(t.Context(), pullArgs(closedHost+"/library/app:2", certs, false)...); err != nil {
		t.Errorf("pull with a read-only disk: %v", err)
	}
	if n := upstream.Count(http.MethodGet, largest(first).Digest.Encoded()); n != 1 {
		t.Errorf("upstream saw %d GETs of the layer, want 1: the pull goes on where it was", n)
	}
	out, err := l.Run(t.Context(), "status")
	if err != nil || !strings.Contains(out, "degraded for") || !strings.Contains(out, "read-only file system") {
		t.Errorf("status: %v\n%s", err, out)
	}
	verifyStore(t, l)
}

// ingestBytes is how much of unfinished blobs is in a store.
func ingestBytes(root string) (n int64) {
	files, _ := filepath.Glob(filepath.Join(root, "ingest", "*", "data")) // the pattern is right
	for _, f := range files {
		if fi, err := os.Stat(f); err == nil {
			n += fi.Size()
		}
	}
	return n
}
