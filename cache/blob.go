package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// Blob is a published blob, open for reading. Close it.
type Blob struct {
	*os.File
	digest  digest.Digest
	size    int64
	modTime time.Time
}

// Digest returns the blob's digest.
func (b *Blob) Digest() digest.Digest { return b.digest }

// Size returns the blob's size in bytes.
func (b *Blob) Size() int64 { return b.size }

// ModTime returns when the blob was published.
func (b *Blob) ModTime() time.Time { return b.modTime }

// Open opens a published blob. It returns errdefs.ErrNotFound if there is
// none, also for anything in its place that is not a regular file: larder
// never serves what it did not publish.
func (s *Store) Open(dgst digest.Digest) (*Blob, error) {
	path, err := s.blobPath(dgst)
	if err != nil {
		return nil, err
	}
	// O_NOFOLLOW and O_NONBLOCK: a planted link leads nowhere, a planted
	// fifo does not hang.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		if isForeign(err) {
			return nil, fmt.Errorf("blob %s: %w", dgst, errdefs.ErrNotFound)
		}
		return nil, fmt.Errorf("open blob: %w", err)
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open blob: %w", err), f.Close())
	}
	if !fi.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("blob %s: in its place is a %s: %w", dgst, fi.Mode().Type(), errdefs.ErrNotFound), f.Close())
	}
	return &Blob{File: f, digest: dgst, size: fi.Size(), modTime: fi.ModTime()}, nil
}

// isForeign tells the errors of a path at which there is nothing, or something
// that larder did not put there: a link, a socket, a file for a folder.
func isForeign(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ELOOP) ||
		errors.Is(err, syscall.ENXIO) || errors.Is(err, syscall.ENOTDIR)
}

// Has reports whether a blob is published.
func (s *Store) Has(dgst digest.Digest) (bool, error) {
	_, err := s.stat(dgst)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

func (s *Store) stat(dgst digest.Digest) (fs.FileInfo, error) {
	path, err := s.blobPath(dgst)
	if err != nil {
		return nil, err
	}
	fi, err := os.Lstat(path)
	switch {
	case isForeign(err):
		return nil, fmt.Errorf("blob %s: %w", dgst, errdefs.ErrNotFound)
	case err != nil:
		return nil, fmt.Errorf("stat blob: %w", err)
	case !fi.Mode().IsRegular():
		return nil, fmt.Errorf("blob %s: in its place is a %s: %w", dgst, fi.Mode().Type(), errdefs.ErrNotFound)
	}
	return fi, nil
}
