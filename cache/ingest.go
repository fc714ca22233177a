package cache

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// ingest is a blob on its way in: a folder with the bytes so far, the ref
// that owns it and the expected total. Its caller holds the ref (acquireRef),
// so that one ingest has one writer. It is not safe for concurrent use; only
// file.ReadAt may run beside the writer.
type ingest struct {
	store     *Store
	ref       string
	dir       string
	file      File
	digester  digest.Digester
	behind    *behind // hashes for digester while a fill appends; else nil
	offset    int64   // bytes on disk and in the digester, or on the way there
	begun     int64   // up to where the kernel was told to write: see writeback
	total     int64   // 0 if unknown
	startedAt time.Time
	updatedAt time.Time
}

// openIngest opens the ingest of ref, or makes it, and hashes what is there
// so that writing goes on behind it. alg is the digest's algorithm. A ctx that
// ends stops the hashing; the bytes stay.
func (s *Store) openIngest(ctx context.Context, ref string, total int64, alg digest.Algorithm) (*ingest, error) {
	in := &ingest{store: s, ref: ref, dir: s.ingestPath(ref), digester: alg.Digester(), total: total}
	if err := s.checkPlace(); err != nil {
		return nil, fmt.Errorf("ingest %q: %w", ref, err)
	}
	if err := in.prepareDir(); err != nil {
		return nil, err
	}
	f, err := openData(s.disk, in.dataPath())
	if err != nil {
		return nil, fmt.Errorf("ingest %q: %w", ref, err)
	}
	in.file = f
	if in.offset, err = s.hashFile(ctx, in.digester.Hash(), f); err != nil {
		return nil, errors.Join(fmt.Errorf("ingest %q: hash what is there: %w", ref, err), f.Close())
	}
	s.usage.open(in.dir, in.offset)
	return in, nil
}

// openData opens the bytes of an ingest, never through a link.
func openData(d Disk, path string) (File, error) {
	const flags = os.O_RDWR | os.O_CREATE | syscall.O_NOFOLLOW
	f, err := d.OpenFile(path, flags, 0o600)
	if errors.Is(err, fs.ErrPermission) {
		// A crash came between the blob's mode and its rename. Without this
		// an unprivileged daemon could never again write to its own file.
		if err := unseal(d, path); err != nil {
			return nil, err
		}
		f, err = d.OpenFile(path, flags, 0o600)
	}
	return f, err
}

func unseal(d Disk, path string) error {
	f, err := openRead(d, path)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o600), f.Close())
}

