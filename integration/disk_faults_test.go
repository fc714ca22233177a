package integration

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-project/larder/integration/internal/disks"
	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// diskFault is one way in which the disk below a larder that runs fails.
type diskFault struct {
	// begin has it fail and returns how to mend it. hits is how often it bit,
	// if that can be counted.
	begin func(t *testing.T, disk *disks.Disk, l *parts.Larder) (mend func(), hits func() int)
	// says is what larder's log has to name.
	says string
	// inodes of the disk; as mkfs likes if 0.
	inodes int
	// restart: the file system cannot be mended while it is in use.
	restart bool
}

func injected(what ...string) func(*testing.T, *disks.Disk, *parts.Larder) (func(), func() int) {
	return func(t *testing.T, _ *disks.Disk, l *parts.Larder) (func(), func() int) {
		in := disks.Inject(t, l.PID(), what...)
		return in.Stop, in.Hits
	}
}

func diskFaults() map[string]diskFault {
	once := func() int { return 1 } // seen by its effect on the disk itself
	return map[string]diskFault{
		"full": {says: "no space left on device", begin: func(_ *testing.T, d *disks.Disk, _ *parts.Larder) (func(), func() int) {
			d.Fill(1 << 20)
			return d.Empty, once
		}},
		"no inodes": {says: "no space left on device", inodes: 96, begin: func(_ *testing.T, d *disks.Disk, _ *parts.Larder) (func(), func() int) {
			d.FillInodes(0)
			return d.EmptyInodes, once
		}},
		"blobs immutable": {says: "operation not permitted", begin: func(t *testing.T, _ *disks.Disk, l *parts.Larder) (func(), func() int) {
			set := func(on bool) {
				if err := disks.Immutable(l.Root()+"/blobs/sha256", on); err != nil {
					t.Error(err)
				}
			}
			set(true)
			return func() { set(false) }, once
		}},
		"read-only": {says: "read-only file system", restart: true, begin: func(_ *testing.T, d *disks.Disk, _ *parts.Larder) (func(), func() int) {
			d.BreakReadOnly()
			return d.Revive, once
		}},
		"fsync fails":            {says: "input/output error", begin: injected("fsync:error=EIO")},
		"fsync of the index":     {says: "input/output error", begin: injected("fdatasync:error=EIO")},
		"writes fail":            {says: "input/output error", begin: injected("pwrite64:error=EIO")},
		"rename to another disk": {says: "invalid cross-device link", begin: injected("renameat:error=EXDEV", "renameat2:error=EXDEV")},
		"rename not permitted":   {says: "operation not permitted", begin: injected("renameat:error=EPERM", "renameat2:error=EPERM")},
		"folders on a read-only": {says: "read-only file system", begin: injected("mkdirat:error=EROFS")},
		"too many open files":    {says: "too many open files", begin: injected("openat:error=EMFILE")},
	}
}

// diskBench is a larder on a disk of its own, with one image stored.
type diskBench struct {
	t        *testing.T
	disk     *disks.Disk
	l        *parts.Larder
	upstream *remotestest.Registry
	stored   remotestest.Image
}

const diskRepo = "library/disk"

func newDiskBench(t *testing.T, o disks.Options) *diskBench {
	t.Helper()
	d := &diskBench{t: t, disk: disks.New(t, o), upstream: remotestest.New(t)}
	b := newBench(t, "larder")
	d.l = b.larderOn(d.disk.Path+"/store", impatient+noCompanions+dockerHub(d.upstream.URL()))
	d.stored = d.image("stored", 900)
	d.pull("stored", d.stored, true)
	eventually(t, "the first image is stored", func() bool { return d.isStored(d.stored) })
	run(t, d.l, "pin", "docker.io/"+diskRepo+":stored") // or it goes to make room
	return d
}

// larderOn starts a larder with its store at root.
func (b *bench) larderOn(root, extra string) *parts.Larder {
	b.t.Helper()
	l, err := parts.NewLarder(b.bin, b.dir, extra)
	if err == nil {
		err = l.SetRoot(root)
	}
	if err == nil {
		err = l.Start(b.t.Context())
	}
	if err != nil {
		b.t.Fatal(err)
	}
	b.cleanup(l.Close)
	b.logOnFailure("larder", l.Log)
	return l
}

// image makes an image known upstream: one layer that larder holds back until
// it is verified, one that it passes on as it comes.
func (d *diskBench) image(tag string, seed uint64) remotestest.Image {
	img := remotestest.Build(remotestest.ImageSpec{Seed: seed, Layers: []int64{300_000, 6 << 20}})
	d.upstream.PutImage(diskRepo, tag, img)
	return img
}

// pull pulls an image as containerd does. What it gets is right or fails; with
// served, all of it has to be right.
func (d *diskBench) pull(tag string, img remotestest.Image, served bool) {
	d.t.Helper()
	d.get(manifestURL(d.l.URL, diskRepo, tag), img.Root.Digest, served)
	for _, b := range img.Blobs {
		d.get(blobURL(d.l.URL, diskRepo, b.Descriptor.Digest), b.Descriptor.Digest, served)
	}
}

