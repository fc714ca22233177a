package cache

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// leavePrefix makes a store with a fill that ended after n bytes of data.
func leavePrefix(t *testing.T, root string, data []byte, n int) {
	t.Helper()
	dgst := digest.FromBytes(data)
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	src := newTap(int64(len(data)))
	f := startFill(t, s, dgst, -1, src)
	src.flow(t, data[:n])
	waitReceived(t, f, int64(n))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestPrefixIsNotServedUnanswered: bytes that an earlier process left are no
// answer while no upstream gives one. The client can still go elsewhere.
func TestPrefixIsNotServedUnanswered(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	data, dgst := blobOf(1, HoldBack+500_000)
	leavePrefix(t, root, data, HoldBack+400_000)
	s := openStore(t, root)

	release := make(chan struct{})
	f := startFill(t, s, dgst, -1, scripted(func(context.Context, int64) (Stream, error) {
		<-release
		return Stream{}, fmt.Errorf("gone: %w", errdefs.ErrUnavailable)
	}))
	waitReceived(t, f, HoldBack+400_000)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := f.WaitReadable(ctx, 0); err == nil {
		t.Error("the prefix counts as readable although no upstream answered")
	}
	close(release)
	if err := f.WaitReadable(patience(t), 0); !errdefs.IsUnavailable(err) {
		t.Errorf("got %v, want unavailable", err)
	}
}

// TestPrefixThatTakesTooLong: an upstream that ignores Range sends the prefix
// again, and containerd's client reads over it before it hands on a byte. If
// that takes longer than a stall may, the blob is fetched from its start.
func TestPrefixThatTakesTooLong(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	data, dgst := blobOf(2, 100_000)
	leavePrefix(t, root, data, 60_000)
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, root)
		skipping := func(ctx context.Context, offset int64) (Stream, error) {
			if offset > 0 {
				<-ctx.Done() // reads over the prefix for longer than it may
				return Stream{}, ctx.Err()
			}
			return Stream{Body: io.NopCloser(bytes.NewReader(data)), Size: int64(len(data)), Upstream: "upstream.test"}, nil
		}
		src := scripted(skipping)
		f := startFill(t, s, dgst, -1, src)
		if err := f.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		src.wantOffsets(t, 60_000, 0)
		wantBlob(t, s, dgst, data)
	})
}