// hashFile feeds f to h and returns how many bytes it had. It looks at ctx now
// and then, since there may be gigabytes.
func (s *Store) hashFile(ctx context.Context, h hash.Hash, f io.ReaderAt) (int64, error) {
	var total int64
	buf := s.buffers.take()
	defer s.buffers.give(buf)
	for {
		if ctx.Err() != nil {
			return total, context.Cause(ctx)
		}
		n, err := f.ReadAt(*buf, total)
		h.Write((*buf)[:n])
		total += int64(n)
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

func (in *ingest) dataPath() string { return filepath.Join(in.dir, "data") }

// prepareDir makes the ingest's folder, or reads what an earlier writer left
// in it. A folder that is not whole is begun anew: its bytes are worth less
// than the doubt.
func (in *ingest) prepareDir() error {
	st, err := in.store.readStatus(in.dir)
	if err == nil && st.Ref == in.ref {
		if in.total > 0 && st.Total > 0 && in.total != st.Total {
			return fmt.Errorf("ingest %q: total is %d, was %d: %w", in.ref, in.total, st.Total, errdefs.ErrFailedPrecondition)
		}
		in.startedAt, in.updatedAt = st.StartedAt, st.UpdatedAt
		in.total = max(in.total, st.Total)
		return nil
	}
	if err := removeAll(in.store.disk, in.dir); err != nil {
		return fmt.Errorf("ingest %q: remove remains: %w", in.ref, err)
	}
	if err := in.store.disk.Mkdir(in.dir, 0o700); err != nil {
		return fmt.Errorf("ingest %q: %w", in.ref, err)
	}
	in.startedAt = in.store.now()
	in.updatedAt = in.startedAt
	started, err := in.startedAt.MarshalText()
	if err != nil {
		return fmt.Errorf("ingest %q: %w", in.ref, err)
	}
	err = errors.Join(
		in.writeNote("ref", []byte(in.ref)),
		in.writeNote("startedat", started),
		in.writeNote("total", strconv.AppendInt(nil, in.total, 10)),
	)
	if err != nil {
		return errors.Join(err, removeAll(in.store.disk, in.dir))
	}
	return nil
}

func (in *ingest) writeNote(name string, data []byte) error {
	if err := writeFile(in.store.disk, filepath.Join(in.dir, name), data, 0o600); err != nil {
		return fmt.Errorf("ingest %q: %w", in.ref, err)
	}
	return nil
}

// ownerNote is the note that names the owner of an ingest; nobody in
// particular owns one without it.
const ownerNote = "owner"

// claim makes the ingest one of owner ("": nobody in particular). Bytes that
// belong to another owner are thrown away: an upstream of owner could have
// them handed out by answering for a blob that it does not have.
func (in *ingest) claim(owner string) error {
	path := filepath.Join(in.dir, ownerNote)
	old, err := readNote(in.store.disk, path)
	isNone := errors.Is(err, fs.ErrNotExist)
	if isNone && owner == "" || err == nil && string(old) == owner {
		return nil
	}
	if in.offset > 0 && !isNone { // also when the note is not readable
		if err := in.replace(); err != nil {
			return err
		}
	}
	if !isNone {
		if err := removeAll(in.store.disk, path); err != nil {
			return fmt.Errorf("ingest %q: %w", in.ref, err)
		}
	}
	if owner == "" {
		return nil
	}
	return in.syncNote(ownerNote, []byte(owner))
}

// syncNote writes a note that must not be lost in a power cut while bytes
// that come after it are kept.
func (in *ingest) syncNote(name string, data []byte) error {
	f, err := in.store.disk.OpenFile(filepath.Join(in.dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("ingest %q: %w", in.ref, err)
	}
	_, err = f.WriteAt(data, 0)
	err = errors.Join(err, f.Sync(), f.Close(), SyncFolder(in.store.disk, in.dir))
	if err != nil {
		return fmt.Errorf("ingest %q: note %s: %w", in.ref, name, err)
	}
	return nil
}

// Write appends. After a short write the offset is where the disk stopped,
// so that hash and file still agree.
func (in *ingest) Write(p []byte) (int, error) {
	n, err := in.file.WriteAt(p, in.offset)
	in.hash(p[:n])
	in.offset += int64(n)
	in.updatedAt = in.store.now()
	in.store.usage.wrote(in.dir, in.offset)
	if more := in.offset - in.begun; more >= writebackPiece {
		in.store.writeback.add(pagesOf(in.file, in.begun, more))
		in.begun = in.offset
	}
	if err != nil {
		return n, fmt.Errorf("ingest %q: %w", in.ref, err)
	}
	return n, nil
}

func (in *ingest) hash(p []byte) {
	if in.behind != nil {
		in.behind.write(p)
		return
	}
	in.digester.Hash().Write(p)
}

// hashBehind has what is appended hashed by another goroutine, until hashHere. size is
// the whole's, -1 if that is not known: the last few bytes are hashed here.
func (in *ingest) hashBehind(size int64) {
	n := hashBuffers
	if size >= 0 && size-in.offset <= copyBuffer {
		n = 1
	}
	in.behind = newBehind(in.digester.Hash(), &in.store.buffers, n)
}

// hashHere returns when all that was appended is hashed.
func (in *ingest) hashHere() {
	in.behind.stop()
	in.behind = nil
}

// skip counts and hashes bytes that are not written.
func (in *ingest) skip(p []byte) {
	in.hash(p)
	in.offset += int64(len(p))
}

// forget begins to count and hash anew, whatever is on disk.
func (in *ingest) forget() {
	in.digester.Hash().Reset()
	in.offset, in.begun = 0, 0
}

// replace begins a new file. Readers of a fill that could not publish the old
// one may still be at that.
func (in *ingest) replace() error {
	if err := in.file.Close(); err != nil {
		return fmt.Errorf("ingest %q: %w", in.ref, err)
	}
	if err := in.store.disk.Remove(in.dataPath()); err != nil {
		return fmt.Errorf("ingest %q: %w", in.ref, err)
	}
	f, err := openData(in.store.disk, in.dataPath())
	if err != nil {
		return fmt.Errorf("ingest %q: %w", in.ref, err)
	}
	in.file = f
	in.forget()
	return nil
}

// truncate throws away all bytes.
func (in *ingest) truncate() error {
	if err := in.file.Truncate(0); err != nil {
		return fmt.Errorf("ingest %q: %w", in.ref, err)
	}
	in.forget()
	in.store.usage.wrote(in.dir, 0)
	return nil
}

// verify checks the bytes against size (0: any) and digest ("": any), and
// returns their digest.
func (in *ingest) verify(size int64, expected digest.Digest) (digest.Digest, error) {
	if size > 0 && size != in.offset {
		return "", fmt.Errorf("ingest %q: size is %d, want %d: %w", in.ref, in.offset, size, errdefs.ErrFailedPrecondition)
	}
	dgst := in.digester.Digest()
	if expected == "" || expected == dgst {
		return dgst, nil
	}
	if err := expected.Validate(); err != nil {
		return "", fmt.Errorf("ingest %q: digest %.100q: %w: %w", in.ref, expected, err, errdefs.ErrInvalidArgument)
	}
	if alg := expected.Algorithm(); alg != dgst.Algorithm() {
		// The writer did not say which algorithm it would be asked for.
		var err error
		if dgst, err = alg.FromReader(io.NewSectionReader(in.file, 0, in.offset)); err != nil {
			return "", fmt.Errorf("ingest %q: hash with %s: %w", in.ref, alg, err)
		}
		if dgst == expected {
			return dgst, nil
		}
	}
	return "", fmt.Errorf("ingest %q: digest is %s, want %s: %w", in.ref, dgst, expected, errdefs.ErrFailedPrecondition)
}

// remove throws the ingest away. What cannot be removed is found, and
// begun anew, by the next writer of this ref; so it is only reported.
func (in *ingest) remove(ctx context.Context) {
	if err := removeAll(in.store.disk, in.dir); err != nil {
		in.store.logger.WarnContext(ctx, "ingest not removed", "ref", in.ref, "err", err)
		return
	}
	in.store.usage.drop(in.dir)
}

// close keeps the bytes for the next writer of this ref.
func (in *ingest) close() error {
	// The kernel's clock for files is a few milliseconds behind. Status must
	// not go back in time; an error here, as for an ingest that is published,
	// costs no more than that.
	_ = in.file.SetTime(in.updatedAt)
	if _, err := in.store.disk.Lstat(in.dir); errors.Is(err, fs.ErrNotExist) {
		in.store.usage.drop(in.dir) // aborted below us
	} else {
		in.store.usage.shut(in.dir)
	}
	if err := in.file.Close(); err != nil {
		return fmt.Errorf("ingest %q: close: %w", in.ref, err)
	}
	return nil
}
