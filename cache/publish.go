package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// publish makes the verified bytes the blob dgst. The order is the promise of
// this package: mode, data on disk, name, folder on disk. It returns
// errdefs.ErrAlreadyExists, and drops the ingest, if the blob is there.
func (in *ingest) publish(ctx context.Context, dgst digest.Digest) error {
	target, err := in.store.blobPath(dgst)
	if err != nil {
		return err
	}
	if err := in.store.checkPlace(); err != nil {
		return fmt.Errorf("publish %s: %w", dgst, err)
	}
	if err := in.store.checkTarget(dgst, target); err != nil {
		if errdefs.IsAlreadyExists(err) {
			in.remove(ctx)
		}
		return fmt.Errorf("blob %s: %w", dgst, err)
	}
	if err := in.seal(ctx); err != nil {
		return fmt.Errorf("publish %s: %w", dgst, err)
	}
	if err := makeAlgorithmDir(in.store.disk, filepath.Dir(target)); err != nil {
		return fmt.Errorf("publish %s: %w", dgst, err)
	}
	in.store.usage.changing(dgst, 0)
	if err := in.store.disk.Rename(in.dataPath(), target); err != nil {
		in.store.usage.unchanged(dgst)
		return fmt.Errorf("publish %s: %w", dgst, err)
	}
	in.store.usage.published(dgst, in.blocks(), in.dir)
	in.remove(ctx) // what is left of it: notes
	if err := SyncFolder(in.store.disk, filepath.Dir(target)); err != nil {
		// It can be seen, and may be gone with the power: nobody may hear that it is
		// stored. See probe.
		in.store.noteUnreadable(dgst)
		return fmt.Errorf("publish %s: %w", dgst, err)
	}
	in.store.noteReadable(dgst)
	return nil
}

// blocks is what the whole file takes on disk.
func (in *ingest) blocks() int64 {
	fi, err := in.file.Stat()
	if err != nil {
		return in.offset // the next recount knows
	}
	return blocksOf(fi)
}

// checkTarget looks at what is in a blob's place. A link, fifo or socket that
// somebody planted there is replaced by the rename. A folder is not: it may
// hold something of worth, and it must be a person who removes it.
func (s *Store) checkTarget(dgst digest.Digest, path string) error {
	fi, err := s.disk.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case s.unreadable.has(dgst):
		return nil // the rename replaces it
	case fi.Mode().IsRegular():
		return errdefs.ErrAlreadyExists
	case fi.IsDir():
		return fmt.Errorf("its place %s is taken by a directory, remove that: %w", path, errdefs.ErrFailedPrecondition)
	default:
		s.logger.Warn("what is in a blob's place is no blob and is replaced", "path", path, "type", fi.Mode().Type())
		return nil
	}
}

// seal gives the file its final mode, time and size, all on disk.
func (in *ingest) seal(ctx context.Context) error {
	fi, err := in.file.Stat()
	if err != nil {
		return err
	}
	if fi.Size() != in.offset {
		in.remove(ctx)
		return fmt.Errorf("%d bytes on disk, %d were written: %w", fi.Size(), in.offset, errdefs.ErrDataLoss)
	}
	if err := in.file.Chmod(0o444); err != nil {
		return err
	}
	if err := in.file.SetTime(in.store.now()); err != nil {
		return err
	}
	if err := in.file.Sync(); err != nil {
		// After a failed fsync the kernel may drop the pages and report the
		// next one as fine. These bytes are not to be trusted again.
		in.remove(ctx)
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

func makeAlgorithmDir(d Disk, dir string) error {
	err := d.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return SyncFolder(d, filepath.Dir(dir))
}
