package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/services/content/contentserver"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/grpc"
	grpcmetadata "google.golang.org/grpc/metadata"
)

// otherContainerd is containerd's content service over a content store of its own
// and its database, and what of its namespaces service is asked.
type otherContainerd struct {
	namespacesapi.UnimplementedNamespacesServer
	db      *metadata.DB
	address string
	server  *grpc.Server
	ended   chan error
	hangs   atomic.Bool // who asks for content waits until the call ends
}

func newOtherContainerd(t *testing.T) *otherContainerd {
	t.Helper()
	dir := t.TempDir()
	store, err := local.NewStore(filepath.Join(dir, "content"))
	if err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(filepath.Join(dir, "meta.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &otherContainerd{db: metadata.NewDB(db, store, nil), address: filepath.Join(dir, "s")}
	c.start(t)
	t.Cleanup(func() {
		c.stop(t)
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func (c *otherContainerd) start(t *testing.T) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", c.address)
	if err != nil {
		t.Fatal(err)
	}
	c.server = grpc.NewServer(
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			if c.hangs.Load() {
				<-ctx.Done()
			}
			return handler(ctx, req)
		}),
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			if c.hangs.Load() {
				<-ss.Context().Done()
			}
			return handler(srv, ss)
		}))
	contentapi.RegisterContentServer(c.server, contentserver.New(c.db.ContentStore()))
	namespacesapi.RegisterNamespacesServer(c.server, c)
	ended := make(chan error, 1)
	c.ended = ended
	server := c.server
	go func() { ended <- server.Serve(l) }()
}

func (c *otherContainerd) stop(t *testing.T) {
	t.Helper()
	if c.server == nil {
		return
	}
	c.server.Stop()
	if err := <-c.ended; err != nil {
		t.Error(err)
	}
	c.server = nil
}

// List says all namespaces.
func (c *otherContainerd) List(context.Context, *namespacesapi.ListNamespacesRequest) (*namespacesapi.ListNamespacesResponse, error) {
	resp := &namespacesapi.ListNamespacesResponse{}
	err := c.db.View(func(tx *bolt.Tx) error {
		names, err := metadata.NewNamespaceStore(tx).List(context.Background())
		for _, name := range names {
			resp.Namespaces = append(resp.Namespaces, &namespacesapi.Namespace{Name: name})
		}
		return err
	})
	return resp, err
}

// put has a blob in a namespace.
func (c *otherContainerd) put(t *testing.T, namespace string, data []byte, desc ocispec.Descriptor) {
	t.Helper()
	ctx := namespaces.WithNamespace(t.Context(), namespace)
	if err := content.WriteBlob(ctx, c.db.ContentStore(), desc.Digest.String(), bytes.NewReader(data), desc); err != nil {
		t.Fatal(err)
	}
}

// calledFrom is the context of a call that came from a namespace of containerd's.
func calledFrom(t *testing.T, namespace string) context.Context {
	t.Helper()
	return grpcmetadata.NewIncomingContext(t.Context(), grpcmetadata.Pairs(namespaces.GRPCHeader, namespace))
}

func newClient(t *testing.T, address string, limits Limits) *Containerd {
	t.Helper()
	c, err := NewContainerd(address, limits)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func readAll(ra content.ReaderAt) ([]byte, error) {
	return io.ReadAll(content.NewReader(ra))
}

// TestContainerd reads a blob by containerd's API: in the namespace that asks, and
// also after containerd was away.
func TestContainerd(t *testing.T) {
	t.Parallel()
	other := newOtherContainerd(t)
	data, desc := blobOf("layer", 3<<20)
	other.put(t, "k8s.io", data, desc)
	_, elsewhere := blobOf("elsewhere", 10)
	for _, address := range []string{other.address, "unix://" + other.address} {
		c := newClient(t, address, Limits{})
		read := func() error {
			ra, err := c.ReaderAt(calledFrom(t, "k8s.io"), desc)
			if err != nil {
				return err
			}
			got, err := readAll(ra)
			if err == nil && !bytes.Equal(got, data) {
				t.Errorf("%d other bytes", len(got))
			}
			return errors.Join(err, ra.Close())
		}
		if err := read(); err != nil {
			t.Error(err)
		}
		for name, ctx := range map[string]context.Context{"another namespace": calledFrom(t, "moby"), "no namespace": t.Context()} {
			if _, err := c.ReaderAt(ctx, desc); !errdefs.IsNotFound(err) {
				t.Errorf("%s: %v, want not found", name, err)
			}
		}
		if _, err := c.ReaderAt(calledFrom(t, "k8s.io"), elsewhere); !errdefs.IsNotFound(err) {
			t.Errorf("what is not there: %v, want not found", err)
		}
		other.stop(t)
		if err := read(); !errdefs.IsUnavailable(err) {
			t.Errorf("containerd is away: %v, want unavailable", err)
		}
		other.start(t)
		began := time.Now()
		for err := read(); err != nil; err = read() {
			if time.Since(began) > time.Minute {
				t.Fatalf("containerd is back: %v", err)
			}
		}
	}
}

// TestContainerdHangs: a containerd that does not answer is not waited for.
func TestContainerdHangs(t *testing.T) {
	t.Parallel()
	other := newOtherContainerd(t)
	data, desc := blobOf("layer", 3<<20)
	other.put(t, "k8s.io", data, desc)
	c := newClient(t, other.address, Limits{Call: time.Second, Step: time.Second})
	ra, err := c.ReaderAt(calledFrom(t, "k8s.io"), desc)
	if err != nil {
		t.Fatal(err)
	}
	defer ra.Close()
	other.hangs.Store(true)
	if _, err := ra.ReadAt(make([]byte, 10), 0); !errdefs.IsUnavailable(err) {
		t.Errorf("read: %v, want unavailable", err)
	}
	if _, err := c.ReaderAt(calledFrom(t, "k8s.io"), desc); !errdefs.IsUnavailable(err) {
		t.Errorf("open: %v, want unavailable", err)
	}
}

var errBroken = errors.New("broken")

// brokenProvider gives a blob up to a byte, and then only errors.
type brokenProvider struct {
	content.Provider
	at int64
}

func (p brokenProvider) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	ra, err := p.Provider.ReaderAt(ctx, desc)
	return brokenReader{ra, p.at}, err
}

type brokenReader struct {
	content.ReaderAt
	at int64
}

func (r brokenReader) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > r.at {
		return 0, fmt.Errorf("at %d: %w", off, errBroken)
	}
	return r.ReaderAt.ReadAt(p, off)
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
