package disks

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From the kernel's ext4 and xfs, which share it: stop at once, and do not even
// write what is in the journal's buffers.
const (
	ioctlShutdown  = 0x8004587d
	withoutFlushed = 2
)

// Cut takes the power away: what was not synced is lost, and every call fails
// with EIO until [Disk.Revive].
func (d *Disk) Cut() {
	d.t.Helper()
	dir, err := os.Open(d.Path)
	d.must(err)
	defer dir.Close()
	flags := uint32(withoutFlushed)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), ioctlShutdown, uintptr(unsafe.Pointer(&flags)))
	if errno != 0 {
		d.must(errno)
	}
}

// Revive is the start after a cut. Who had files open must have ended.
//
// A container that is begun at that moment has a copy of all mounts, and with it the
// file system as it was cut: it is mounted anew until it is another one.
func (d *Disk) Revive() {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		d.Unmount()
		d.Mount()
		if !d.isCut() {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			d.t.Fatalf("disk %s (%s): somebody has held the mount for 10 s", d.Path, d.o.Kind)
		}
	}
}

// isCut tells whether the file system that is mounted is one that was cut.
func (d *Disk) isCut() bool {
	d.t.Helper()
	probe, err := os.CreateTemp(d.Path, "probe-*")
	if errors.Is(err, unix.EIO) {
		return true
	}
	d.must(err)
	d.must(errors.Join(probe.Close(), os.Remove(probe.Name())))
	return false
}

// BreakReadOnly has an ext4 find an error in itself, after which it refuses
// writes with EROFS, also to files that are open. A remount in the usual way
// would be refused while somebody writes.
func (d *Disk) BreakReadOnly() {
	d.t.Helper()
	trigger := filepath.Join("/sys/fs/ext4", filepath.Base(d.loop.Name()), "trigger_fs_error")
	d.must(os.WriteFile(trigger, []byte("made by a test"), 0))
}

// PowerCycle takes the power from the drive that the disk is on, and gives it
// back; keep as for [Drive.CutPower]. Who had files open must have ended.
func (d *Disk) PowerCycle(drive *Drive, keep func(Op) bool) {
	d.t.Helper()
	drive.CutPower(keep)
	d.Cut() // or the kernel would write its pages once the power is back
	d.Unmount()
	drive.PowerOn()
	d.Attach()
	d.Mount()
}
