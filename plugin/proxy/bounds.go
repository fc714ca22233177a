package proxy

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	api "github.com/containerd/containerd/api/services/content/v1"
	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// hungShare is the part of a limit that is left to others while a call is left
// behind: what needs no disk takes microseconds.
const hungShare = 50

// bounds keeps calls within Limits. Go cannot take back a call of the kernel that
// hangs: the work is left behind then, and ends when the disk answers.
type bounds struct {
	limits Limits
	logger *slog.Logger
	left   atomic.Int64 // calls that are left behind
	// isKnown says what Info tells without the disk, however many wait for that.
	isKnown func(digest.Digest) bool
}

func newBounds(l Limits, logger *slog.Logger) *bounds {
	return &bounds{limits: l.orDefault(), logger: logger, isKnown: func(digest.Digest) bool { return false }}
}

// isBounded reports whether containerd may wait for a call under a lock. A layer
// takes as long as it takes, and who watches larder's health waits for ever.
func isBounded(method string) bool { return strings.HasPrefix(method, "/containerd.services.content.") }

// admit refuses a call where too many are left behind.
func (b *bounds) admit() error {
	if n := b.left.Load(); n >= int64(b.limits.Waiting) {
		return status.Errorf(codes.Unavailable, "larder: %d calls wait for the store's disk already", n)
	}
	return nil
}

// patience is how long the next call or step may take. A disk that hangs has many
// ask one after the other: not each of them is to wait for as long as the first.
func (b *bounds) patience(limit time.Duration) time.Duration {
	if b.left.Load() > 0 {
		return limit / hungShare
	}
	return limit
}

// leave is the error of a call that is left behind until over is closed.
func (b *bounds) leave(method string, limit time.Duration, over <-chan struct{}) error {
	b.left.Add(1)
	go func() {
		<-over
		b.left.Add(-1)
	}()
	b.logger.Error("the store's disk does not answer: a call of containerd is given up", "method", method, "after", limit)
	return status.Errorf(codes.DeadlineExceeded, "larder: %s: the store's disk has not answered for %s", method, limit)
}

func (b *bounds) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if !isBounded(info.FullMethod) {
		return handler(ctx, req)
	}
	if r, ok := req.(*api.InfoRequest); !ok || !b.isKnown(digest.Digest(r.GetDigest())) {
		if err := b.admit(); err != nil {
			return nil, err
		}
	}
	var resp any
	var err error
	if _, left := b.within(info.FullMethod, b.limits.Call, func() { resp, err = handler(ctx, req) }); left != nil {
		return nil, left
	}
	return resp, err
}

// within waits for work no longer than limit. Work that is left behind, with an
// error, is over when over is closed.
func (b *bounds) within(method string, limit time.Duration, work func()) (over <-chan struct{}, left error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		work()
	}()
	limit = b.patience(limit)
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return done, nil
	case <-timer.C:
		return done, b.leave(method, limit, done)
	}
}

func (b *bounds) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if !isBounded(info.FullMethod) {
		return handler(srv, ss)
	}
	if err := b.admit(); err != nil {
		return err
	}
	limit := b.patience(b.limits.Step)
	w := &watched{ServerStream: ss, ctx: ss.Context(), timer: time.NewTimer(limit), step: func() time.Duration { return b.patience(b.limits.Step) }}
	if strings.HasSuffix(info.FullMethod, "/Read") {
		w.ctx = withReading(w.ctx)
	}
	var err error
	over := make(chan struct{})
	go func() {
		defer close(over)
		defer w.timer.Stop()
		err = handler(srv, w)
	}()
	select {
	case <-over:
		return err
	case <-w.timer.C:
		return b.leave(info.FullMethod, limit, over)
	}
}

// watched is a stream whose timer runs while larder works, and not while it waits
// for containerd.
type watched struct {
	grpc.ServerStream
	ctx  context.Context //nolint:containedctx // it is the stream's
	step func() time.Duration

	mu    sync.Mutex // one side may send while the other receives
	waits int
	timer *time.Timer
}

// Context is the call's.
func (w *watched) Context() context.Context { return w.ctx }

// SendMsg waits for containerd.
func (w *watched) SendMsg(m any) error {
	defer w.wait()()
	return w.ServerStream.SendMsg(m)
}

// RecvMsg waits for containerd.
func (w *watched) RecvMsg(m any) error {
	defer w.wait()()
	return w.ServerStream.RecvMsg(m)
}

func (w *watched) wait() (done func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waits++; w.waits == 1 {
		w.timer.Stop()
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.waits--; w.waits == 0 {
			w.timer.Reset(w.step())
		}
	}
}
