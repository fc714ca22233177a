package proxy

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-project/larder/cache"
)

// Content is a store as the content store of one containerd. That sees what it was
// told of, and its own ingests; the rest is larder's. Whatever it is told of, and
// whatever it writes, is exposed before it is told: see cache.Store.Expose. It is
// safe for concurrent use.
type Content struct{ store *cache.Store }

var _ content.Store = (*Content)(nil)

// NewContent makes the content store. Open the store with cache.WithExposure.
func NewContent(store *cache.Store) *Content { return &Content{store} }

// refs of containerd's ingests begin so: larder's own are not its to list or end.
const refPrefix = "containerd:"

type readingKey struct{}

// withReading marks the context of a Read: it is no question whether a blob is
// there, and a reader may go on with one that was deleted.
func withReading(ctx context.Context) context.Context {
	return context.WithValue(ctx, readingKey{}, true)
}

// Info says that a blob is there, which exposes it.
func (c *Content) Info(ctx context.Context, dgst digest.Digest) (content.Info, error) {
	if ctx.Value(readingKey{}) == nil {
		return c.store.Expose(dgst)
	}
	if info, ok := c.store.Exposed(dgst); ok {
		return info, nil
	}
	return c.store.Info(ctx, dgst)
}

// Update changes the labels of an exposed blob.
func (c *Content) Update(ctx context.Context, info content.Info, fieldpaths ...string) (content.Info, error) {
	if _, err := c.store.Expose(info.Digest); err != nil {
		return content.Info{}, err
	}
	return c.store.Update(ctx, info, fieldpaths...)
}

// Walk is over exposed blobs: containerd deletes what it lists and does not know.
func (c *Content) Walk(ctx context.Context, fn content.WalkFunc, filter ...string) error {
	return c.store.WalkExposed(ctx, fn, filter...)
}

// Delete says that containerd does not count on a blob any more. larder keeps it as
// long as its own rules say.
func (c *Content) Delete(_ context.Context, dgst digest.Digest) error {
	return c.store.Unexpose(dgst)
}

// ReaderAt opens a blob, exposed or not.
func (c *Content) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	return c.store.ReaderAt(ctx, desc)
}

// Status is that of one of containerd's ingests.
func (c *Content) Status(ctx context.Context, ref string) (content.Status, error) {
	st, err := c.store.Status(ctx, refPrefix+ref)
	st.Ref = ref
	return c.withProgress(st), err
}

// withProgress says of an ingest that has nothing yet how much a fill has of its blob:
// containerd shows it, and ends a pull that seems to stand still.
func (c *Content) withProgress(st content.Status) content.Status {
	dgst := digestOf(st.Ref, st.Total)
	if st.Offset > 0 || dgst == "" {
		return st
	}
	if p, ok := c.store.FillProgress(dgst); ok {
		st.Offset = min(p.Received, st.Total)
	}
	return st
}

// ListStatuses lists containerd's ingests.
func (c *Content) ListStatuses(ctx context.Context, filter ...string) ([]content.Status, error) {
	matches, err := filters.ParseAll(filter...)
	if err != nil {
		return nil, fmt.Errorf("list ingests: %w", err)
	}
	all, err := c.store.ListStatuses(ctx)
	if err != nil {
		return nil, err
	}
	var found []content.Status
	for _, st := range all {
		ref, ok := strings.CutPrefix(st.Ref, refPrefix)
		if st.Ref = ref; ok && matches.Match(refAdaptor(ref)) {
			found = append(found, c.withProgress(st))
		}
	}
	return found, nil
}

func refAdaptor(ref string) filters.Adaptor {
	return filters.AdapterFunc(func(path []string) (string, bool) {
		return ref, len(path) == 1 && path[0] == "ref"
	})
}

// Abort ends one of containerd's ingests.
func (c *Content) Abort(ctx context.Context, ref string) error {
	return c.store.Abort(ctx, refPrefix+ref)
}

// Writer opens an ingest. A blob that is there is exposed, and is
// errdefs.ErrAlreadyExists. containerd has no other place to write to: what does
// not fit the store's budget goes beyond it.
func (c *Content) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	if o.Ref == "" {
		return nil, fmt.Errorf("writer needs a ref: %w", errdefs.ErrInvalidArgument)
	}
	w, err := c.store.WriterBeyondBudget(ctx, content.WithRef(refPrefix+o.Ref), content.WithDescriptor(o.Desc))
	if err != nil {
		return nil, c.exposeExisting(o.Desc.Digest, err)
	}
	return &writer{Writer: w, content: c, ref: o.Ref, dgst: digestOf(o.Ref, o.Desc.Size), size: o.Desc.Size}, nil
}

// exposeExisting exposes a blob of which containerd hears now that it exists.
func (c *Content) exposeExisting(dgst digest.Digest, err error) error {
	if !errdefs.IsAlreadyExists(err) {
		return err
	}
	if _, xerr := c.store.Expose(dgst); xerr != nil {
		return fmt.Errorf("%s is there, and cannot be exposed: %w", dgst, xerr)
	}
	return err
}
