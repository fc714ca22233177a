package proxy

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	api "github.com/containerd/containerd/api/services/content/v1"
	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc"

	"github.com/larder-project/larder/cache"
)

// Awaiter waits for a blob that containerd is about to fetch, and may bring it: see
// remotes.Registry.AwaitBlob. It returns when the blob is stored, or cannot be, and calls
// moved when an upstream begins to send it, and each time that some of it has come.
type Awaiter interface {
	AwaitBlob(ctx context.Context, dgst digest.Digest, moved func()) error
}

// fills is an Awaiter that brings nothing itself.
type fills struct{ store *cache.Store }

func (f fills) AwaitBlob(ctx context.Context, dgst digest.Digest, moved func()) error {
	return f.store.AwaitFill(ctx, dgst, moved)
}

// fillWait has a write of containerd's wait for larder to bring the same blob, so that
// the bytes need not go from larder to containerd and back. containerd opens an ingest,
// and asks for its status before it fetches: no lock of its database is held then. A
// status that says that all is there has it commit, and fetch nothing.
//
// That is the second message, and only it waits. containerd asks again under its lock,
// when it commits.
type fillWait struct {
	awaiter Awaiter
	// arrival is how long an upstream may take to begin to send, as for who asks the
	// mirror: containerd may do better elsewhere.
	arrival time.Duration
	// patience is for how long nothing may come: upstream, or the disk, hangs then.
	patience time.Duration
	// within bounds the rest. What is waited for may take as long as it moves.
	within grpc.StreamServerInterceptor
	logger *slog.Logger
}

// newFillWait makes one; wait is the arrival, 0: as long as the patience.
func newFillWait(a Awaiter, wait time.Duration, b *bounds) fillWait {
	patience := cache.DefaultFillPolicy().Stall + b.limits.Step
	return fillWait{awaiter: a, arrival: cmp.Or(wait, patience), patience: patience, within: b.stream, logger: b.logger}
}

// writeMethod is the call by which containerd writes.
const writeMethod = "/containerd.services.content.v1.Content/Write"

// stream is a grpc.StreamServerInterceptor.
func (f fillWait) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if info.FullMethod == writeMethod {
		ss = &waitingStream{ServerStream: ss, fillWait: f}
	}
	return f.within(srv, ss, info, handler)
}

// waitingStream is one write.
type waitingStream struct {
	grpc.ServerStream
	fillWait
	opened bool
	dgst   digest.Digest // what may be waited for; "": nothing, or nothing any more
}

// SendMsg sends an answer. Of an ingest that has bytes already nothing is waited for: it
// goes on, or is committed.
func (w *waitingStream) SendMsg(m any) error {
	if resp, ok := m.(*api.WriteContentResponse); ok && resp.GetOffset() > 0 {
		w.dgst = ""
	}
	return w.ServerStream.SendMsg(m)
}

// RecvMsg returns the next message, a status when there is nothing to wait for.
func (w *waitingStream) RecvMsg(m any) error {
	if err := w.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	req, ok := m.(*api.WriteContentRequest)
	switch {
	case !ok:
	case !w.opened: // under the lock of containerd's database, which is not to be held up
		w.opened = true
		w.dgst = digestOf(req.GetRef(), req.GetTotal())
	case w.dgst != "":
		if req.GetAction() == api.WriteAction_STAT {
			w.wait()
		}
		w.dgst = ""
	}
	return nil
}

// wait returns when nobody brings the blob any more, containerd has gone, or nothing has
// come for too long. Whatever it was, containerd goes on by itself, and hears why that
// fails, if so. A call of the kernel that hangs is left behind, as by bounds.
func (w *waitingStream) wait() {
	ctx, leave := context.WithCancel(w.Context())
	defer leave()
	hung := time.NewTimer(w.arrival)
	defer hung.Stop()
	over, dgst := make(chan struct{}), w.dgst // which is forgotten while what hangs goes on
	go func() {
		defer close(over)
		_ = w.awaiter.AwaitBlob(ctx, dgst, func() { hung.Reset(w.patience) })
	}()
	select {
	case <-over:
	case <-ctx.Done():
	case <-hung.C:
		w.logger.Warn("containerd fetches a blob of which nothing has come", "digest", dgst)
	}
}

// digestOf is the blob that a ref is for, and "" if it does not say, or how large it is
// is not known. containerd's pulls name an ingest by the kind of the blob and its
// digest (remotes.MakeRefKey), and its database puts a number and the namespace before
// that. Others have a digest in their refs of what they convert, and write another.
func digestOf(ref string, size int64) digest.Digest {
	kind, dgst, ok := strings.Cut(ref[strings.LastIndexByte(ref, '/')+1:], "-")
	if !ok || size <= 0 || !slices.Contains([]string{"layer", "config", "manifest", "index", "attestation", "unknown"}, kind) {
		return ""
	}
	parsed, err := digest.Parse(dgst)
	if err != nil {
		return ""
	}
	return parsed
}
