package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	api "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/containerd/v2/core/content"
	contentproxy "github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/services/content/contentserver"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/larder-project/larder/cache"
)

// gated is an upstream that sends a half, and the rest, or an error, when it is told.
type gated struct {
	data []byte
	gate chan struct{} // closed: go on
	err  error
}

func (g *gated) Open(ctx context.Context, offset int64) (cache.Stream, error) {
	return cache.Stream{Body: &gatedBody{g: g, ctx: ctx, off: int(offset)}, Size: int64(len(g.data)), Upstream: "test"}, nil
}

type gatedBody struct {
	g   *gated
	ctx context.Context //nolint:containedctx // of the request that it is the answer to
	off int
}

func (b *gatedBody) Read(p []byte) (int, error) {
	end := len(b.g.data) / 2
	if b.off >= end {
		select {
		case <-b.g.gate:
		case <-b.ctx.Done():
			return 0, b.ctx.Err()
		}
		if end = len(b.g.data); b.g.err != nil {
			return 0, b.g.err
		}
	}
	if b.off == end {
		return 0, io.EOF
	}
	n := copy(p, b.g.data[b.off:end])
	b.off += n
	return n, nil
}

func (*gatedBody) Close() error { return nil }

// pulling is a containerd with its database, that pulls into larder.
type pulling struct {
	store  *cache.Store
	client content.Store
	mdb    *metadata.DB
	ctx    context.Context //nolint:containedctx // of one test, with a namespace
	data   []byte
	desc   ocispec.Descriptor
	src    *gated
}

func newPulling(t *testing.T, failure error) *pulling {
	t.Helper()
	store, client := newServed(t)
	db, err := bolt.Open(filepath.Join(t.TempDir(), "meta.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	p := &pulling{store: store, client: client, mdb: metadata.NewDB(db, client, nil), ctx: namespaces.WithNamespace(t.Context(), "k8s.io")}
	p.data, p.desc = blobOf("layer", 3<<20)
	p.desc.MediaType = ocispec.MediaTypeImageLayerGzip
	p.src = &gated{data: p.data, gate: make(chan struct{}), err: failure}
	return p
}

// fill begins one.
func (p *pulling) fill(t *testing.T) {
	t.Helper()
	if _, started, err := p.store.Fill(t.Context(), p.desc.Digest, -1, p.src); err != nil || !started {
		t.Fatal(started, err)
	}
}

// fetch has containerd fetch the blob in the background, as a pull does.
func (p *pulling) fetch(fetcher remotes.Fetcher) (done <-chan error) {
	ended := make(chan error, 1)
	go func() { ended <- remotes.Fetch(p.ctx, p.mdb.ContentStore(), fetcher, p.desc) }()
	return ended
}

// awaitProgress returns when containerd is shown as many bytes of its ingest.
func (p *pulling) awaitProgress(t *testing.T, bytes int64) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		all, err := p.mdb.ContentStore().ListStatuses(p.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if len(all) == 1 && all[0].Offset == bytes {
			return
		}
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("no such progress")
		}
	}
}

// isKnown reports whether containerd's database has the blob, and larder exposes it.
func (p *pulling) isKnown() bool {
	_, err := p.mdb.ContentStore().Info(p.ctx, p.desc.Digest)
	_, ok := p.store.Exposed(p.desc.Digest)
	return err == nil && ok
}

// fetched is a registry that has the blob, or an error.
type fetched struct {
	asked atomic.Int32
	open  func() (io.ReadCloser, error)
}

func (f *fetched) Fetch(context.Context, ocispec.Descriptor) (io.ReadCloser, error) {
	f.asked.Add(1)
	return f.open()
}

// TestWriteWaitsForFill: what larder is bringing containerd neither fetches nor writes.
// It sees how that goes on, and its database is not held up meanwhile.
func TestWriteWaitsForFill(t *testing.T) {
	t.Parallel()
	p := newPulling(t, nil)
	p.fill(t)
	registry := &fetched{open: func() (io.ReadCloser, error) { return nil, errors.New("larder has it") }}
	done := p.fetch(registry)
	p.awaitProgress(t, int64(len(p.data)/2))
	if all, err := p.client.ListStatuses(p.ctx); err != nil || len(all) != 1 || all[0].Offset != int64(len(p.data)/2) {
		t.Errorf("%+v, %v, want one that has a half", all, err)
	}
	if _, err := p.mdb.GarbageCollect(p.ctx); err != nil { // takes all locks
		t.Error(err)
	}
	select {
	case err := <-done:
		t.Fatalf("%v, before the blob was there", err)
	default:
	}
	close(p.src.gate)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := registry.asked.Load(); n != 0 {
		t.Errorf("containerd fetched it %d times", n)
	}
	if !p.isKnown() {
		t.Error("the blob is not in containerd's database, or not exposed")
	}
	if all, err := p.store.ListStatuses(p.ctx); err != nil || len(all) != 0 {
		t.Errorf("left over: %v, %v", all, err)
	}
}

// TestLateFillIsNotWaitedFor: a blob that comes once containerd was told that it is to be
// fetched, is fetched, and is whole all the same: also by a client of containerd's, which
// goes by what it was told when it opened its ingest.
func TestLateFillIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	for name, storeOf := range map[string]func(*pulling, *testing.T) content.Store{
		"containerd": func(p *pulling, _ *testing.T) content.Store { return p.mdb.ContentStore() },
		"client":     (*pulling).clientOfContainerd,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPulling(t, nil)
			registry := &fetched{open: func() (io.ReadCloser, error) {
				err := p.store.Put(p.ctx, p.desc.Digest, p.data, cache.Facts{})
				return io.NopCloser(bytes.NewReader(p.data)), err
			}}
			if err := remotes.Fetch(p.ctx, storeOf(p, t), registry, p.desc); err != nil {
				t.Error(err)
			}
			if !p.isKnown() {
				t.Error("the blob is not in containerd's database, or not exposed")
			}
			if all, err := p.store.ListStatuses(p.ctx); err != nil || len(all) != 0 {
				t.Errorf("left over: %v, %v", all, err)
			}
		})
	}
}

// clientOfContainerd is the content store as containerd's clients have it.
func (p *pulling) clientOfContainerd(t *testing.T) content.Store {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	api.RegisterContentServer(server, contentserver.New(p.mdb.ContentStore()))
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return contentproxy.NewContentStore(conn)
}

// TestFailedFillIsFetched: when the fill fails containerd fetches the blob itself.
func TestFailedFillIsFetched(t *testing.T) {
	t.Parallel()
	p := newPulling(t, errdefs.ErrNotFound)
	p.fill(t)
	registry := &fetched{open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(p.data)), nil }}
	done := p.fetch(registry)
	p.awaitProgress(t, int64(len(p.data)/2))
	close(p.src.gate)
	if err := <-done; err != nil || registry.asked.Load() != 1 || !p.isKnown() {
		t.Errorf("%v, fetched %d times, known: %t", err, registry.asked.Load(), p.isKnown())
	}
}

