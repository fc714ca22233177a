package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// Blob is a published blob, open for reading. Close it.
type Blob struct {
	File
	store   *Store
	digest  digest.Digest
	size    int64
	modTime time.Time
	done    func()   // tells the store that nobody reads it here any more
	mapping *mapping // once something of it was sent: see SendAt
}

// Digest returns the blob's digest.
func (b *Blob) Digest() digest.Digest { return b.digest }

// Size returns the blob's size in bytes.
func (b *Blob) Size() int64 { return b.size }

// Close ends the reading.
func (b *Blob) Close() error {
	defer b.done()
	b.mapping.close()
	return b.File.Close()
}

// ModTime returns when the blob was published.
func (b *Blob) ModTime() time.Time { return b.modTime }

// Read reads on. A blob whose bytes are lost is set aside: see noteFailure.
func (b *Blob) Read(p []byte) (int, error) {
	n, err := b.File.Read(p)
	if err != nil {
		b.noteFailure(err)
	}
	return n, err
}

// ReadAt is Read at an offset.
func (b *Blob) ReadAt(p []byte, off int64) (int, error) {
	n, err := b.File.ReadAt(p, off)
	if err != nil {
		b.noteFailure(err)
	}
	return n, err
}

// SyscallConn gives access to the file itself, for instance to link it.
func (b *Blob) SyscallConn() (syscall.RawConn, error) {
	if c, ok := b.File.(syscall.Conn); ok {
		return c.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// Open opens a published blob. It returns errdefs.ErrNotFound if there is
// none, also for anything in its place that is not a regular file: larder
// never serves what it did not publish.
func (s *Store) Open(dgst digest.Digest) (_ *Blob, err error) {
	path, err := s.blobPath(dgst)
	if err != nil {
		return nil, err
	}
	if s.unreadable.has(dgst) {
		return nil, fmt.Errorf("blob %s cannot be read: %w", dgst, errdefs.ErrNotFound)
	}
	done := s.holds.read(dgst)
	defer func() {
		if err != nil {
			done()
		}
	}()
	f, err := openRead(s.disk, path)
	if err != nil {
		if isForeign(err) {
			s.exposures.setLost(dgst, true)
			return nil, fmt.Errorf("blob %s: %w", dgst, errdefs.ErrNotFound)
		}
		s.noteDisk(context.Background(), err, 0)
		return nil, fmt.Errorf("open blob: %w", err)
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open blob: %w", err), f.Close())
	}
	if !fi.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("blob %s: in its place is a %s: %w", dgst, fi.Mode().Type(), errdefs.ErrNotFound), f.Close())
	}
	return &Blob{File: f, store: s, digest: dgst, size: fi.Size(), modTime: fi.ModTime(), done: done}, nil
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

// Size returns the size of a published blob in bytes, or errdefs.ErrNotFound.
func (s *Store) Size(dgst digest.Digest) (int64, error) {
	fi, err := s.stat(dgst)
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

func (s *Store) stat(dgst digest.Digest) (fs.FileInfo, error) {
	path, err := s.blobPath(dgst)
	if err != nil {
		return nil, err
	}
	if s.unreadable.has(dgst) {
		return nil, fmt.Errorf("blob %s cannot be read: %w", dgst, errdefs.ErrNotFound)
	}
	fi, err := s.disk.Lstat(path)
	switch {
	case isForeign(err):
		s.exposures.setLost(dgst, true)
		return nil, fmt.Errorf("blob %s: %w", dgst, errdefs.ErrNotFound)
	case err != nil:
		return nil, fmt.Errorf("stat blob: %w", err)
	case !fi.Mode().IsRegular():
		return nil, fmt.Errorf("blob %s: in its place is a %s: %w", dgst, fi.Mode().Type(), errdefs.ErrNotFound)
	}
	return fi, nil
}
