package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-project/larder/cache"
)

// stored is the store as layers need it.
type stored interface {
	content.Provider
	Verify(ctx context.Context, dgst digest.Digest, pace cache.Pace) error
}

// layers are the compressed layers that larder can unpack: those in the store, and,
// beside a content store of containerd's own, those that this one has.
type layers struct {
	store     stored
	bounds    *bounds
	elsewhere content.Provider // nil: containerd has none that are not in the store
	logger    *slog.Logger
}

// ReaderAt opens a layer. What another differ could well open is errdefs.ErrNotFound
// here: nothing is unpacked of it yet.
func (l *layers) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	ra, err := l.openStored(ctx, desc)
	if l.elsewhere == nil {
		return ra, err
	}
	if err == nil {
		return &layerReader{ReaderAt: ra, layers: l, ctx: ctx, desc: desc}, nil
	}
	if !errdefs.IsNotFound(err) {
		l.logger.WarnContext(ctx, "layer cannot be opened in the store", "digest", desc.Digest, "err", err)
	}
	return l.openElsewhere(ctx, desc)
}

func (l *layers) openStored(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	if err := l.bounds.admit(); err != nil {
		return nil, err
	}
	var ra content.ReaderAt
	var err error
	over, left := l.bounds.within("open layer", l.bounds.limits.Call, func() { ra, err = l.store.ReaderAt(ctx, desc) })
	if left != nil {
		go func() { // it may be opened yet
			if <-over; err == nil {
				_ = ra.Close()
			}
		}()
		return nil, left
	}
	if err != nil {
		return nil, err
	}
	return &storedReader{ReaderAt: ra, bounds: l.bounds}, nil
}

// Verify reads a layer of the store again, and sets it aside if it is damaged.
func (l *layers) Verify(ctx context.Context, dgst digest.Digest, pace cache.Pace) error {
	if l.bounds.left.Load() > 0 {
		return nil // the disk hangs
	}
	return l.store.Verify(ctx, dgst, pace)
}

func (l *layers) openElsewhere(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	ra, err := l.elsewhere.ReaderAt(ctx, desc)
	if err != nil {
		return nil, fmt.Errorf("it is not in larder's store, and cannot be read elsewhere: %v: %w", err, errdefs.ErrNotFound) //nolint:errorlint // of whatever kind it is
	}
	l.logger.DebugContext(ctx, "layer is read through containerd", "digest", desc.Digest)
	return ra, nil
}

// storedReader is a blob of the store, and gives up a read that its disk does not
// answer.
type storedReader struct {
	content.ReaderAt
	bounds *bounds
	buf    []byte          // what is left behind writes into it whenever it likes
	last   <-chan struct{} // nil, or closed when the read that was left behind is over
}

// ReadAt reads. It is not to be called by two at a time, nor after an error.
func (r *storedReader) ReadAt(p []byte, off int64) (int, error) {
	if len(r.buf) < len(p) {
		r.buf = make([]byte, len(p))
	}
	var n int
	var err error
	over, left := r.bounds.within("read layer", r.bounds.limits.Step, func() { n, err = r.ReaderAt.ReadAt(r.buf[:len(p)], off) })
	if left != nil {
		r.last = over
		return 0, left
	}
	return copy(p, r.buf[:n]), err
}

// Close closes the file, or has it closed when nobody reads it any more.
func (r *storedReader) Close() error {
	if r.last == nil {
		return r.ReaderAt.Close()
	}
	go func() {
		<-r.last
		_ = r.ReaderAt.Close()
	}()
	return nil
}

// layerReader goes on elsewhere, where the store fails in the middle.
type layerReader struct {
	content.ReaderAt // that is read
	layers           *layers
	ctx              context.Context //nolint:containedctx // the call's, as that of any content.ReaderAt
	desc             ocispec.Descriptor
	isElsewhere      bool
}

// ReadAt reads. It is not to be called by two at a time.
func (r *layerReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.ReaderAt.ReadAt(p, off)
	if err == nil || errors.Is(err, io.EOF) || r.isElsewhere {
		return n, err
	}
	r.isElsewhere = true // whatever comes of it
	ra, oerr := r.layers.openElsewhere(r.ctx, r.desc)
	if oerr != nil {
		return n, fmt.Errorf("%w; %w", err, oerr)
	}
	r.layers.logger.WarnContext(r.ctx, "layer cannot be read on in the store", "digest", r.desc.Digest, "at", off, "err", err)
	_ = r.ReaderAt.Close() // of no use any more
	r.ReaderAt = ra
	return r.ReaderAt.ReadAt(p, off)
}
