package disks

import (
	"os"
	"path/filepath"
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
func (d *Disk) Revive() {
	d.t.Helper()
	d.Unmount()
	d.Mount()
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
