package doctor

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A folder that is not there yet is on the disk of the one above it.
func TestLook(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d, err := Look(filepath.Join(dir, "not", "yet"))
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if d.Folder != dir || d.Total <= 0 || d.Free <= 0 || d.Free > d.Total || d.Device != deviceOf(t, info) {
		t.Errorf("disk of a folder below %s: got %+v", dir, d)
	}
}

// /dev/shm is in memory on every Linux.
func TestStoreInMemory(t *testing.T) {
	t.Parallel()
	d, err := Look("/dev/shm/larder")
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "/dev/shm", d.Check(0)[:1], Problem, "tmpfs is in memory")
}

func TestKinds(t *testing.T) {
	t.Parallel()
	for magic, want := range map[int64]Status{
		unix.EXT4_SUPER_MAGIC: OK, unix.XFS_SUPER_MAGIC: OK, unix.BTRFS_SUPER_MAGIC: OK,
		unix.NFS_SUPER_MAGIC: Problem, unix.CIFS_SUPER_MAGIC: Problem, unix.V9FS_MAGIC: Problem, unix.RAMFS_MAGIC: Problem,
		unix.OVERLAYFS_SUPER_MAGIC: Warning, unix.FUSE_SUPER_MAGIC: Warning,
		0x1234: Unknown,
	} {
		// Magic numbers have 32 bits, and some platforms extend their sign.
		for _, m := range []int64{magic, int64(int32(magic))} {
			if r := (Disk{Folder: "/store", Magic: m}).checkKind(); r.Status != want {
				t.Errorf("magic %#x: got %+v, want %s", m, r, want)
			}
		}
	}
}

func TestSpaceAndInodes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		free, total int64
		want        Status
	}{{100, 1000, OK}, {99, 1000, Warning}, {10, 1000, Warning}, {9, 1000, Problem}, {0, 1000, Problem}} {
		d := Disk{Folder: "/store", Total: c.total << 20, Free: c.free << 20, Inodes: c.total, FreeInodes: c.free}
		for _, r := range []Result{d.checkSpace(0), d.checkInodes()} {
			if r.Status != c.want {
				t.Errorf("%d of %d free: got %+v, want %s", c.free, c.total, r, c.want)
			}
		}
	}
	if r := (Disk{}).checkSpace(0); r.Status != Unknown {
		t.Errorf("no size: got %+v, want unknown", r)
	}
	if r := (Disk{}).checkInodes(); r.Status != OK {
		t.Errorf("btrfs, without a number of inodes: got %+v, want ok", r)
	}
}

// TestMinFree: what is to stay free is more than there is, long before the disk is
// full.
func TestMinFree(t *testing.T) {
	t.Parallel()
	d := Disk{Folder: "/store", Total: 1000 << 20, Free: 190 << 20}
	expect(t, "19% free, 20% are to be", []Result{d.checkSpace(200 << 20)}, Warning, "200 MiB are to stay free ([space] min_free)")
	if r := d.checkSpace(190 << 20); r.Status != OK {
		t.Errorf("as much is free as is to be: got %+v, want ok", r)
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	if got := size(1<<60, 4096); got != 1<<63-1 {
		t.Errorf("more than an int64 holds: got %d", got)
	}
	if got := size(3, 4096); got != 12288 {
		t.Errorf("three blocks: got %d", got)
	}
}
