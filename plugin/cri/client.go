package cri

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// DefaultAddress is the socket of containerd, as its packages and EKS have it.
const DefaultAddress = "/run/containerd/containerd.sock"

const (
	// defaultTimeout is enough for a busy runtime with hundreds of pods.
	defaultTimeout = 10 * time.Second
	// maxMessage bounds one answer in bytes; the kubelet has the same bound.
	maxMessage = 16 << 20
)

// Client asks one runtime. It is safe for concurrent use, holds no connection
// between two questions, and needs no closing.
type Client struct {
	address string
	timeout time.Duration
	now     func() time.Time

	mu        sync.Mutex        // guards what follows; never held over a question
	last      InUse             // the last whole answer
	sandboxes map[string]string // sandbox ID to its image, which never changes
}

// Option changes a Client.
type Option func(*Client)

// WithTimeout bounds one question with all its parts. The default is 10 s.
func WithTimeout(d time.Duration) Option { return func(c *Client) { c.timeout = d } }

// WithClock sets what tells the time of an answer. The default is time.Now.
func WithClock(now func() time.Time) Option { return func(c *Client) { c.now = now } }

// New makes a client of the runtime whose unix socket is at address, with or
// without unix:// before it. It does not connect yet.
func New(address string, opts ...Option) *Client {
	c := &Client{
		address: strings.TrimPrefix(address, "unix://"), timeout: defaultTimeout, now: time.Now,
		sandboxes: map[string]string{},
	}
	for _, opt := range opts {
		opt(c)
	}
	return c
}

// Version says which runtime answers, as in "containerd" and "v2.4.2". Its
// errors are those of InUse.
func (c *Client) Version(ctx context.Context) (name, version string, err error) {
	err = c.ask(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		resp, err := runtime.NewRuntimeServiceClient(conn).Version(ctx, &runtime.VersionRequest{})
		name, version = resp.GetRuntimeName(), resp.GetRuntimeVersion()
		return err
	})
	return name, version, err
}

// ask connects, asks, and explains what went wrong.
func (c *Client) ask(ctx context.Context, question func(context.Context, *grpc.ClientConn) error) error {
	bounded, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	conn, err := grpc.NewClient("unix:"+c.address,
		grpc.WithTransportCredentials(insecure.NewCredentials()), // a unix socket; its mode says who may ask
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithNoProxy(),
	)
	if err != nil {
		return fmt.Errorf("container runtime on %q: %w: %w", c.address, err, errdefs.ErrInvalidArgument)
	}
	err = question(bounded, conn)
	_ = conn.Close() // nothing is under way any more
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("container runtime on %s: %w", c.address, context.Cause(ctx))
	}
	return c.explain(err)
}

// explain says what to do about a failed question.
func (c *Client) explain(err error) error {
	text := err.Error()
	if s, ok := status.FromError(err); ok {
		text = s.Message()
	}
	switch status.Code(err) {
	case codes.Unavailable:
		// What grpc puts around the error of the socket tells a person nothing.
		if _, dialing, ok := strings.Cut(text, "Error while dialing: "); ok {
			text = strings.TrimSuffix(strings.TrimPrefix(dialing, "dial unix "+c.address+": "), "\"")
		}
		if strings.Contains(text, "permission denied") {
			return fmt.Errorf("container runtime on %s: %s; ask as root: %w", c.address, text, errdefs.ErrPermissionDenied)
		}
		return fmt.Errorf("container runtime on %s: %s; see that it runs, and that this is its CRI socket (containerd: %s): %w",
			c.address, text, DefaultAddress, errdefs.ErrUnavailable)
	case codes.Unimplemented:
		return fmt.Errorf("container runtime on %s: it does not speak CRI v1; take \"cri\" out of disabled_plugins in containerd's config: %w",
			c.address, errdefs.ErrUnavailable)
	case codes.DeadlineExceeded:
		return fmt.Errorf("container runtime on %s: no answer in %s; see whether it hangs (crictl ps): %w", c.address, c.timeout, errdefs.ErrUnavailable)
	case codes.ResourceExhausted:
		return fmt.Errorf("container runtime on %s: its answer is too large: %s: %w", c.address, text, errdefs.ErrUnavailable)
	}
	return fmt.Errorf("container runtime on %s: %s: %w", c.address, text, errdefs.ErrUnavailable)
}

// isGone says that what was asked for has ended since it was listed.
func isGone(err error) bool { return status.Code(err) == codes.NotFound }
