package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	api "github.com/containerd/containerd/api/services/content/v1"
	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/larder-project/larder/cache"
)

// hungDisk is a disk whose every call waits until it is well, once it hangs.
type hungDisk struct {
	cache.Disk
	hangs chan struct{} // closed when it hangs
	well  chan struct{} // closed when it answers again
	waits func()        // is called by who has to wait
}

func newHungDisk() hungDisk {
	return hungDisk{cache.OSDisk(), make(chan struct{}), make(chan struct{}), func() {}}
}

func (d hungDisk) wait() {
	select {
	case <-d.hangs:
		d.waits()
		<-d.well
	default:
	}
}

func (d hungDisk) OpenFile(path string, flag int, perm fs.FileMode) (cache.File, error) {
	d.wait()
	return d.Disk.OpenFile(path, flag, perm)
}

func (d hungDisk) Lstat(path string) (fs.FileInfo, error) {
	d.wait()
	return d.Disk.Lstat(path)
}

// TestInfoOnHungDisk: what containerd was told of it is told while the disk hangs,
// and lists are, too.
func TestInfoOnHungDisk(t *testing.T) {
	t.Parallel()
	disk := newHungDisk()
	store, client := newServed(t, cache.WithDisk(disk))
	defer close(disk.well)
	data, desc := blobOf("x", 1000)
	other, otherDesc := blobOf("y", 1000)
	if err := content.WriteBlob(t.Context(), client, "x", bytes.NewReader(data), desc); err != nil {
		t.Fatal(err)
	}
	if err := store.Put(t.Context(), otherDesc.Digest, other, cache.Facts{}); err != nil {
		t.Fatal(err)
	}
	close(disk.hangs)
	if info, err := client.Info(t.Context(), desc.Digest); err != nil || info.Size != desc.Size {
		t.Errorf("info: %+v, %v", info, err)
	}
	listed := 0
	if err := client.Walk(t.Context(), func(content.Info) error {
		listed++
		return nil
	}); err != nil || listed != 1 {
		t.Errorf("%d are listed, %v, want 1", listed, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan error, 1)
	go func() {
		_, err := client.Info(ctx, otherDesc.Digest)
		asked <- err
	}()
	cancel()
	if err := <-asked; err == nil {
		t.Error("what needs the disk is told without it")
	}
}

// TestBounds: a call that the disk does not answer is an error in time, and too
// many of them are refused at once, until the disk answers.
func TestBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBounds(Limits{Call: 5 * time.Second, Waiting: 2}, slog.New(slog.DiscardHandler))
		well := make(chan struct{})
		call := func(handler grpc.UnaryHandler) (any, error) {
			return b.unary(t.Context(), "request", &grpc.UnaryServerInfo{FullMethod: "/containerd.services.content.v1.Content/Info"}, handler)
		}
		hung := func(context.Context, any) (any, error) {
			<-well
			return nil, nil
		}
		fine := func(_ context.Context, req any) (any, error) { return req, io.EOF }
		if resp, err := call(fine); resp != "request" || !errors.Is(err, io.EOF) {
			t.Errorf("a call that is answered: %v, %v", resp, err)
		}
		for _, want := range []time.Duration{5 * time.Second, 100 * time.Millisecond} {
			began := time.Now()
			if _, err := call(hung); status.Code(err) != codes.DeadlineExceeded || time.Since(began) != want {
				t.Errorf("a call that hangs: %v after %s, want deadline exceeded after %s", err, time.Since(began), want)
			}
		}
		if _, err := call(fine); status.Code(err) != codes.Unavailable {
			t.Errorf("with two left behind: %v, want unavailable", err)
		}
		dgst := digest.FromString("known")
		b.isKnown = func(d digest.Digest) bool { return d == dgst }
		info := &grpc.UnaryServerInfo{FullMethod: "/containerd.services.content.v1.Content/Info"}
		if _, err := b.unary(t.Context(), &api.InfoRequest{Digest: dgst.String()}, info, fine); !errors.Is(err, io.EOF) {
			t.Errorf("what memory knows, with two left behind: %v", err)
		}
		close(well)
		synctest.Wait()
		if resp, err := call(fine); resp != "request" || !errors.Is(err, io.EOF) {
			t.Errorf("when the disk answers again: %v, %v", resp, err)
		}
	})
}

