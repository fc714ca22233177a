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

	"github.com/containerd/containerd/v2/core/content"
	contentproxy "github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/containerd/containerd/v2/core/content/testsuite"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/larder-project/larder/cache"
)

const testGrace = 10 * time.Minute

// serve opens a store in root, and returns it with containerd's client of it, over
// a socket.
func serve(root string, opts ...cache.Option) (store *cache.Store, client content.Store, closeAll func() error, err error) {
	quiet := slog.New(slog.DiscardHandler)
	store, err = cache.Open(root, append([]cache.Option{cache.WithLogger(quiet), cache.WithExposure(testGrace)}, opts...)...)
	if err != nil {
		return nil, nil, nil, err
	}
	path := filepath.Join(root, "s") // short: a socket's path has 107 bytes at most
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, nil, nil, errors.Join(err, store.Close())
	}
	server := New(store, Options{Logger: quiet})
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	closeAll = func() error {
		var cerr error
		if conn != nil {
			cerr = conn.Close()
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		server.Shutdown(ctx)
		return errors.Join(cerr, <-ended, store.Close())
	}
	if err != nil {
		return nil, nil, nil, errors.Join(err, closeAll())
	}
	return store, contentproxy.NewContentStore(conn), closeAll, nil
}

// newServed is serve for a test.
func newServed(t *testing.T, opts ...cache.Option) (*cache.Store, content.Store) {
	t.Helper()
	store, client, closeAll, err := serve(t.TempDir(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := closeAll(); err != nil {
			t.Error(err)
		}
	})
	return store, client
}

func blobOf(text string, size int) ([]byte, ocispec.Descriptor) {
	data := bytes.Repeat([]byte(text), 1+size/len(text))[:size]
	return data, ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(size)}
}

// TestContentSuite is containerd's, through the socket.
func TestContentSuite(t *testing.T) {
	t.Parallel()
	testsuite.ContentSuite(t, "larder-proxy", func(ctx context.Context, root string) (context.Context, content.Store, func() error, error) {
		_, client, closeAll, err := serve(root)
		return ctx, client, closeAll, err
	})
}

// TestContentSuiteBelowMetadata has containerd's metadata database over it, as
// containerd has.
func TestContentSuiteBelowMetadata(t *testing.T) {
	t.Parallel()
	open := func(ctx context.Context, root string) (context.Context, content.Store, func() error, error) {
		_, client, closeServed, err := serve(root)
		if err != nil {
			return nil, nil, nil, err
		}
		db, err := bolt.Open(filepath.Join(root, "meta.db"), 0o600, nil)
		if err != nil {
			return nil, nil, nil, errors.Join(err, closeServed())
		}
		var count atomic.Int32
		wrap := func(ctx context.Context, _ bool) (context.Context, func(context.Context) error, error) {
			ctx = namespaces.WithNamespace(ctx, fmt.Sprintf("ns-%d", count.Add(1)))
			return ctx, func(context.Context) error { return nil }, nil
		}
		closeAll := func() error { return errors.Join(db.Close(), closeServed()) }
		return testsuite.SetContextWrapper(ctx, wrap), metadata.NewDB(db, client, nil).ContentStore(), closeAll, nil
	}
	testsuite.ContentSuite(t, "larder-proxy-metadata", open)
	testsuite.ContentCrossNSSharedSuite(t, "larder-proxy-metadata", open)
}

