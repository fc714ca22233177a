package cache

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// Adopt makes the file at path, which is on the store's file system, the blob dgst:
// without a copy, by a second name. Its bytes are read first. The name at path
// stays; nobody may write to the file by it any more. linked is false if the blob
// was there already, be it by an Adopt that was ended: then that is read, so that
// the name at path is not needed any more.
//
// A blob that is adopted is on disk when Adopt returns. The error wraps
// errdefs.ErrDataLoss for a file with other bytes, and errdefs.ErrFailedPrecondition
// for one that cannot be adopted, whatever its bytes are.
func (s *Store) Adopt(ctx context.Context, dgst digest.Digest, path string, pace Pace) (linked bool, _ error) {
	target, err := s.blobPath(dgst)
	if err != nil {
		return false, err
	}
	if s.isClosed() {
		return false, errClosed
	}
	defer s.Hold(dgst)()
	err = s.adopt(ctx, dgst, path, target, pace)
	if errdefs.IsAlreadyExists(err) {
		if err = s.readoptable(ctx, dgst, target, pace); errdefs.IsDataLoss(err) { // it was set aside
			err = s.adopt(ctx, dgst, path, target, pace)
			linked = err == nil
		}
	} else {
		linked = err == nil
	}
	if err != nil {
		return false, fmt.Errorf("adopt %s: %w", path, err)
	}
	return linked, s.noteAdopted(dgst)
}

// readoptable makes sure of a blob that is there already. It may be the file at
// path: an Adopt was ended, perhaps before its name was on disk, or the store gave
// the file to that folder a while ago. So it is read in any case.
func (s *Store) readoptable(ctx context.Context, dgst digest.Digest, target string, pace Pace) error {
	if err := s.Verify(ctx, dgst, pace); err != nil {
		return err
	}
	return SyncFolder(s.disk, filepath.Dir(target))
}

func (s *Store) adopt(ctx context.Context, dgst digest.Digest, path, target string, pace Pace) error {
	if err := s.checkPlace(); err != nil {
		return err
	}
	if err := s.checkTarget(dgst, target); err != nil {
		return err
	}
	f, err := openRead(s.disk, path)
	if err != nil {
		return err
	}
	defer f.Close()
	seen, err := f.Stat()
	if err != nil {
		return err
	}
	if err := checkAdoptable(seen); err != nil {
		return err
	}
	digester := dgst.Algorithm().Digester()
	if err := readPaced(ctx, f, digester.Hash(), pace); errors.Is(err, syscall.EIO) {
		return fmt.Errorf("it cannot be read: %w: %w", err, errdefs.ErrDataLoss)
	} else if err != nil {
		return err
	}
	if got := digester.Digest(); got != dgst {
		return fmt.Errorf("it has the bytes of %s: %w", got, errdefs.ErrDataLoss)
	}
	if err := f.Chmod(0o444); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return s.linkIn(dgst, path, target, blocksOf(seen))
}

// checkAdoptable refuses what is no file, and what another user could write to.
func checkAdoptable(fi fs.FileInfo) error {
	if !fi.Mode().IsRegular() {
		return fmt.Errorf("it is a %s: %w", kindOf(fi.Mode()), errdefs.ErrFailedPrecondition)
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && int(st.Uid) != unix.Geteuid() {
		return fmt.Errorf("it belongs to user %d and not to the one who runs larder, %d: %w", st.Uid, unix.Geteuid(), errdefs.ErrFailedPrecondition)
	}
	return nil
}

// linkIn gives a file that is on disk its name in the store.
func (s *Store) linkIn(dgst digest.Digest, path, target string, blocks int64) error {
	if err := makeAlgorithmDir(s.disk, filepath.Dir(target)); err != nil {
		return err
	}
	if s.unreadable.has(dgst) { // what is there is not the blob
		if err := s.disk.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	s.usage.changing(dgst, 0)
	if err := s.disk.Link(path, target); err != nil {
		s.usage.unchanged(dgst)
		return acrossDisks(err)
	}
	s.usage.published(dgst, blocks, "")
	if err := SyncFolder(s.disk, filepath.Dir(target)); err != nil {
		s.noteUnreadable(dgst)
		return err
	}
	s.noteReadable(dgst)
	return nil
}

// acrossDisks explains why a file cannot have a name in another folder.
func acrossDisks(err error) error {
	if errors.Is(err, syscall.EXDEV) {
		return fmt.Errorf("the two folders are on two file systems, or mounts of one, between which no file can be linked: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	return err
}

// readPaced copies a file to w, as fast as pace lets it.
func readPaced(ctx context.Context, f File, w hash.Hash, pace Pace) error {
	buf := make([]byte, verifyPiece)
	for at := int64(0); ; {
		if err := pace.wait(ctx, len(buf)); err != nil {
			return err
		}
		n, err := f.ReadAt(buf, at)
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

// noteAdopted records what an adopted blob is: a manifest tells what belongs to it,
// as after a pull. It has been read.
func (s *Store) noteAdopted(dgst digest.Digest) error {
	fi, err := s.stat(dgst)
	if err != nil {
		return err
	}
	s.noteVerified(dgst, verified{at: s.now(), size: fi.Size()})
	m, data, ok := s.storedManifest(dgst, "")
	if !ok {
		_, err := s.stat(dgst) // it is no manifest, or cannot be read all of a sudden
		return err
	}
	if err := s.NoteManifest(dgst, m); err != nil {
		return err
	}
	return s.NoteDescriptors([]ocispec.Descriptor{m.Describe(dgst, data)})
}

// LinkTo gives a blob a second name, at path on the store's file system: then it
// outlives its eviction there. What is at path stays if it is the blob, by its
// bytes, and is replaced otherwise. The name is on disk when the folder of path
// is synced, which is the caller's to do. It returns errdefs.ErrNotFound without a
// blob.
func (s *Store) LinkTo(ctx context.Context, dgst digest.Digest, path string) error {
	from, err := s.blobPath(dgst)
	if err != nil {
		return err
	}
	defer s.Hold(dgst)()
	blob, err := s.stat(dgst)
	if err != nil {
		return err
	}
	there, err := s.disk.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case inodeOf(there) == inodeOf(blob):
		return nil
	case there.Mode().IsRegular() && s.hasBytes(ctx, path, dgst): // though the blob may be damaged, in its size, too
		return nil
	default:
		if err := s.disk.Remove(path); err != nil {
			return fmt.Errorf("make way for %s: %w", dgst, err)
		}
	}
	if err := s.disk.Link(from, path); err != nil {
		return fmt.Errorf("link %s to %s: %w", dgst, path, acrossDisks(err))
	}
	return nil
}

func (s *Store) hasBytes(ctx context.Context, path string, dgst digest.Digest) bool {
	f, err := openRead(s.disk, path)
	if err != nil {
		return false
	}
	defer f.Close()
	digester := dgst.Algorithm().Digester()
	err = readPaced(ctx, f, digester.Hash(), nil)
	return err == nil && digester.Digest() == dgst
}
