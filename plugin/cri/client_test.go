package cri_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/larder-project/larder/plugin/cri"
)

// node is a scripted runtime on a real socket.
type node struct {
	runtime.UnimplementedRuntimeServiceServer
	runtime.UnimplementedImageServiceServer
	address string

	mu         sync.Mutex // guards what follows
	pods       []*runtime.PodSandbox
	containers []*runtime.Container
	images     []*runtime.Image
	sandboxes  map[string]string // ID to the info that is told
	asked      int               // for single sandboxes
	fail       map[string]error  // by method
	hang       bool
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{address: filepath.Join(t.TempDir(), "s"), sandboxes: map[string]string{}, fail: map[string]error{}}
	listener, err := net.Listen("unix", n.address)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	runtime.RegisterRuntimeServiceServer(server, n)
	runtime.RegisterImageServiceServer(server, n)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return n
}

// change changes what the node answers.
func (n *node) change(do func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	do()
}

func (n *node) Version(context.Context, *runtime.VersionRequest) (*runtime.VersionResponse, error) {
	return &runtime.VersionResponse{RuntimeName: "containerd", RuntimeVersion: "v2.4.2"}, nil
}

func (n *node) ListPodSandbox(ctx context.Context, _ *runtime.ListPodSandboxRequest) (*runtime.ListPodSandboxResponse, error) {
	n.mu.Lock()
	hang := n.hang
	n.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return &runtime.ListPodSandboxResponse{Items: n.pods}, n.fail["pods"]
}

func (n *node) PodSandboxStatus(_ context.Context, r *runtime.PodSandboxStatusRequest) (*runtime.PodSandboxStatusResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	info, ok := n.sandboxes[r.GetPodSandboxId()]
	if !ok {
		return nil, status.Error(codes.NotFound, "no such sandbox")
	}
	if !r.GetVerbose() {
		return &runtime.PodSandboxStatusResponse{}, nil
	}
	return &runtime.PodSandboxStatusResponse{Info: map[string]string{"info": info}}, n.fail["sandbox"]
}

func (n *node) ListContainers(context.Context, *runtime.ListContainersRequest) (*runtime.ListContainersResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return &runtime.ListContainersResponse{Containers: n.containers}, n.fail["containers"]
}

func (n *node) ListImages(context.Context, *runtime.ListImagesRequest) (*runtime.ListImagesResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return &runtime.ListImagesResponse{Images: n.images}, n.fail["images"]
}

func TestVersion(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	name, version, err := cri.New("unix://" + n.address).Version(t.Context())
	if name != "containerd" || version != "v2.4.2" || err != nil {
		t.Errorf("version: got %q %q, %v", name, version, err)
	}
}

// Whatever is wrong with the runtime, the error is of a kind to decide by, and
// says what to do.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	dead := filepath.Join(t.TempDir(), "dead")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	old := newNode(t)
	old.change(func() {
		old.fail["pods"] = status.Error(codes.Unimplemented, "unknown service runtime.v1.RuntimeService")
	})
	for name, c := range map[string]struct{ address, want string }{
		"no socket":      {filepath.Join(t.TempDir(), "absent"), "absent: connect: no such file or directory; see that it runs"},
		"nobody listens": {dead, "see that it runs"},
		"no CRI":         {old.address, "disabled_plugins"},
	} {
		used, err := cri.New(c.address).InUse(t.Context())
		if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.address) {
			t.Errorf("%s: got %v, want ErrUnavailable that names %s and says %q", name, err, c.address, c.want)
		}
		if !used.Time.IsZero() || len(used.Digests) > 0 {
			t.Errorf("%s: got an answer: %v", name, used)
		}
	}
}

func TestSilentRuntime(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.change(func() { n.hang = true })
	_, err := cri.New(n.address, cri.WithTimeout(50*time.Millisecond)).InUse(t.Context())
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "no answer in 50ms") {
		t.Errorf("silent runtime: got %v, want ErrUnavailable after 50ms", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("shutting down")
	cancel(why)
	if _, err := cri.New(n.address).InUse(ctx); !errors.Is(err, why) {
		t.Errorf("cancelled: got %v, want %v", err, why)
	}
}

func TestHugeAnswer(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.change(func() { n.images = []*runtime.Image{{Id: strings.Repeat("x", 17<<20)}} })
	if _, err := cri.New(n.address).InUse(t.Context()); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "too large") {
		t.Errorf("answer of 17 MiB: got %v, want ErrUnavailable", err)
	}
}