// TestGarbageCollection: containerd deletes what it lists and does not know. That
// is what it was told of, and nothing else; and it takes no blob from larder.
func TestGarbageCollection(t *testing.T) {
	t.Parallel()
	store, client := newServed(t)
	ctx := namespaces.WithNamespace(t.Context(), "k8s.io")
	db, err := bolt.Open(filepath.Join(t.TempDir(), "meta.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	mdb := metadata.NewDB(db, client, nil)
	mine, mineDesc := blobOf("larder's", 5000)
	warm, warmDesc := blobOf("both's", 6000)
	fresh, freshDesc := blobOf("containerd's", 7000)
	if err := errors.Join(store.Put(ctx, mineDesc.Digest, mine, cache.Facts{}), store.Put(ctx, warmDesc.Digest, warm, cache.Facts{})); err != nil {
		t.Fatal(err)
	}
	// What larder has is taken without a byte.
	w, err := mdb.ContentStore().Writer(ctx, content.WithRef("warm"), content.WithDescriptor(warmDesc))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Commit(ctx, warmDesc.Size, warmDesc.Digest), w.Close()); err != nil {
		t.Errorf("commit without a write: %v", err)
	}
	if err := content.WriteBlob(ctx, mdb.ContentStore(), "fresh", bytes.NewReader(fresh), freshDesc); err != nil {
		t.Fatal(err)
	}
	for _, desc := range []ocispec.Descriptor{warmDesc, freshDesc} {
		if _, ok := store.Exposed(desc.Digest); !ok {
			t.Errorf("%s is in containerd's database and not exposed", desc.Digest)
		}
	}
	if _, ok := store.Exposed(mineDesc.Digest); ok {
		t.Error("a blob is exposed that nobody asked for")
	}
	if _, err := mdb.GarbageCollect(ctx); err != nil { // neither has a root
		t.Fatal(err)
	}
	for _, desc := range []ocispec.Descriptor{mineDesc, warmDesc, freshDesc} {
		if _, ok := store.Exposed(desc.Digest); ok {
			t.Errorf("%s is exposed after it was collected", desc.Digest)
		}
		if has, err := store.Has(desc.Digest); !has || err != nil {
			t.Errorf("%s went with containerd's garbage: %v", desc.Digest, err)
		}
	}
}

// TestForeignIngests: larder's own are not containerd's to see or end.
func TestForeignIngests(t *testing.T) {
	t.Parallel()
	store, client := newServed(t)
	ctx := t.Context()
	for _, open := range []content.Ingester{store, client} {
		w, err := open.Writer(ctx, content.WithRef("ref"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("some")); err != nil {
			t.Error(err)
		}
		if st, err := w.Status(); err != nil || st.Ref != "ref" {
			t.Errorf("status: %+v, %v", st, err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
	all, err := client.ListStatuses(ctx)
	matching, merr := client.ListStatuses(ctx, "ref~=^r")
	none, nerr := client.ListStatuses(ctx, "ref==containerd:ref")
	if err := errors.Join(err, merr, nerr); err != nil || len(all) != 1 || all[0].Ref != "ref" || len(matching) != 1 || len(none) != 0 {
		t.Errorf("containerd's ingests: %v, %v, %v, %v", all, matching, none, err)
	}
	if err := client.Abort(ctx, "ref"); err != nil {
		t.Error(err)
	}
	if _, err := client.Status(ctx, "ref"); !errdefs.IsNotFound(err) {
		t.Errorf("status of what was ended: %v, want not found", err)
	}
	if _, err := store.Status(ctx, "ref"); err != nil {
		t.Errorf("larder's own: %v", err)
	}
}

// TestReadOfDeleted: a reader that asks for the next part of what was deleted gets
// it, and containerd is not told anew that it is there.
func TestReadOfDeleted(t *testing.T) {
	t.Parallel()
	store, client := newServed(t)
	data, desc := blobOf("x", 100_000)
	if err := content.WriteBlob(t.Context(), client, "x", bytes.NewReader(data), desc); err != nil {
		t.Fatal(err)
	}
	r, err := client.ReaderAt(t.Context(), desc)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := client.Delete(t.Context(), desc.Digest); err != nil {
		t.Fatal(err)
	}
	if err := client.Delete(t.Context(), desc.Digest); !errdefs.IsNotFound(err) {
		t.Errorf("delete twice: %v, want not found", err)
	}
	got, err := io.ReadAll(io.NewSectionReader(r, 0, desc.Size))
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v, want all", len(got), err)
	}
	if _, ok := store.Exposed(desc.Digest); ok {
		t.Error("a reader has it exposed again")
	}
	if info, err := client.Info(t.Context(), desc.Digest); err != nil || info.Size != desc.Size {
		t.Errorf("asked anew: %+v, %v, want that it is there", info, err)
	}
	if _, ok := store.Exposed(desc.Digest); !ok {
		t.Error("it was told to be there and is not exposed")
	}
}

// TestWriteBeyondBudget: a budget that is full of what containerd counts on stops
// none of its writes; what it does not count on goes first.
func TestWriteBeyondBudget(t *testing.T) {
	t.Parallel()
	const size = 100_000
	store, client := newServed(t, cache.WithBudget(cache.Budget{MaxSize: cache.Amount{Bytes: 5 * size}}))
	spare, spareDesc := blobOf("spare", size)
	if err := store.Put(t.Context(), spareDesc.Digest, spare, cache.Facts{}); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		data, desc := blobOf(fmt.Sprint("blob ", i), size)
		if err := content.WriteBlob(t.Context(), client, desc.Digest.String(), bytes.NewReader(data), desc); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10 {
		_, desc := blobOf(fmt.Sprint("blob ", i), size)
		if info, err := client.Info(t.Context(), desc.Digest); err != nil || info.Size != size {
			t.Errorf("blob %d: %+v, %v", i, info, err)
		}
	}
	if has, err := store.Has(spareDesc.Digest); has || err != nil {
		t.Errorf("what nobody counts on is there: %t, %v", has, err)
	}
}