// TestWaitEndsWithContainerd: who gives up a pull does not wait, and the fill goes on.
func TestWaitEndsWithContainerd(t *testing.T) {
	t.Parallel()
	p := newPulling(t, nil)
	p.fill(t)
	var cancel context.CancelFunc
	p.ctx, cancel = context.WithCancel(p.ctx)
	defer cancel()
	done := p.fetch(nil)
	p.awaitProgress(t, int64(len(p.data)/2))
	cancel()
	if err := <-done; err == nil {
		t.Error("no error, want that it was given up")
	}
	f, started, err := p.store.Fill(t.Context(), p.desc.Digest, -1, p.src)
	if started || err != nil {
		t.Fatalf("the fill has ended: %t, %v", started, err)
	}
	close(p.src.gate)
	if err := f.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestWholeIsHeld: a blob of which containerd was told that it is whole is not removed
// before it is committed.
func TestWholeIsHeld(t *testing.T) {
	t.Parallel()
	p := newPulling(t, nil)
	w, err := NewContent(p.store).Writer(p.ctx, content.WithRef("layer-"+p.desc.Digest.String()), content.WithDescriptor(ocispec.Descriptor{Size: p.desc.Size}))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	statusOf := func() int64 {
		t.Helper()
		st, err := w.Status()
		if err != nil {
			t.Fatal(err)
		}
		return st.Offset
	}
	if err := p.store.Put(p.ctx, p.desc.Digest, p.data, cache.Facts{}); err != nil {
		t.Fatal(err)
	}
	if first, second := statusOf(), statusOf(); first != 0 || second != p.desc.Size {
		t.Errorf("%d and %d bytes, want none at first and then all", first, second)
	}
	if w.Digest() != p.desc.Digest {
		t.Errorf("digest %s, want %s", w.Digest(), p.desc.Digest)
	}
	if gone, err := p.store.DeleteUnlessHeld(p.ctx, p.desc.Digest); gone || err != nil {
		t.Errorf("removed: %t, %v", gone, err)
	}
	if err := w.Commit(p.ctx, p.desc.Size, p.desc.Digest); !errdefs.IsAlreadyExists(err) {
		t.Errorf("%v, want that it exists", err)
	}
	if _, ok := p.store.Exposed(p.desc.Digest); !ok {
		t.Error("not exposed")
	}
	if err := w.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if n := statusOf(); n != 0 || w.Digest() == p.desc.Digest {
		t.Errorf("%d bytes, digest %s, behind a truncation; want an empty ingest", n, w.Digest())
	}
}

// TestWholeIsWrittenAnew: who writes all the same writes from the start.
func TestWholeIsWrittenAnew(t *testing.T) {
	t.Parallel()
	store, client := newServed(t)
	_, desc := blobOf("one", 3000)
	other, otherDesc := blobOf("another", 2000)
	w, err := client.Writer(t.Context(), content.WithRef("layer-"+desc.Digest.String()), content.WithDescriptor(ocispec.Descriptor{Size: desc.Size}))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	data, _ := blobOf("one", 3000)
	if err := store.Put(t.Context(), desc.Digest, data, cache.Facts{}); err != nil {
		t.Fatal(err)
	}
	if st, err := w.Status(); err != nil || st.Offset != desc.Size {
		t.Fatalf("%+v, %v", st, err)
	}
	if err := w.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(other); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(t.Context(), otherDesc.Size, otherDesc.Digest); err != nil {
		t.Error(err)
	}
	got, err := content.ReadBlob(t.Context(), client, otherDesc)
	if err != nil || !bytes.Equal(got, other) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestDigestOf(t *testing.T) {
	t.Parallel()
	_, desc := blobOf("x", 10)
	dgst := desc.Digest.String()
	for ref, want := range map[string]bool{
		"layer-" + dgst: true, "1/k8s.io/layer-" + dgst: true, "2/a-b/config-" + dgst: true, "manifest-" + dgst: true, "index-" + dgst: true,
		"attestation-" + dgst: true, "unknown-" + dgst: true,
		dgst: false, "": false, "layer-": false, "layer-" + dgst[:20]: false, "layer-sha256:" + dgst: false,
		"convert-gzip-from-" + dgst: false, "1/k8s.io/convert-layer-" + dgst: false, "layer-x@" + dgst: false,
	} {
		if got := digestOf(ref, 10); (got == desc.Digest) != want || !want && got != "" {
			t.Errorf("%q: %q, want it: %t", ref, got, want)
		}
		if got := digestOf(ref, 0); got != "" {
			t.Errorf("%q of unknown size: %q, want none", ref, got)
		}
	}
}