func (d *diskBench) get(url string, dgst digest.Digest, served bool) {
	d.t.Helper()
	a, err := fetch(d.t.Context(), http.MethodGet, url)
	switch {
	case err == nil && a.whole(dgst):
	case err == nil && a.status == http.StatusOK && a.bodyErr == nil:
		d.t.Errorf("%s: a wrong body ended cleanly: %v", url, a)
	case served:
		d.t.Errorf("%s: got %v, %v; want it served from upstream", url, a, err)
	}
	if a.took > answerLimit {
		d.t.Errorf("%s: header after %v", url, a.took)
	}
}

// isStored tells whether every blob of an image is published.
func (d *diskBench) isStored(img remotestest.Image) bool {
	for _, desc := range img.Descriptors() {
		if !published(d.l, desc.Digest) {
			return false
		}
	}
	return true
}

// checkMended pulls what the fault came into, and wants larder to be as it was.
func (d *diskBench) checkMended(fds int, images map[string]remotestest.Image) {
	d.t.Helper()
	for tag, img := range images {
		eventually(d.t, "after the fault, an image is stored", func() bool {
			for _, b := range img.Blobs {
				_, _ = fetch(d.t.Context(), http.MethodGet, blobURL(d.l.URL, diskRepo, b.Descriptor.Digest))
			}
			_, _ = fetch(d.t.Context(), http.MethodGet, manifestURL(d.l.URL, diskRepo, tag))
			return d.isStored(img)
		})
		d.pull(tag, img, true)
	}
	d.upstream.Stop()
	d.pull("stored", d.stored, true)
	d.upstream.Start()
	wantNoIngests(d.t, d.l)
	verifyStore(d.t, d.l)
	eventually(d.t, fmt.Sprintf("no more than the %d files open before", fds), func() bool { return openStoreFiles(d.t, d.l) <= fds })
}

// openStoreFiles is how many files of its store a larder has open; connections come
// and go.
func openStoreFiles(t *testing.T, l *parts.Larder) (n int) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", l.PID())
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, err := os.Readlink(dir + "/" + e.Name()); err == nil && strings.HasPrefix(to, l.Root()) {
			n++
		}
	}
	return n
}

// Whatever its disk does, larder never ends a wrong body cleanly, answers in
// time, says what is wrong, and is as before once the disk works again.
func TestDiskFaults(t *testing.T) {
	t.Parallel()
	for name, f := range diskFaults() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDiskBench(t, disks.Options{Kind: disks.Ext4, Size: 64 << 20, Inodes: f.inodes})
			fds := openStoreFiles(t, d.l)
			blobs := verifyStore(t, d.l)

			mend, hits := f.begin(t, d.disk, d.l)
			during := map[string]remotestest.Image{}
			begun := time.Now()
			for n := range 2 {
				tag := fmt.Sprintf("during-%d", n)
				during[tag] = d.image(tag, 910+uint64(n))
				d.pull(tag, during[tag], true)
			}
			d.pull("stored", d.stored, true)
			t.Logf("%d faults in %v", hits(), time.Since(begun).Round(time.Millisecond))
			if hits() == 0 {
				t.Error("the fault did not bite: this test shows nothing")
			}
			if !strings.Contains(d.l.Log(), f.says) {
				t.Errorf("larder's log does not say %q", f.says)
			}
			if after := verifyStore(t, d.l); after < blobs {
				t.Errorf("%d blobs, %d before", after, blobs)
			}

			if f.restart {
				if err := d.l.Close(); err != nil {
					t.Error(err)
				}
			}
			mend()
			if f.restart {
				if err := d.l.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			d.checkMended(fds, during)
		})
	}
}

// Bytes whose fsync failed are never visible, even if the next fsync would not
// complain: the kernel has dropped the pages by then.
func TestFsyncFailsOnce(t *testing.T) {
	t.Parallel()
	d := newDiskBench(t, disks.Options{Kind: disks.Ext4})
	in := disks.Inject(t, d.l.PID(), "fsync:error=EIO")
	desc := d.upstream.PutBlob(diskRepo, noise(920, 2<<20))
	url := blobURL(d.l.URL, diskRepo, desc.Digest)
	d.get(url, desc.Digest, false)
	eventually(t, "the fsync of the bytes failed, and not the index's alone", func() bool {
		return strings.Contains(d.l.Log(), `msg="fill not published" digest=`+desc.Digest.String())
	})
	in.Stop()
	if published(d.l, desc.Digest) {
		t.Error("published, although its fsync failed")
	}
	d.get(url, desc.Digest, true)
	eventually(t, "it is published once an fsync works", func() bool { return published(d.l, desc.Digest) })
	if n := d.upstream.Count(http.MethodGet, desc.Digest.Encoded()); n != 2 {
		t.Errorf("upstream saw %d GETs, want 2: bytes whose fsync failed are not to be used", n)
	}
}