// scriptedStream is a stream whose client takes its time.
type scriptedStream struct {
	grpc.ServerStream
	ctx  context.Context //nolint:containedctx // it is the stream's
	slow time.Duration
}

func (s scriptedStream) Context() context.Context { return s.ctx }

func (s scriptedStream) RecvMsg(any) error {
	<-time.After(s.slow)
	return nil
}

func (s scriptedStream) SendMsg(any) error { return s.RecvMsg(nil) }

// TestBoundsOfStreams: a stream may take as long as containerd does, and a step of
// it not longer than it may.
func TestBoundsOfStreams(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBounds(Limits{Step: 30 * time.Second}, slog.New(slog.DiscardHandler))
		ss := scriptedStream{ctx: t.Context(), slow: time.Hour}
		well := make(chan struct{})
		run := func(method string, handler grpc.StreamHandler) (time.Duration, error) {
			began := time.Now()
			err := b.stream(nil, ss, &grpc.StreamServerInfo{FullMethod: method}, handler)
			return time.Since(began), err
		}
		took, err := run("/containerd.services.content.v1.Content/Write", func(_ any, ss grpc.ServerStream) error {
			for range 5 {
				if err := errors.Join(ss.RecvMsg(nil), ss.SendMsg(nil)); err != nil {
					return err
				}
				<-time.After(29 * time.Second) // the disk is slow
			}
			return io.EOF
		})
		if !errors.Is(err, io.EOF) || took != 10*time.Hour+5*29*time.Second {
			t.Errorf("a slow client on a slow disk: %v after %s", err, took)
		}
		took, err = run("/containerd.services.content.v1.Content/Write", func(_ any, ss grpc.ServerStream) error {
			if err := ss.RecvMsg(nil); err != nil {
				return err
			}
			<-well
			return nil
		})
		if status.Code(err) != codes.DeadlineExceeded || took != time.Hour+30*time.Second {
			t.Errorf("a disk that hangs: %v after %s, want deadline exceeded after 30s of it", err, took)
		}
		took, err = run(grpc_health_v1.Health_Watch_FullMethodName, func(any, grpc.ServerStream) error {
			<-time.After(time.Hour) // nothing has changed
			return io.EOF
		})
		if !errors.Is(err, io.EOF) || took != time.Hour {
			t.Errorf("one who watches larder's health: %v after %s", err, took)
		}
		for method, want := range map[string]any{"/containerd.services.content.v1.Content/Read": true, "/containerd.services.content.v1.Content/Write": nil} {
			if _, err := run(method, func(_ any, ss grpc.ServerStream) error {
				if got := ss.Context().Value(readingKey{}); got != want {
					t.Errorf("%s: is reading: %v, want %v", method, got, want)
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
		}
		close(well)
	})
}

// TestShutdownOnHungDisk: a layer whose disk hangs does not keep larder from ending.
func TestShutdownOnHungDisk(t *testing.T) {
	t.Parallel()
	disk := newHungDisk()
	opening := make(chan struct{})
	disk.waits = sync.OnceFunc(func() { close(opening) })
	quiet := slog.New(slog.DiscardHandler)
	store, err := cache.Open(t.TempDir(), cache.WithDisk(disk), cache.WithLogger(quiet))
	if err != nil {
		t.Fatal(err)
	}
	data, desc := blobOf("x", 1000)
	if err := store.Put(t.Context(), desc.Digest, data, cache.Facts{}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server, served := New(store, Options{Logger: quiet}), make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	close(disk.hangs)
	applied := make(chan error, 1)
	go func() {
		_, err := diffapi.NewDiffClient(conn).Apply(t.Context(), &diffapi.ApplyRequest{
			Diff: &types.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: desc.Digest.String(), Size: desc.Size},
		})
		applied <- err
	}()
	<-opening
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		server.Shutdown(ctx)
	}()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("it waits for the disk")
	}
	close(disk.well)
	<-ended
	if err := <-applied; err == nil {
		t.Error("the call was not cut off")
	}
	if err := errors.Join(<-served, conn.Close(), store.Close()); err != nil {
		t.Error(err)
	}
}
