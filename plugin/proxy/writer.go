package proxy

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// writer is an ingest of containerd's.
type writer struct {
	content.Writer
	content *Content
	ref     string
	dgst    digest.Digest // by its ref; "": not known
	size    int64         // of that
	asked   int           // how often for its status
	// release lets go of the blob, which has come from elsewhere, if Status said so.
	release func()
}

// Status is that of the ingest, by containerd's ref. If the blob has come meanwhile from
// elsewhere, and nothing was written yet, it is that of a whole: containerd commits it
// then. The second status decides that. At the first the ingest was just opened; and the
// second is what a client of containerd's was told when it opened its own: it does not
// commit where it was told of none of the bytes, and wrote none.
func (w *writer) Status() (content.Status, error) {
	st, err := w.Writer.Status()
	st.Ref = w.ref
	w.asked++
	if err == nil && st.Offset == 0 && (w.release != nil || w.asked == 2 && w.isThere()) {
		st.Offset = w.size
	}
	return st, err
}

// isThere reports whether the blob has come from elsewhere, and holds it if so: nobody
// may evict it before it is exposed.
func (w *writer) isThere() bool {
	if w.dgst == "" {
		return false
	}
	release := w.content.store.Hold(w.dgst)
	if size, err := w.content.store.Size(w.dgst); err != nil || size != w.size {
		release()
		return false
	}
	w.release = release
	return true
}

// Digest is that of what is written, or has come from elsewhere.
func (w *writer) Digest() digest.Digest {
	if w.release != nil {
		return w.dgst
	}
	return w.Writer.Digest()
}

// Write goes on with the ingest, whatever has come from elsewhere.
func (w *writer) Write(p []byte) (int, error) {
	w.letGo()
	return w.Writer.Write(p)
}

// Truncate likewise.
func (w *writer) Truncate(size int64) error {
	w.letGo()
	return w.Writer.Truncate(size)
}

// Close ends the ingest, which stays.
func (w *writer) Close() error {
	w.letGo()
	return w.Writer.Close()
}

func (w *writer) letGo() {
	if w.release != nil {
		w.release()
		w.release = nil
	}
}

// Commit publishes the blob and exposes it. What exists already is exposed, too.
func (w *writer) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	if w.release != nil && expected == w.dgst && size == w.size {
		return w.content.exposeExisting(w.dgst, fmt.Errorf("%s: %w", w.dgst, errdefs.ErrAlreadyExists))
	}
	w.letGo()
	dgst := w.Digest()
	release := w.content.store.Hold(dgst) // nobody may evict it before it is exposed
	defer release()
	if err := w.Writer.Commit(ctx, size, expected, opts...); err != nil {
		return w.content.exposeExisting(dgst, err)
	}
	_, err := w.content.store.Expose(dgst)
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("%s is gone as soon as it came: %w", dgst, errdefs.ErrUnavailable)
	}
	return err
}
