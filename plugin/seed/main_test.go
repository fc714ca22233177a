package seed

import (
	"bytes"
	"context"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/larder-project/larder/remotes/upstream"
	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a store with an image, a content folder beside it, and a Seeder.
type bench struct {
	t        testing.TB
	registry *remotes.Registry
	img      remotestest.Image
	root     string // of the store
	content  string
	log      *lockedBuffer
	*Seeder
}

// repository is that of the image.
func repository() remotes.Repository {
	return remotes.Repository{Host: remotes.DockerHub, Path: "library/app"}
}

// newBench pulls the image that spec describes into the store.
func newBench(t testing.TB, spec remotestest.ImageSpec) *bench {
	t.Helper()
	dir := t.TempDir()
	b := &bench{t: t, img: remotestest.Build(spec), root: filepath.Join(dir, "store"), content: filepath.Join(dir, "content"), log: &lockedBuffer{}}
	up := remotestest.New(t)
	up.PutImage("library/app", "1", b.img)
	ep, err := upstream.ParseEndpoint(up.URL())
	b.must(err)
	routes, err := remotes.NewRoutes(map[string][]upstream.Endpoint{remotes.DockerHub: {ep}})
	b.must(err)
	pool, err := upstream.NewPool(upstream.Options{Named: []upstream.Endpoint{ep}, HeaderTimeout: 20 * time.Second, Pause: time.Millisecond})
	b.must(err)
	t.Cleanup(pool.Close)
	quiet := slog.New(slog.DiscardHandler)
	store, err := cache.Open(b.root, cache.WithLogger(quiet))
	b.must(err)
	t.Cleanup(func() { b.must(store.Close()) })
	b.registry = remotes.NewRegistry(remotes.Config{Store: store, Pool: pool, Routes: routes, Freshness: remotes.DefaultFreshness(), Logger: quiet})
	ref, err := repository().WithObject("1")
	b.must(err)
	_, err = b.registry.Pull(t.Context(), ref, remotes.PullOptions{})
	b.must(err)
	b.must(os.MkdirAll(filepath.Join(b.content, "ingest"), 0o700))
	b.Seeder = newSeeder(b.registry, content{path: b.content, root: b.root}, slog.New(slog.NewTextHandler(b.log, nil)))
	return b
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// lookAgain has the folder be looked at by the next Seed.
func (b *bench) lookAgain() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.next = time.Time{}
}

// seedIt asks for the image.
func (b *bench) seedIt() { b.Seed(b.t.Context(), repository(), b.img.Root.Digest) }

func (b *bench) stored(dgst digest.Digest) string {
	return filepath.Join(b.root, "blobs", "sha256", dgst.Encoded())
}

func (b *bench) linkOf(dgst digest.Digest) string {
	return filepath.Join(b.content, "blobs", "sha256", dgst.Encoded())
}

// linked are the blobs of the image that are one file in both folders.
func (b *bench) linked() (n int) {
	for _, d := range b.img.Descriptors() {
		if isSame(b.stored(d.Digest), b.linkOf(d.Digest)) {
			n++
		}
	}
	return n
}

func isSame(one, other string) bool {
	a, aerr := os.Lstat(one)
	b, berr := os.Lstat(other)
	return aerr == nil && berr == nil && os.SameFile(a, b)
}

// names counts the files in the content folder.
func (b *bench) names() (n int) {
	b.t.Helper()
	err := filepath.WalkDir(b.content, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return err
	})
	if !os.IsNotExist(err) {
		b.must(err)
	}
	return n
}

// lockedBuffer is a log that tests read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// fakeImages has one image, whose blobs open as they are in a store.
type fakeImages struct {
	set   []digest.Digest
	store *cache.Store
}

func (f fakeImages) PullSet(digest.Digest) ([]digest.Digest, error) { return f.set, nil }

func (f fakeImages) OpenSure(_ context.Context, _ remotes.Repository, dgst digest.Digest) (*cache.Blob, error) {
	return f.store.Open(dgst)
}

// fakeFolder notes what is asked of it, and waits for gate in each call if there
// is one.
type fakeFolder struct {
	gate  chan struct{}
	mu    sync.Mutex
	calls []string
	have  map[digest.Digest]bool
}

func (f *fakeFolder) note(call string) {
	f.mu.Lock()
	f.calls = append(f.calls, call)
	f.mu.Unlock()
	if f.gate != nil {
		<-f.gate
	}
}

// asked are the calls so far.
func (f *fakeFolder) asked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

func (f *fakeFolder) check() error { return nil }

func (f *fakeFolder) has(dgst digest.Digest) (bool, error) {
	f.note("has")
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.have[dgst], nil
}

func (f *fakeFolder) admit(*cache.Blob) error { return nil }

func (f *fakeFolder) link(b *cache.Blob) error {
	f.note("link")
	f.mu.Lock()
	defer f.mu.Unlock()
	f.have[b.Digest()] = true
	return nil
}

func (f *fakeFolder) sync(digest.Algorithm) error {
	f.note("sync")
	return nil
}

// removedImages are those of a store from which a blob is removed between a look at
// its open file and the link.
type removedImages struct {
	*remotes.Registry
	remove digest.Digest
	opened int
}

func (r *removedImages) OpenSure(ctx context.Context, repo remotes.Repository, dgst digest.Digest) (*cache.Blob, error) {
	b, err := r.Registry.OpenSure(ctx, repo, dgst)
	if err != nil || dgst != r.remove {
		return b, err
	}
	if r.opened++; r.opened == 2 { // the second time it is to be linked
		err = r.Store.Delete(ctx, dgst)
	}
	return b, err
}
