package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	api "github.com/containerd/containerd/api/services/content/v1"
	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/services/content/contentserver"
	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/plugin/unpack"
)

// Options of a Server.
type Options struct {
	// Limits bound how long a call may take. The zero value is DefaultLimits.
	Limits Limits
	// Awaiter waits for what containerd is about to write. Nil: for the fills that run.
	Awaiter Awaiter
	// Wait is how long it may wait before an upstream begins to send, as
	// mirror.Options.Wait; 0: as long as between any bytes.
	Wait time.Duration
	// Unpacker unpacks layers.
	Unpacker unpack.Unpacker
	Logger   *slog.Logger // nil: slog.Default
}

// Server is larder as containerd's proxy plugin: one gRPC server for one
// containerd, to serve on a unix socket that root alone may open.
type Server struct {
	grpc   *grpc.Server
	health *health.Server
	logger *slog.Logger
}

// maxMessage is what a call may bring: containerd sends up to 8 MiB.
const maxMessage = 16 << 20

// New makes a server over a store that was opened with cache.WithExposure.
func New(store *cache.Store, o Options) *Server {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	b := newBounds(o.Limits, o.Logger)
	b.isKnown = func(dgst digest.Digest) bool {
		_, ok := store.Exposed(dgst)
		return ok
	}
	if o.Awaiter == nil {
		o.Awaiter = fills{store}
	}
	s := newServer(b, newFillWait(o.Awaiter, o.Wait, b).stream, o)
	api.RegisterContentServer(s.grpc, contentserver.New(NewContent(store)))
	diffapi.RegisterDiffServer(s.grpc, &differ{store: &layers{store: store, bounds: b, logger: o.Logger}, unpacker: o.Unpacker, logger: o.Logger})
	return s
}

// NewDiffer makes a server that unpacks layers, for a containerd that has a content
// store of its own: it is told of nothing that is in the store. Layers that are not
// in it are read elsewhere, as a Containerd gives them.
func NewDiffer(store *cache.Store, elsewhere content.Provider, o Options) *Server {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	b := newBounds(o.Limits, o.Logger)
	s := newServer(b, b.stream, o)
	all := &layers{store: store, bounds: b, elsewhere: elsewhere, logger: o.Logger}
	diffapi.RegisterDiffServer(s.grpc, &differ{store: all, unpacker: o.Unpacker, logger: o.Logger})
	return s
}

func newServer(b *bounds, streams grpc.StreamServerInterceptor, o Options) *Server {
	s := &Server{
		grpc: grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
			grpc.UnaryInterceptor(b.unary), grpc.StreamInterceptor(streams)),
		health: health.NewServer(), logger: o.Logger,
	}
	grpc_health_v1.RegisterHealthServer(s.grpc, s.health)
	return s
}

// Serve serves until Shutdown, which is no error.
func (s *Server) Serve(l net.Listener) error {
	err := s.grpc.Serve(l)
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("proxy plugin: %w", err)
	}
	return nil
}

// Shutdown takes no new calls and waits for those that run, until ctx ends: then
// they are cut off, which containerd sees as a connection that broke.
func (s *Server) Shutdown(ctx context.Context) {
	s.health.Shutdown()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.grpc.GracefulStop()
	}()
	select {
	case <-done:
	case <-ctx.Done():
		s.logger.Warn("calls of containerd are cut off at the deadline")
		s.grpc.Stop() // GracefulStop goes on waiting for a call that the disk does not answer
	}
}

// Limits bound how long larder may keep containerd waiting. containerd asks for
// Info and commits under the lock of its database, which all of the node's pods
// need: an error is better for them than an answer that is late.
type Limits struct {
	// Call is how long one that has an answer may take. While one is left behind
	// the others have a fiftieth of it.
	Call time.Duration
	// Step is how long a read or write may take over one message, or a commit; a
	// fiftieth likewise. What containerd takes for itself does not count.
	Step time.Duration
	// Waiting is how many may be left behind, because the disk has not answered
	// them. More are refused at once.
	Waiting int
}

// DefaultLimits are those of a disk that is slow and not hung.
func DefaultLimits() Limits {
	return Limits{Call: 5 * time.Second, Step: 30 * time.Second, Waiting: 256}
}

func (l Limits) orDefault() Limits {
	d := DefaultLimits()
	return Limits{Call: cmp.Or(l.Call, d.Call), Step: cmp.Or(l.Step, d.Step), Waiting: cmp.Or(l.Waiting, d.Waiting)}
}
