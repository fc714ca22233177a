package disks

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Drive is a drive whose electronics are in the hands of the test. What is
// written is first in its buffer and on the medium after a flush, as in a real
// one. File is the Backing of a [Disk]; end that disk before the drive is
// used otherwise.
type Drive struct {
	t    testing.TB
	file string

	mu       sync.Mutex // guards what follows
	awake    *sync.Cond // stalled or off changed
	buffer   *os.File   // what reads see
	medium   *os.File   // what a power cut leaves
	unsynced []Op
	fault    Fault
	off      bool
	record   bool
	log      []Op
}

// Fault is what is wrong with a drive. The zero value is a good one.
type Fault struct {
	// FailReads, FailWrites and FailFlushes end them with EIO.
	FailReads, FailWrites, FailFlushes bool
	// DropFlushes says yes to a flush and does nothing.
	DropFlushes bool
	// Stall holds every call until it is cleared.
	Stall bool
}

// Op is one write to a drive, or, if Data is nil, a flush.
type Op struct {
	Offset int64
	Data   []byte
}

// NewDrive makes a drive of so many bytes, all zero.
func NewDrive(t testing.TB, size int64) *Drive {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("NOT TESTED: broken drives; mounting one needs root")
	}
	dir := t.TempDir()
	d := &Drive{t: t}
	d.awake = sync.NewCond(&d.mu)
	d.buffer = sparse(t, filepath.Join(dir, "buffer"), size)
	d.medium = sparse(t, filepath.Join(dir, "medium"), size)
	mount := filepath.Join(dir, "drive")
	if err := os.Mkdir(mount, 0o700); err != nil {
		t.Fatal(err)
	}
	root := &driveRoot{node: &driveNode{drive: d, size: uint64(size)}}
	server, err := fs.Mount(mount, root, &fs.Options{
		MountOptions: fuse.MountOptions{FsName: "drive", DirectMountStrict: true, MaxWrite: 1 << 20},
	})
	if err != nil {
		t.Fatalf("drive: %v", err)
	}
	t.Cleanup(func() {
		d.Set(Fault{})
		d.powered(true)
		if err := server.Unmount(); err != nil {
			t.Errorf("drive: unmount: %v", err)
		}
		server.Wait()
	})
	d.file = filepath.Join(mount, driveName)
	return d
}

func sparse(t testing.TB, path string, size int64) *os.File {
	t.Helper()
	f, err := os.Create(path)
	if err == nil {
		err = f.Truncate(size)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// File is the drive as a file.
func (d *Drive) File() string { return d.file }

// Set makes f what is wrong with the drive, from now on.
func (d *Drive) Set(f Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = f
	d.awake.Broadcast()
}

// CutPower loses what is in the buffer, except for what keep chooses; it keeps
// nothing if it is nil. Until [Drive.PowerOn], calls fail.
func (d *Drive) CutPower(keep func(Op) bool) {
	d.t.Helper()
	d.powered(false)
	d.mu.Lock()
	defer d.mu.Unlock()
	lost := d.unsynced
	d.unsynced = nil
	for _, op := range lost {
		if keep != nil && keep(op) {
			if _, err := d.medium.WriteAt(op.Data, op.Offset); err != nil {
				d.t.Fatal(err)
			}
		}
	}
	for _, op := range lost {
		old := make([]byte, len(op.Data))
		if _, err := d.medium.ReadAt(old, op.Offset); err != nil {
			d.t.Fatal(err)
		}
		if _, err := d.buffer.WriteAt(old, op.Offset); err != nil {
			d.t.Fatal(err)
		}
	}
}

// PowerOn has the drive work again.
func (d *Drive) PowerOn() { d.powered(true) }

func (d *Drive) powered(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off = !on
	d.awake.Broadcast()
}

// Unsynced is how many writes a power cut would lose now.
func (d *Drive) Unsynced() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.unsynced)
}

// Record has the drive remember all that it is told from now on. Copy the
// medium before with [Drive.Image], and lay the log, or part of it, over that.
func (d *Drive) Record() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.record, d.log = true, nil
}

// Log is what the drive was told since Record, in order.
func (d *Drive) Log() []Op {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]Op(nil), d.log...)
}

// enter waits while the drive stalls, and locks it. It tells whether the call
// fails because the power is off.
func (d *Drive) enter() (off bool) {
	d.mu.Lock()
	for d.fault.Stall && !d.off {
		d.awake.Wait()
	}
	return d.off
}

func (d *Drive) read(p []byte, at int64) error {
	off := d.enter()
	defer d.mu.Unlock()
	if off || d.fault.FailReads {
		return errBroken
	}
	_, err := d.buffer.ReadAt(p, at)
	return err
}

func (d *Drive) write(p []byte, at int64) error {
	off := d.enter()
	defer d.mu.Unlock()
	if off || d.fault.FailWrites {
		return errBroken
	}
	if _, err := d.buffer.WriteAt(p, at); err != nil {
		return err
	}
	op := Op{Offset: at, Data: append([]byte{}, p...)}
	d.unsynced = append(d.unsynced, op)
	d.note(op)
	return nil
}

func (d *Drive) flush() error {
	off := d.enter()
	defer d.mu.Unlock()
	if off || d.fault.FailFlushes {
		return errBroken
	}
	d.note(Op{})
	if d.fault.DropFlushes {
		return nil
	}
	for _, op := range d.unsynced {
		if _, err := d.medium.WriteAt(op.Data, op.Offset); err != nil {
			return err
		}
	}
	d.unsynced = nil
	return nil
}

func (d *Drive) note(op Op) {
	if d.record {
		d.log = append(d.log, op)
	}
}
