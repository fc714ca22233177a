package integration

import (
	"os"
	"testing"

	"github.com/larder-project/larder/integration/internal/disks"
	"github.com/larder-project/larder/remotes/remotestest"
)

// The disk is unmounted while larder runs. What is below its mount point belongs
// to another file system, and nothing may be written there.
func TestDiskUnmounted(t *testing.T) {
	t.Parallel()
	d := newDiskBench(t, disks.Options{Kind: disks.Ext4})
	fds := openStoreFiles(t, d.l)
	d.disk.Detach()
	during := map[string]remotestest.Image{"during": d.image("during", 930)}
	d.pull("during", during["during"], true)
	d.pull("stored", d.stored, true)
	if entries, err := os.ReadDir(d.disk.Path); err != nil || len(entries) > 0 {
		t.Errorf("below the mount point: %v, %v; want nothing", entries, err)
	}
	d.disk.Mount()
	d.checkMended(fds, during)
}

// The store is deleted while larder runs. It goes on, and after a restart all is
// as on the first day.
func TestStoreDeleted(t *testing.T) {
	t.Parallel()
	d := newDiskBench(t, disks.Options{Kind: disks.Ext4})
	if err := os.RemoveAll(d.l.Root()); err != nil {
		t.Fatal(err)
	}
	during := map[string]remotestest.Image{"during": d.image("during", 940), "stored": d.stored}
	d.pull("during", during["during"], true)
	d.pull("stored", d.stored, true)
	if _, err := os.Stat(d.l.Root()); err == nil {
		t.Error("the store was made anew under the lock of the deleted one: a second daemon could take it")
	}
	if err := d.l.Close(); err != nil {
		t.Errorf("larder without its store: %v", err)
	}
	if err := d.l.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.checkMended(openStoreFiles(t, d.l), during)
}
