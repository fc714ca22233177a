package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

// Disk is the file system that a folder is on. Sizes are in bytes.
type Disk struct {
	// Folder was looked at: the one that was asked for, or the nearest one above
	// it that exists.
	Folder             string
	Magic              int64 // f_type of statfs(2)
	Device             uint64
	Total, Free        int64 // Free is what is left for a daemon that is not root, as the kubelet counts
	Inodes, FreeInodes int64 // 0: the file system has no fixed number
}

// Look looks at the file system of a folder that need not exist yet.
func Look(folder string) (Disk, error) {
	for {
		d, err := look(folder)
		up := filepath.Dir(folder)
		if !errors.Is(err, fs.ErrNotExist) || up == folder {
			return d, err
		}
		folder = up
	}
}

func look(folder string) (Disk, error) {
	var at unix.Statfs_t
	if err := unix.Statfs(folder, &at); err != nil {
		return Disk{}, &fs.PathError{Op: "statfs", Path: folder, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Stat(folder, &st); err != nil {
		return Disk{}, &fs.PathError{Op: "stat", Path: folder, Err: err}
	}
	return Disk{
		Folder: folder, Magic: at.Type, Device: st.Dev,
		Total: size(at.Blocks, at.Bsize), Free: size(at.Bavail, at.Bsize),
		Inodes: int64(min(at.Files, math.MaxInt64)), FreeInodes: int64(min(at.Ffree, math.MaxInt64)),
	}, nil
}

func size(blocks uint64, block int64) int64 {
	if block <= 0 || blocks > uint64(math.MaxInt64/block) {
		return math.MaxInt64
	}
	return int64(blocks) * block
}

// fileSystem is what larder thinks of a kind of file system.
type fileSystem struct {
	name   string
	status Status
	why    string
}

// Magic numbers that package unix does not have; from linux/magic.h and the
// file systems' own headers.
const (
	magicBcachefs = 0xca451a4e
	magicZFS      = 0x2fc12fc1
	magicCeph     = 0x00c36400
	magicLustre   = 0x0bd00bd0
	magicGPFS     = 0x47504653
)

// kindOf says whether a store can live on a file system, by the magic number of
// statfs(2).
func kindOf(magic int64) fileSystem {
	const (
		memory  = "is in memory: the store is lost at reboot, and takes the memory of pods"
		network = "is on the network: images are not there when it is not, and locks and syncs may not hold"
		layer   = "is a layer of a container: the store is lost with that"
		fuse    = "is a program's (FUSE): whether it keeps what was synced is not known"
	)
	switch uint32(magic) {
	case unix.EXT4_SUPER_MAGIC:
		return fileSystem{"ext4", OK, ""}
	case unix.XFS_SUPER_MAGIC:
		return fileSystem{"xfs", OK, ""}
	case unix.BTRFS_SUPER_MAGIC:
		return fileSystem{"btrfs", OK, ""}
	case unix.F2FS_SUPER_MAGIC:
		return fileSystem{"f2fs", OK, ""}
	case magicBcachefs:
		return fileSystem{"bcachefs", OK, ""}
	case magicZFS:
		return fileSystem{"zfs", OK, ""}
	case unix.TMPFS_MAGIC:
		return fileSystem{"tmpfs", Problem, memory}
	case unix.RAMFS_MAGIC:
		return fileSystem{"ramfs", Problem, memory}
	case unix.NFS_SUPER_MAGIC:
		return fileSystem{"nfs", Problem, network}
	case unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC:
		return fileSystem{"smb", Problem, network}
	case unix.AFS_SUPER_MAGIC, unix.V9FS_MAGIC, magicCeph, magicLustre, magicGPFS, unix.OCFS2_SUPER_MAGIC:
		return fileSystem{"network file system", Problem, network}
	case unix.OVERLAYFS_SUPER_MAGIC:
		return fileSystem{"overlayfs", Warning, layer}
	case unix.FUSE_SUPER_MAGIC:
		return fileSystem{"fuse", Warning, fuse}
	}
	return fileSystem{fmt.Sprintf("type %#x", uint32(magic)), Unknown, "is of a kind that larder does not know"}
}

// Check says whether a store can live on the disk, of which minFree bytes are to
// stay free for others.
func (d Disk) Check(minFree int64) []Result {
	return []Result{d.checkKind(), d.checkSpace(minFree), d.checkInodes()}
}

func (d Disk) checkKind() Result {
	kind := kindOf(d.Magic)
	if kind.status == OK {
		return Fine("store disk", "%s on %s", d.Folder, kind.name)
	}
	return Bad(kind.status, "store disk", fmt.Sprintf("%s on %s %s", d.Folder, kind.name, kind.why),
		"set root to a folder on a local disk (ext4, xfs)")
}

const (
	scarce  = 10 // percent of a disk below which it is worth a warning
	nothing = 1  // percent below which the next pull may fail
)

// grade is a status for what is left.
func grade(free, total int64) Status {
	switch percent := float64(free) / float64(total) * 100; {
	case percent < nothing:
		return Problem
	case percent < scarce:
		return Warning
	}
	return OK
}

func (d Disk) checkSpace(minFree int64) Result {
	const check = "store space"
	if d.Total <= 0 {
		return Bad(Unknown, check, fmt.Sprintf("%s: the file system does not tell its size", d.Folder), "")
	}
	found := fmt.Sprintf("%s of %s free on the disk of %s", bytesText(d.Free), bytesText(d.Total), d.Folder)
	if status := grade(d.Free, d.Total); status != OK {
		return Bad(status, check, found, "free space, for instance with larder rm, or give the store a larger disk")
	}
	if d.Free < minFree {
		return Bad(Warning, check, fmt.Sprintf("%s, of which %s are to stay free ([space] min_free): larder evicts, and stores nothing once it has nothing left to evict", found, bytesText(minFree)),
			"free space of others on this disk, lower space.min_free, or set root to another disk")
	}
	return Fine(check, "%s", found)
}

func (d Disk) checkInodes() Result {
	const check = "store inodes"
	if d.Inodes <= 0 {
		return Fine(check, "the file system has no fixed number")
	}
	found := fmt.Sprintf("%s of %s free on the disk of %s", humanize.Comma(d.FreeInodes), humanize.Comma(d.Inodes), d.Folder)
	if status := grade(d.FreeInodes, d.Inodes); status != OK {
		return Bad(status, check, found, "remove small files from the disk, or make its file system anew with more inodes (mkfs -N)")
	}
	return Fine(check, "%s", found)
}

func bytesText(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }
