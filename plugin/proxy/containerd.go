package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	contentproxy "github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
)

// reconnect says how a connection to containerd is made again: it is on this machine,
// and back within seconds when it was restarted.
func reconnect() grpc.ConnectParams {
	return grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
		MinConnectTimeout: 2 * time.Second,
	}
}

// Containerd is the content that a containerd has in its own content store, by its
// API. It is safe for concurrent use.
type Containerd struct {
	address string
	limits  Limits
	conn    *grpc.ClientConn
	content content.Provider
}

var _ content.Provider = (*Containerd)(nil)

// NewContainerd makes a client of the containerd whose unix socket is at address,
// with or without unix:// before it. It connects when it is first asked, and anew
// where the connection was lost. Close it. Limits are as for a Server.
func NewContainerd(address string, limits Limits) (*Containerd, error) {
	conn, err := grpc.NewClient("unix://"+strings.TrimPrefix(address, "unix://"),
		grpc.WithTransportCredentials(insecure.NewCredentials()), // a unix socket; its mode says who may ask
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithConnectParams(reconnect()))
	if err != nil {
		return nil, fmt.Errorf("containerd at %s: %w", address, err)
	}
	return &Containerd{address: address, limits: limits.orDefault(), conn: conn, content: contentproxy.NewContentStore(conn)}, nil
}

// Close ends the connection, and what is read over it.
func (c *Containerd) Close() error { return c.conn.Close() }

// ReaderAt opens a blob of the namespace that ctx has, or that a call of containerd
// came with. Without one it is errdefs.ErrNotFound: containerd 1.x does not say.
func (c *Containerd) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	namespace, ok := namespaces.Namespace(ctx)
	if !ok {
		return nil, fmt.Errorf("containerd at %s did not say in which namespace it has %s: %w", c.address, desc.Digest, errdefs.ErrNotFound)
	}
	ctx, cancel := context.WithCancelCause(namespaces.WithNamespace(ctx, namespace))
	r := &remoteReader{ctx: ctx, cancel: cancel, limit: c.limits.Step}
	err := r.within(c.limits.Call, func() (err error) {
		r.ReaderAt, err = c.content.ReaderAt(ctx, desc)
		return err
	})
	if err != nil {
		cancel(nil)
		return nil, fmt.Errorf("ask containerd at %s, namespace %s, for %s: %w", c.address, namespace, desc.Digest, err)
	}
	return r, nil
}

// remoteReader is a blob of containerd's, each read of which is bounded.
type remoteReader struct {
	content.ReaderAt
	ctx    context.Context //nolint:containedctx // all reads are calls below it
	cancel context.CancelCauseFunc
	limit  time.Duration
}

// ReadAt reads what the API gives, in one call: the more at a time, the fewer calls.
func (r *remoteReader) ReadAt(p []byte, off int64) (n int, err error) {
	err = r.within(r.limit, func() (err error) {
		n, err = r.ReaderAt.ReadAt(p, off)
		return err
	})
	return n, err
}

// within has a call end after limit, and all that come after it.
func (r *remoteReader) within(limit time.Duration, call func() error) error {
	timer := time.AfterFunc(limit, func() {
		r.cancel(fmt.Errorf("containerd has not answered for %s: %w", limit, errdefs.ErrUnavailable))
	})
	defer timer.Stop()
	err := call()
	if err != nil && !errors.Is(err, io.EOF) && r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	return err
}

// Close ends what is under way.
func (r *remoteReader) Close() error {
	defer r.cancel(nil)
	return r.ReaderAt.Close()
}
