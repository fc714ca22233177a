package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

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
	if err := in.store.checkTarget(target); err != nil {
		if errdefs.IsAlreadyExists(err) {
			in.remove(ctx)
		}
		return fmt.Errorf("blob %s: %w", dgst, err)
	}
	if err := in.seal(ctx); err != nil {
		return fmt.Errorf("publish %s: %w", dgst, err)
	}
	if err := makeAlgorithmDir(filepath.Dir(target)); err != nil {
		return fmt.Errorf("publish %s: %w", dgst, err)
	}
	if err := os.Rename(in.dataPath(), target); err != nil {
		return fmt.Errorf("publish %s: %w", dgst, err)
	}
	in.remove(ctx) // what is left of it: notes
	if err := syncDir(filepath.Dir(target)); err != nil {
		return fmt.Errorf("publish %s: %w", dgst, err)
	}
	return nil
}

// checkTarget looks at what is in a blob's place. A link, fifo or socket that
// somebody planted there is replaced by the rename. A folder is not: it may
// hold something of worth, and it must be a person who removes it.
func (s *Store) checkTarget(path string) error {
	fi, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
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
	now := time.Now()
	if err := os.Chtimes(in.dataPath(), now, now); err != nil {
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

func makeAlgorithmDir(dir string) error {
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}
