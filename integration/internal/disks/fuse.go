package disks

import (
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

const (
	driveName = "medium"
	errBroken = syscall.EIO
)

// driveRoot is a folder with one file, the drive.
type driveRoot struct {
	fs.Inode
	node *driveNode
}

var _ fs.NodeOnAdder = (*driveRoot)(nil)

func (r *driveRoot) OnAdd(ctx context.Context) {
	r.AddChild(driveName, r.NewPersistentInode(ctx, r.node, fs.StableAttr{Mode: fuse.S_IFREG}), false)
}

type driveNode struct {
	fs.Inode
	drive *Drive
	size  uint64
}

var (
	_ fs.NodeGetattrer = (*driveNode)(nil)
	_ fs.NodeOpener    = (*driveNode)(nil)
	_ fs.NodeReader    = (*driveNode)(nil)
	_ fs.NodeWriter    = (*driveNode)(nil)
	_ fs.NodeFsyncer   = (*driveNode)(nil)
)

func (n *driveNode) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size = fuse.S_IFREG|0o600, n.size
	return 0
}

// Open has the kernel keep no pages of the drive: it must see each call.
func (n *driveNode) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (n *driveNode) Read(_ context.Context, _ fs.FileHandle, p []byte, at int64) (fuse.ReadResult, syscall.Errno) {
	p = p[:max(0, min(int64(len(p)), int64(n.size)-at))]
	if err := n.drive.read(p, at); err != nil {
		return nil, fs.ToErrno(err)
	}
	return fuse.ReadResultData(p), 0
}

func (n *driveNode) Write(_ context.Context, _ fs.FileHandle, p []byte, at int64) (uint32, syscall.Errno) {
	if err := n.drive.write(p, at); err != nil {
		return 0, fs.ToErrno(err)
	}
	return uint32(len(p)), 0
}

func (n *driveNode) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	return fs.ToErrno(n.drive.flush())
}
