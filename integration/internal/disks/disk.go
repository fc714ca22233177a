package disks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Kind is a file system with the options that matter for what a crash leaves.
type Kind string

// Kinds of file systems.
const (
	Ext4 Kind = "ext4"
	// Ext4Late writes its journal every five minutes instead of five seconds,
	// and does not guess which files want to be whole: what larder does not
	// sync is not there.
	Ext4Late Kind = "ext4 commit=300"
	XFS      Kind = "xfs"
)

// Kinds are all kinds that lose power in [Disk.Cut].
func Kinds() []Kind { return []Kind{Ext4, Ext4Late, XFS} }

func (k Kind) fileSystem() string { return strings.Fields(string(k))[0] }

func (k Kind) mountOptions() string {
	switch k {
	case Ext4Late:
		return "commit=300,noauto_da_alloc,errors=remount-ro"
	case XFS:
		return "nouuid" // a copy of a disk has its UUID
	default:
		return "errors=remount-ro"
	}
}

// Options of a disk.
type Options struct {
	Kind Kind
	// Size in bytes; 512 MiB if 0. Files of disks are sparse.
	Size int64
	// Inodes of an ext4; as mkfs likes if 0.
	Inodes int
	// Backing is the file that holds the file system, such as that of a Drive.
	// It is made if it is empty.
	Backing string
	// Formatted says that Backing holds a file system already.
	Formatted bool
}

// Disk is a file system in a file, mounted at Path.
type Disk struct {
	Path string

	t       testing.TB
	o       Options
	backing *os.File
	loop    *os.File
	mounted bool
}

// New makes a disk and mounts it. It and its loop device go when the test ends.
func New(t testing.TB, o Options) *Disk {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("NOT TESTED: broken disks; mounting one needs root")
	}
	if o.Size == 0 {
		o.Size = 512 << 20
	}
	d := &Disk{t: t, o: o, Path: filepath.Join(t.TempDir(), "disk")}
	d.must(os.Mkdir(d.Path, 0o700))
	d.openBacking()
	if !o.Formatted {
		d.format()
	}
	d.Attach()
	d.must(d.mount())
	t.Cleanup(d.close)
	return d
}

func (d *Disk) openBacking() {
	d.t.Helper()
	var err error
	if d.o.Backing != "" {
		d.backing, err = os.OpenFile(d.o.Backing, os.O_RDWR, 0)
		d.must(err)
		return
	}
	d.o.Backing = filepath.Join(filepath.Dir(d.Path), "image")
	d.backing, err = os.OpenFile(d.o.Backing, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	d.must(err)
	d.must(d.backing.Truncate(d.o.Size))
}

func (d *Disk) format() {
	d.t.Helper()
	args := []string{"-q", "-F", "-E", "nodiscard"}
	if d.o.Inodes > 0 {
		args = append(args, "-N", strconv.Itoa(d.o.Inodes))
	}
	if d.o.Kind == XFS {
		args = []string{"-q", "-f", "-K"}
	}
	d.run("mkfs."+d.o.Kind.fileSystem(), append(args, d.o.Backing)...)
}

// Attach gives the disk a loop device, a new one if it has one already.
func (d *Disk) Attach() {
	d.t.Helper()
	if d.loop != nil {
		d.must(d.loop.Close())
	}
	var err error
	d.loop, err = attach(d.backing)
	d.must(err)
}

func (d *Disk) mount() error {
	if err := unix.Mount(d.loop.Name(), d.Path, d.o.Kind.fileSystem(), 0, d.o.Kind.mountOptions()); err != nil {
		return err
	}
	d.mounted = true
	return nil
}

// Mount mounts the disk again, which replays its journal.
func (d *Disk) Mount() {
	d.t.Helper()
	d.must(d.mount())
}

// Unmount takes the file system away. Nobody may have a file of it open for
// longer than a moment.
func (d *Disk) Unmount() {
	d.t.Helper()
	d.must(d.unmount())
}

// unmount waits a little for those who have been killed and hold files yet, and for
// the file system to end: a container that is begun at that moment has a copy of all
// mounts, and keeps it alive.
func (d *Disk) unmount() error {
	if !d.mounted {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := untilFree(ctx, func() error { return unix.Unmount(d.Path, unix.UMOUNT_NOFOLLOW) }); err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	d.mounted = false
	if err := untilFree(ctx, d.isReleased); err != nil {
		return fmt.Errorf("unmounted, but somebody has a copy of the mount: %w", err)
	}
	return nil
}

// untilFree repeats what fails for others' use of the disk.
func untilFree(ctx context.Context, try func() error) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// isReleased fails with EBUSY while the device holds a living file system. A child
// that is begun meanwhile would keep what is opened here until it runs its program,
// and with it the device from being mounted.
func (d *Disk) isReleased() error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := unix.Open(d.loop.Name(), unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// Detach takes the file system out of the tree of folders while files of it are
// open, as `umount -l` does: paths lead below it from now on.
func (d *Disk) Detach() {
	d.t.Helper()
	d.must(unix.Unmount(d.Path, unix.MNT_DETACH))
	d.mounted = false
}

// Check has the file system's own checker look at it, without a change. The
// disk must not be in use.
func (d *Disk) Check() {
	d.t.Helper()
	d.Unmount()
	if d.o.Kind == XFS {
		d.run("xfs_repair", "-n", d.loop.Name())
	} else {
		d.run("e2fsck", "-f", "-n", d.loop.Name())
	}
	d.Mount()
}

// close takes everything away, by force if it must be, which is a failure.
func (d *Disk) close() {
	if err := d.unmount(); err != nil {
		d.t.Errorf("disk %s: unmount: %v", d.Path, err)
		_ = unix.Unmount(d.Path, unix.MNT_DETACH)
	}
	if err := errors.Join(d.loop.Close(), d.backing.Close()); err != nil {
		d.t.Errorf("disk %s: %v", d.Path, err)
	}
}

func (d *Disk) run(program string, args ...string) {
	d.t.Helper()
	out, err := exec.CommandContext(d.t.Context(), program, args...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		d.t.Fatalf("%v: `make deps` installs it", err)
	}
	if err != nil {
		d.t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
}

func (d *Disk) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatalf("disk %s (%s): %v", d.Path, d.o.Kind, err)
	}
}
