package integration

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/larder-project/larder/integration/internal/disks"
	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// driveBench is a larder on a drive, with one blob stored and an upstream.
func driveBench(t *testing.T) (*disks.Drive, *disks.Disk, *parts.Larder, *remotestest.Registry) {
	t.Helper()
	drive := disks.NewDrive(t, 64<<20)
	disk := disks.New(t, disks.Options{Kind: disks.Ext4, Backing: drive.File()})
	b := newBench(t, "larder")
	upstream := remotestest.New(t)
	l, err := parts.NewLarder(b.bin, b.dir, impatient+noCompanions+dockerHub(upstream.URL())+"[scrub]\nverify_on_read = \"boot\"\n")
	if err == nil {
		err = l.SetRoot(filepath.Join(disk.Path, "store"))
	}
	if err == nil {
		err = l.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	b.cleanup(l.Close)
	b.logOnFailure("larder", l.Log)
	return drive, disk, l, upstream
}

// store pulls a blob until it is a hit.
func store(t *testing.T, url string) {
	t.Helper()
	eventually(t, "the blob is stored", func() bool { return get(t, url).cache() == "hit" })
}

// A drive says that it has a blob's bytes, and has not when the power comes
// back. Larder may have lost the blob; it may not hand out what is there now.
func TestDriveLies(t *testing.T) {
	t.Parallel()
	drive, disk, l, upstream := driveBench(t)
	data := noise(980, 2<<20)
	desc := upstream.PutBlob(diskRepo, data)
	url := blobURL(l.URL, diskRepo, desc.Digest)
	drive.Set(disks.Fault{DropFlushes: true})
	store(t, url)
	if err := l.Kill(); err != nil {
		t.Fatal(err)
	}
	unix.Sync() // metadata as well; the drive says yes to all of it
	disk.PowerCycle(drive, func(op disks.Op) bool { return !bytes.Contains(op.Data, data[1<<20:1<<20+4096]) })
	drive.Set(disks.Fault{})
	path := filepath.Join(l.Root(), "blobs", "sha256", desc.Digest.Encoded())
	if now, err := os.ReadFile(path); err != nil || len(now) != len(data) || digest.FromBytes(now) == desc.Digest {
		t.Fatalf("%d bytes, %v: the drive did not lie, so this test shows nothing", len(now), err)
	}
	// It was published in this boot: as after one, it must be older.
	old := time.Now().Add(-24 * time.Hour)
	if err := errors.Join(os.Chtimes(path, old, old), l.Start(t.Context())); err != nil {
		t.Fatal(err)
	}
	if a, err := fetch(t.Context(), http.MethodGet, url); err == nil && a.bodyErr == nil && a.status == http.StatusOK && a.digest != desc.Digest {
		t.Errorf("a wrong body ended cleanly: %v", a)
	}
	eventually(t, "the blob is right again", func() bool { return get(t, url).whole(desc.Digest) })
	verifyStore(t, l)
}
