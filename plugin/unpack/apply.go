package unpack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	"github.com/moby/sys/userns"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// maxSides is how many appliers write plain files at most: more do not help.
const maxSides = 4

// Unpacker unpacks layers.
type Unpacker struct {
	// Copies are read in place of layers, where there are some. nil: there are none.
	Copies *Copies
}

// Takes reports whether layers of a media type can be unpacked. One that is encrypted
// needs a processor that containerd was given.
func Takes(ctx context.Context, mediaType string) bool {
	_, err := images.DiffCompression(ctx, mediaType)
	return err == nil && !strings.Contains(mediaType, "encrypted")
}

// Apply unpacks a layer, compressed with gzip, zstd or not, into what is mounted by
// mounts. It returns the descriptor of its tar stream. With sync, all is on disk
// then. A layer that wants too much memory is errdefs.ErrNotImplemented.
func (up Unpacker) Apply(ctx context.Context, dgst digest.Digest, layer content.ReaderAt, mounts []mount.Mount, sync bool) (ocispec.Descriptor, error) {
	u := unpacking{layer: layer, copies: up.Copies, digest: dgst, sides: min(runtime.GOMAXPROCS(0), maxSides)}
	err := u.apply(ctx, mounts, sync)
	if errors.Is(err, zstd.ErrWindowSizeExceeded) && !u.begun { // nobody else could go on
		err = fmt.Errorf("it wants more than %d MiB of memory: %w", maxWindow>>20, errdefs.ErrNotImplemented)
	}
	if err == nil && up.Copies != nil {
		up.Copies.want(dgst)
	}
	return u.applied, err
}

// unpacking is one layer on its way into a snapshot.
type unpacking struct {
	layer   content.ReaderAt
	digest  digest.Digest
	copies  *Copies // nil: none
	sides   int
	begun   bool // something of it may be in the snapshot
	applied ocispec.Descriptor
}

// apply goes where containerd's own differ goes: into the upper folder of an overlay,
// which takes whiteouts as it stores them, or else below a mount.
func (u *unpacking) apply(ctx context.Context, mounts []mount.Mount, sync bool) error {
	if upper, lower := overlay(mounts); upper != "" {
		opts := []archive.ApplyOpt{archive.WithConvertWhiteout(archive.OverlayConvertWhiteout)}
		if len(lower) > 0 {
			opts = append(opts, archive.WithParents(lower))
		}
		if err := u.into(ctx, upper, false, opts...); err != nil || !sync {
			return err
		}
		return syncFS(upper)
	}
	err := mount.WithTempMount(ctx, mounts, func(root string) error { return u.into(ctx, root, true) })
	if err != nil || !sync || len(mounts) != 1 || mounts[0].Type != "bind" {
		return err
	}
	return syncFS(mounts[0].Source)
}

// overlay returns the folders of a mount of overlayfs, or nothing if it is something
// else or, in a user namespace, if whiteouts cannot be written into it.
func overlay(mounts []mount.Mount) (upper string, lower []string) {
	if len(mounts) != 1 || mounts[0].Type != "overlay" || userns.RunningInUserNS() {
		return "", nil
	}
	for _, o := range mounts[0].Options {
		if dir, ok := strings.CutPrefix(o, "upperdir="); ok {
			upper = dir
		} else if dirs, ok := strings.CutPrefix(o, "lowerdir="); ok {
			lower = strings.Split(dirs, ":")
		}
	}
	return upper, lower
}

// into writes the layer below root: by several at once if that can be, else by one.
func (u *unpacking) into(ctx context.Context, root string, naive bool, opts ...archive.ApplyOpt) error {
	there, err := os.ReadDir(root)
	if err != nil {
		return fmt.Errorf("look whether it is empty: %w", err)
	}
	if len(there) == 0 && u.sides > 0 {
		err := u.run(ctx, func(ctx context.Context, s *stream) error { return deal(ctx, s, root, u.sides, naive, opts...) })
		if !errors.Is(err, errUndealt) {
			return err
		}
		if err := empty(root); err != nil {
			return err
		}
	}
	return u.run(ctx, func(ctx context.Context, s *stream) error {
		_, err := archive.Apply(ctx, root, &reader{tape{ctx: ctx, in: s}}, opts...)
		return err
	})
}

// run reads the layer once, by whatever writes it.
func (u *unpacking) run(ctx context.Context, write func(context.Context, *stream) error) error {
	in, err := u.open()
	if err != nil {
		return err
	}
	s := newStream(ctx, in)
	err = write(ctx, s)
	if err == nil {
		err = s.rest(ctx)
	}
	err = errors.Join(err, s.Close())
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx) // whoever of them noticed it first
	}
	u.begun = u.begun || s.size > 0
	if err != nil {
		return err
	}
	u.applied = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: s.digest, Size: s.size}
	if both, ok := in.(*copyOrLayer); ok {
		return both.check(s.digest)
	}
	return nil
}

// open begins to read the layer, or the copy of it.
func (u *unpacking) open() (io.ReadCloser, error) {
	if u.copies != nil {
		if c := u.copies.open(u.digest); c != nil {
			return &copyOrLayer{in: c, copy: c, layer: u.layer}, nil
		}
	}
	return decompressorOf(u.layer)
}

// reader reads a stream for one applier.
type reader struct{ tape }

func (r *reader) Read(p []byte) (int, error) {
	s, err := r.take(int64(len(p)))
	if err != nil {
		return 0, err
	}
	defer s.chunk.release()
	return copy(p, s.data()), nil
}

// empty takes away what is in a folder that was empty before.
func empty(root string) error {
	entries, err := os.ReadDir(root)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(root, e.Name())))
	}
	if err != nil {
		return fmt.Errorf("begin anew: %w", err)
	}
	return nil
}

func syncFS(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		err = fmt.Errorf("sync file system of %s: %w", path, err)
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

var _ io.Reader = (*reader)(nil)
