package proxy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	api "github.com/containerd/containerd/api/services/content/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"

	"github.com/larder-project/larder/cache"
)

// messages is a stream with some to receive.
type messages struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // the stream's
	all chan *api.WriteContentRequest
}

// asking is a write that is opened for a layer, and asks for its status: n messages.
func asking(t *testing.T, desc ocispec.Descriptor, n int) *messages {
	t.Helper()
	m := &messages{ctx: t.Context(), all: make(chan *api.WriteContentRequest, n)}
	m.all <- &api.WriteContentRequest{Action: api.WriteAction_STAT, Ref: "layer-" + desc.Digest.String(), Total: desc.Size}
	for range n - 1 {
		m.all <- &api.WriteContentRequest{Action: api.WriteAction_STAT}
	}
	close(m.all)
	return m
}

func (m *messages) Context() context.Context { return m.ctx }

func (m *messages) RecvMsg(into any) error {
	msg, ok := <-m.all
	req, is := into.(*api.WriteContentRequest)
	if !ok || !is {
		return io.EOF
	}
	req.Action, req.Ref, req.Total = msg.GetAction(), msg.GetRef(), msg.GetTotal()
	return nil
}

func (*messages) SendMsg(any) error { return nil }

// TestCommitWaitsForNothing: only the second message waits. containerd asks again when it
// commits, under the lock of its database, also what is whole from the start, because a
// crash came before its commit.
func TestCommitWaitsForNothing(t *testing.T) {
	t.Parallel()
	_, desc := blobOf("layer", 1000)
	for name, c := range map[string]struct {
		offsets []int64 // that each message is answered with
		waits   int32
	}{
		"brought": {[]int64{0, desc.Size, desc.Size}, 1},
		"fetched": {[]int64{0, 0, 0}, 1},
		"resumed": {[]int64{desc.Size / 2, desc.Size / 2, desc.Size / 2}, 0},
		"whole":   {[]int64{desc.Size, desc.Size, desc.Size}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var waits atomic.Int32
			a := awaiterFunc(func(func()) { waits.Add(1) })
			ss := asking(t, desc, len(c.offsets))
			f := newFillWait(a, 0, newBounds(Limits{}, slog.New(slog.DiscardHandler)))
			err := f.stream(nil, ss, &grpc.StreamServerInfo{FullMethod: writeMethod}, func(_ any, ss grpc.ServerStream) error {
				for _, offset := range c.offsets {
					if err := ss.RecvMsg(&api.WriteContentRequest{}); err != nil {
						return err
					}
					if err := ss.SendMsg(&api.WriteContentResponse{Offset: offset}); err != nil {
						return err
					}
				}
				return nil
			})
			if n := waits.Load(); err != nil || n != c.waits {
				t.Errorf("%v, %d waits, want %d", err, n, c.waits)
			}
		})
	}
}

// TestLongFillIsNoHungDisk: what is waited for a fill is no time that the disk takes.
// The first message waits for nothing.
func TestLongFillIsNoHungDisk(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		quiet := slog.New(slog.DiscardHandler)
		store, err := cache.Open(root, cache.WithLogger(quiet), cache.WithExposure(testGrace))
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		data, desc := blobOf("layer", 3<<20)
		src := &gated{data: data, gate: make(chan struct{})}
		if _, _, err := store.Fill(t.Context(), desc.Digest, -1, src); err != nil {
			t.Fatal(err)
		}
		ss := asking(t, desc, 2)
		bounded := newBounds(Limits{Step: 10 * time.Second}, quiet)
		info := &grpc.StreamServerInfo{FullMethod: writeMethod}
		const long = 25 * time.Second // and less than fills wait for a byte
		time.AfterFunc(long, func() { close(src.gate) })
		var opened, asked time.Duration
		began := time.Now()
		err = newFillWait(fills{store}, 0, bounded).stream(nil, ss, info, func(_ any, ss grpc.ServerStream) error {
			if err := ss.RecvMsg(&api.WriteContentRequest{}); err != nil {
				return err
			}
			opened = time.Since(began)
			err := ss.RecvMsg(&api.WriteContentRequest{})
			asked = time.Since(began)
			return err
		})
		if err != nil || opened != 0 || asked != long {
			t.Errorf("%v, opened after %v, answered after %v; want 0 and %v", err, opened, asked, long)
		}
	})
}

// awaiterFunc is an Awaiter.
type awaiterFunc func(moved func())

func (f awaiterFunc) AwaitBlob(_ context.Context, _ digest.Digest, moved func()) error {
	f(moved)
	return nil
}

// TestHungFillIsLeft: what moves is waited for as long as it takes. Once nothing has come
// for longer than upstream and the disk may be silent, it is waited for no more.
func TestHungFillIsLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		well := make(chan struct{})
		const steps, step = 20, 40 * time.Second
		a := awaiterFunc(func(moved func()) {
			for range steps {
				<-time.After(step)
				moved()
			}
			<-well
		})
		_, desc := blobOf("layer", 1000)
		ss := asking(t, desc, 3)
		bounded := newBounds(Limits{Step: 15 * time.Second}, slog.New(slog.DiscardHandler))
		began := time.Now()
		var took []time.Duration
		err := newFillWait(a, 0, bounded).stream(nil, ss, &grpc.StreamServerInfo{FullMethod: writeMethod}, func(_ any, ss grpc.ServerStream) error {
			for range 3 {
				if err := ss.RecvMsg(&api.WriteContentRequest{}); err != nil {
					return err
				}
				took = append(took, time.Since(began))
			}
			return nil
		})
		patience := cache.DefaultFillPolicy().Stall + bounded.limits.Step
		if want := []time.Duration{0, steps*step + patience, steps*step + patience}; err != nil || !slices.Equal(took, want) {
			t.Errorf("%v, messages after %v, want %v", err, took, want)
		}
		close(well)
	})
}

// TestSilentUpstreamIsLeft: an upstream that does not begin to send is waited for no
// longer than the mirror waits for it, and one that has begun is as long as it goes on.
func TestSilentUpstreamIsLeft(t *testing.T) {
	t.Parallel()
	const wait, long = 4 * time.Second, 40 * time.Second
	for name, c := range map[string]struct{ begins, want time.Duration }{
		"silent": {long, wait},
		"begins": {wait - time.Second, long},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := awaiterFunc(func(moved func()) {
					<-time.After(c.begins)
					moved()
					<-time.After(long - c.begins)
				})
				_, desc := blobOf("layer", 1000)
				ss := asking(t, desc, 2)
				bounded := newBounds(Limits{}, slog.New(slog.DiscardHandler))
				began := time.Now()
				err := newFillWait(a, wait, bounded).stream(nil, ss, &grpc.StreamServerInfo{FullMethod: writeMethod}, func(_ any, ss grpc.ServerStream) error {
					return errors.Join(ss.RecvMsg(&api.WriteContentRequest{}), ss.RecvMsg(&api.WriteContentRequest{}))
				})
				if took := time.Since(began); err != nil || took != c.want {
					t.Errorf("%v, answered after %v, want %v", err, took, c.want)
				}
				<-time.After(long) // until the awaiter has ended
			})
		})
	}
}
