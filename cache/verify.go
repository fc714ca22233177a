package cache

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

const (
	// verifyPiece is how many bytes Verify reads, and asks its Pace about, at a
	// time.
	verifyPiece = 1 << 20
	// verifyWindow is how much it looks at in the page cache at a time. The
	// kernel keeps a file in folios of up to 2 MiB, and drops whole ones only.
	verifyWindow = 4 << 20
)

// Pace is called before each piece of about n bytes is read, from the one
// goroutine that reads. It may wait; its error ends the reading. Nil: as fast
// as it goes.
type Pace func(ctx context.Context, n int) error

func (p Pace) wait(ctx context.Context, n int) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if p == nil {
		return nil
	}
	return p(ctx, n)
}

// Verify reads a blob as it is on the disk, and not in memory, and compares
// its digest. A damaged one is set aside as by Damaged, and the error wraps
// errdefs.ErrDataLoss. Without a blob it is errdefs.ErrNotFound. Any other
// error says nothing of the blob.
//
// What is wrong is read a second time before it is believed: a bad moment of
// memory or cable must not cost a blob that is well.
func (s *Store) Verify(ctx context.Context, dgst digest.Digest, pace Pace) error {
	return s.verify(ctx, dgst, reading{pace: pace})
}

// reading says how a blob is read.
type reading struct {
	pace Pace
	// keep has it in memory afterwards, for who is to read it next.
	keep bool
}

func (s *Store) verify(ctx context.Context, dgst digest.Digest, how reading) error {
	if s.isClosed() {
		return errClosed
	}
	seen, err := s.check(ctx, dgst, how)
	if errdefs.IsDataLoss(err) {
		first := err
		if seen, err = s.check(ctx, dgst, how); err == nil {
			s.logger.WarnContext(ctx, "blob was read wrong once and right then: memory, cable or disk may be failing", "digest", dgst, "err", first)
		}
	}
	if errdefs.IsDataLoss(err) {
		return errors.Join(err, s.setAside(ctx, dgst, seen, err))
	}
	if err != nil {
		return fmt.Errorf("verify %s: %w", dgst, err)
	}
	s.noteVerified(dgst, verified{at: s.now(), size: seen.Size()})
	return nil
}

// check hashes what is in a blob's place. Whatever is not the blob is
// errdefs.ErrDataLoss; seen says what it was.
func (s *Store) check(ctx context.Context, dgst digest.Digest, how reading) (seen fs.FileInfo, err error) {
	path, err := s.blobPath(dgst)
	if err != nil {
		return nil, err
	}
	seen, err = s.disk.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("blob %s: %w", dgst, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	if !seen.Mode().IsRegular() {
		return seen, fmt.Errorf("blob %s: in its place is a %s: %w", dgst, kindOf(seen.Mode()), errdefs.ErrDataLoss)
	}
	b, err := s.Open(dgst)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	digester := dgst.Algorithm().Digester()
	read := readFromDisk
	if how.keep {
		read = s.readAsUsual
	}
	if err := read(ctx, b, digester.Hash(), how.pace); err != nil {
		if errors.Is(err, syscall.EIO) {
			err = fmt.Errorf("blob %s cannot be read: %w: %w", dgst, err, errdefs.ErrDataLoss)
		}
		return seen, err
	}
	if got := digester.Digest(); got != dgst {
		return seen, fmt.Errorf("blob %s has the bytes of %s: %w", dgst, got, errdefs.ErrDataLoss)
	}
	return seen, nil
}

// kindOf names a kind of file in words.
func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "directory"
	case mode&fs.ModeSymlink != 0:
		return "link"
	case mode&fs.ModeNamedPipe != 0:
		return "fifo"
	case mode&fs.ModeSocket != 0:
		return "socket"
	case mode.IsRegular():
		return "file"
	}
	return "special file"
}

// readAsUsual copies a blob to w.
func (s *Store) readAsUsual(ctx context.Context, b *Blob, w hash.Hash, _ Pace) error {
	_, err := s.hashFile(ctx, w, b)
	return err
}

// readFromDisk copies a blob to w, read from the disk itself. What of it was in
// the page cache is there afterwards, too, and what was not is not: to verify a
// store must not throw the node's working set out of memory.
func readFromDisk(ctx context.Context, b *Blob, w hash.Hash, pace Pace) error {
	// Read ahead, a piece would be in memory before it is looked whether it is.
	pagesOf(b.File, 0, 0).advise(unix.FADV_RANDOM)
	buf := make([]byte, verifyPiece)
	window, wereCached := pages{}, false
	leave := func() {
		if !wereCached {
			window.drop()
		}
	}
	defer leave()
	for at := int64(0); ; {
		if at%verifyWindow == 0 {
			leave()
			window = pagesOf(b.File, at, verifyWindow)
			wereCached = window.cached()
			window.drop()
		}
		if err := pace.wait(ctx, int(min(max(0, b.Size()-at), verifyPiece))); err != nil {
			return err
		}
		n, err := b.File.ReadAt(buf, at) // past Blob's own: one failure is not believed here
		w.Write(buf[:n])
		at += int64(n)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
