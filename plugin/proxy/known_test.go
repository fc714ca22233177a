package proxy

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/larder-project/larder/cache"
)

// TestKnown: what containerd has in its database is what it has in any namespace.
func TestKnown(t *testing.T) {
	t.Parallel()
	other := newOtherContainerd(t)
	var want []digest.Digest
	for namespace, text := range map[string]string{"default": "a", "k8s.io": "b", "moby": "c"} {
		data, desc := blobOf(text, 1000)
		other.put(t, namespace, data, desc)
		want = append(want, desc.Digest)
	}
	for _, address := range []string{other.address, "unix://" + other.address} {
		got, err := Known(t.Context(), address)
		slices.Sort(got)
		slices.Sort(want)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
	}
	other.stop(t)
	if _, err := Known(t.Context(), other.address); err == nil || !strings.Contains(err.Error(), other.address) {
		t.Errorf("without containerd: %v, want an error that names its socket", err)
	}
}

// newUnsure is a store whose index was lost.
func newUnsure(t *testing.T, blobs ...[]byte) *cache.Store {
	t.Helper()
	root := t.TempDir()
	open := func() *cache.Store {
		store, err := cache.Open(root, cache.WithExposure(testGrace), cache.WithLogger(quiet()))
		if err != nil {
			t.Fatal(err)
		}
		return store
	}
	store := open()
	for _, data := range blobs {
		if err := store.Put(t.Context(), digest.FromBytes(data), data, cache.Facts{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(root, "index.db")); err != nil {
		t.Fatal(err)
	}
	store = open()
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	if !store.Unsure() {
		t.Fatal("the index was lost, and the store is sure")
	}
	return store
}

// sayings is a log whose readers are called at each line.
type sayings func(line string)

func (s sayings) Write(p []byte) (int, error) {
	s(string(p))
	return len(p), nil
}

// TestMakeSure: a store that lost its index removes nothing until containerd, which
// runs some time later, has said what it counts on: that is exposed, and no more.
func TestMakeSure(t *testing.T) {
	t.Parallel()
	counted, countedDesc := blobOf("counted on", 1000)
	larders, lardersDesc := blobOf("larder's own", 1000)
	gone, goneDesc := blobOf("not in the store", 1000)
	store := newUnsure(t, counted, larders)
	other := newOtherContainerd(t)
	other.put(t, "k8s.io", counted, countedDesc)
	other.put(t, "default", gone, goneDesc)
	other.stop(t)

	refused := make(chan struct{})
	var said bytes.Buffer
	first := sync.OnceFunc(func() { close(refused) })
	logger := slog.New(slog.NewTextHandler(sayings(func(line string) {
		said.WriteString(line)
		if strings.Contains(line, "has not said") {
			first()
		}
	}), &slog.HandlerOptions{Level: slog.LevelDebug}))
	done := make(chan struct{})
	go func() {
		defer close(done)
		makeSureEvery(t.Context(), 10*time.Millisecond, store, other.address, logger)
	}()
	<-refused
	if deleted, err := store.DeleteUnlessHeld(t.Context(), countedDesc.Digest); deleted || !store.Unsure() {
		t.Errorf("before containerd runs: deleted %t, %v, unsure %t", deleted, err, store.Unsure())
	}
	other.start(t)
	<-done
	if store.Unsure() {
		t.Errorf("containerd has said it, and the store is not sure; log:\n%s", said.String())
	}
	for desc, want := range map[digest.Digest]bool{countedDesc.Digest: true, lardersDesc.Digest: false, goneDesc.Digest: false} {
		if _, got := store.Exposed(desc); got != want {
			t.Errorf("%s is exposed: %t, want %t", desc, got, want)
		}
	}
	if !strings.Contains(said.String(), "containerd has said what it counts on") {
		t.Errorf("log:\n%s", said.String())
	}
}

// TestMakeSureEnds with its context, and does not ask for a store that is sure.
func TestMakeSureEnds(t *testing.T) {
	t.Parallel()
	data, _ := blobOf("x", 10)
	store := newUnsure(t, data)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	MakeSure(ctx, store, filepath.Join(t.TempDir(), "none"), quiet())
	if !store.Unsure() {
		t.Error("nobody has said anything, and the store is sure")
	}
	if err := store.ExposeAll(t.Context(), nil); err != nil && !errdefs.IsNotFound(err) {
		t.Fatal(err)
	}
	MakeSure(t.Context(), store, filepath.Join(t.TempDir(), "none"), quiet()) // returns
}
