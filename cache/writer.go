package cache

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// writer is an ingest behind containerd's content.Writer.
type writer struct {
	in     *ingest // nil once closed
	store  *Store
	status content.Status // as it was at the close
	digest digest.Digest
	beyond bool // it goes on where there is no room to be made
	over   bool // and does: nothing is reserved any more
}

// Writer opens or resumes the ingest named by the options' ref. It returns
// errdefs.ErrUnavailable while another writer has that ref, and
// errdefs.ErrAlreadyExists if the expected blob is published.
func (s *Store) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	return s.openWriter(ctx, false, opts...)
}

// WriterBeyondBudget is Writer for a client that has nowhere else to store: it
// has others evicted, and goes beyond the Budget where that is not enough. Only a
// disk that is full is an error.
func (s *Store) WriterBeyondBudget(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	return s.openWriter(ctx, true, opts...)
}

func (s *Store) openWriter(ctx context.Context, beyond bool, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	if o.Ref == "" || len(o.Ref) > maxRef {
		return nil, fmt.Errorf("writer needs a ref of 1 to %d bytes, got %d: %w", maxRef, len(o.Ref), errdefs.ErrInvalidArgument)
	}
	alg := digest.Canonical
	if expected := o.Desc.Digest; expected != "" {
		has, err := s.Has(expected)
		if err != nil {
			return nil, err
		}
		if has {
			return nil, fmt.Errorf("blob %s: %w", expected, errdefs.ErrAlreadyExists)
		}
		alg = expected.Algorithm()
	}
	if err := s.acquireRef(o.Ref); err != nil {
		return nil, err
	}
	in, err := s.openIngest(ctx, o.Ref, o.Desc.Size, alg)
	if err != nil {
		s.releaseRef(o.Ref)
		return nil, err
	}
	return &writer{in: in, store: s, beyond: beyond}, nil
}

func (w *writer) Write(p []byte) (int, error) {
	if w.in == nil {
		return 0, errWriterClosed
	}
	if w.store.isClosed() {
		return 0, errClosed // the next process may be writing to this ingest
	}
	if err := w.reserve(int64(len(p))); err != nil {
		return 0, err
	}
	return w.in.Write(p)
}

func (w *writer) reserve(more int64) error {
	if w.over {
		return nil
	}
	err := w.store.reserve(context.Background(), w.in.dir, max(w.in.total, w.in.offset+more))
	if w.beyond && errdefs.IsResourceExhausted(err) {
		w.over = true
		w.store.logger.Warn("the store goes beyond its budget for containerd, which has no other", "ref", w.in.ref, "err", err)
		return nil
	}
	return err
}

var errWriterClosed = fmt.Errorf("writer is closed: %w", errdefs.ErrFailedPrecondition)

// Digest returns the digest of the bytes written so far.
func (w *writer) Digest() digest.Digest {
	if w.in == nil {
		return w.digest
	}
	return w.in.digester.Digest()
}

// Status returns how far the ingest is.
func (w *writer) Status() (content.Status, error) {
	if w.in == nil {
		return w.status, nil
	}
	return content.Status{
		Ref: w.in.ref, Offset: w.in.offset, Total: w.in.total,
		StartedAt: w.in.startedAt, UpdatedAt: w.in.updatedAt,
	}, nil
}

// Truncate throws away what was written. Only size 0 is supported.
func (w *writer) Truncate(size int64) error {
	if size != 0 {
		return fmt.Errorf("truncate to %d: only 0 is supported: %w", size, errdefs.ErrInvalidArgument)
	}
	if w.in == nil {
		return errWriterClosed
	}
	return w.in.truncate()
}

// Commit publishes the bytes if they have this size (0: any) and digest
// ("": any). It always closes the writer; on an error the ingest stays and
// can be resumed or aborted.
func (w *writer) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	in := w.in
	if in == nil {
		return errWriterClosed
	}
	var info content.Info
	for _, opt := range opts {
		if err := opt(&info); err != nil {
			return errorsJoinClose(err, w)
		}
	}
	if w.store.isClosed() {
		return errorsJoinClose(errClosed, w)
	}
	dgst, err := in.verify(size, expected)
	if err == nil {
		err = in.publish(ctx, dgst)
	}
	if err = errorsJoinClose(err, w); err != nil {
		return err
	}
	return w.store.notePublished(dgst, in.offset, Facts{Labels: info.Labels, Updated: w.store.now()}, true, "")
}

func errorsJoinClose(err error, w *writer) error {
	if cerr := w.Close(); err == nil {
		return cerr
	}
	return err
}

// Close frees the ref and keeps the bytes for a later writer of it.
func (w *writer) Close() error {
	if w.in == nil {
		return nil
	}
	w.status, _ = w.Status()
	w.digest = w.Digest()
	in := w.in
	w.in = nil
	defer w.store.releaseRef(in.ref)
	return in.close()
}
