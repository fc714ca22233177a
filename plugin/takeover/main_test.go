package takeover

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/larder-project/larder/cache"
)

const childEnv = "LARDER_TEST_TAKEOVER_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		if err := beKilled(context.Background(), os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// The race detector keeps a process that ends for a second.
	_ = os.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0")
	goleak.VerifyTestMain(m)
}

// node is a containerd with content, and a store beside it.
type node struct {
	t     *testing.T
	dir   string
	blobs map[digest.Digest][]byte
	// image is what hangs on its manifest, manifest first.
	image []digest.Digest
}

// newNode has one image, and a blob that belongs to none.
func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{t: t, dir: t.TempDir(), blobs: map[digest.Digest][]byte{}}
	layer := n.add(bytes.Repeat([]byte("layer "), 30_000))
	config := n.add([]byte(`{"architecture":"amd64","os":"linux"}`))
	manifest, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: n.descriptor(config, ocispec.MediaTypeImageConfig), Layers: []ocispec.Descriptor{n.descriptor(layer, ocispec.MediaTypeImageLayer)},
	})
	must(t, err)
	n.image = []digest.Digest{n.add(manifest), config, layer}
	n.add([]byte("garbage"))
	must(t, os.MkdirAll(filepath.Join(n.containerd(), contentDir, "blobs", "sha256"), 0o755))
	must(t, os.MkdirAll(filepath.Join(n.containerd(), contentDir, "ingest", "abc"), 0o755))
	must(t, os.WriteFile(filepath.Join(n.containerd(), contentDir, "ingest", "abc", "data"), []byte("half"), 0o600))
	for dgst, data := range n.blobs {
		must(t, os.WriteFile(n.theirs(dgst), data, 0o444))
	}
	must(t, os.Mkdir(filepath.Join(n.containerd(), metadataDir), 0o755))
	n.remember(slices.Collect(maps.Keys(n.blobs))...)
	return n
}

func (n *node) add(data []byte) digest.Digest {
	dgst := digest.FromBytes(data)
	n.blobs[dgst] = data
	return dgst
}

func (n *node) descriptor(dgst digest.Digest, mediaType string) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: dgst, Size: int64(len(n.blobs[dgst]))}
}

func (n *node) containerd() string { return filepath.Join(n.dir, "containerd") }
func (n *node) root() string       { return filepath.Join(n.dir, "store") }
func (n *node) database() string   { return filepath.Join(n.containerd(), metadataDir, "meta.db") }

// theirs and ours are where a blob is for containerd, and for larder.
func (n *node) theirs(dgst digest.Digest) string {
	return filepath.Join(n.containerd(), contentDir, "blobs", "sha256", dgst.Encoded())
}
func (n *node) ours(dgst digest.Digest) string {
	return filepath.Join(n.root(), "blobs", "sha256", dgst.Encoded())
}

// remember has digests in containerd's database, as containerd writes it.
func (n *node) remember(dgsts ...digest.Digest) {
	n.t.Helper()
	db, err := bolt.Open(n.database(), 0o600, nil)
	must(n.t, err)
	must(n.t, db.Update(func(tx *bolt.Tx) error {
		v1, err := tx.CreateBucketIfNotExists([]byte("v1"))
		must(n.t, err)
		must(n.t, v1.Put([]byte("version"), []byte{8}))
		ns, err := v1.CreateBucketIfNotExists([]byte("k8s.io"))
		must(n.t, err)
		blobs := bucket(n.t, ns, "content", "blob")
		for _, dgst := range dgsts {
			bucket(n.t, blobs, dgst.String())
		}
		return bucket(n.t, ns, "images", "docker.io/library/app:1", "target").Put([]byte("digest"), []byte(n.image[0]))
	}))
	must(n.t, db.Close())
}

func bucket(t *testing.T, b *bolt.Bucket, names ...string) *bolt.Bucket {
	t.Helper()
	for _, name := range names {
		next, err := b.CreateBucketIfNotExists([]byte(name))
		must(t, err)
		b = next
	}
	return b
}

// takeOver runs what a verb does, on a disk.
func takeOver(ctx context.Context, dir string, disk cache.Disk, do func(*cache.Store, *Containerd) error) error {
	c, err := Open(filepath.Join(dir, "containerd"), disk)
	if err != nil {
		return err
	}
	store, err := cache.Open(filepath.Join(dir, "store"), cache.WithExposure(time.Minute), cache.WithDisk(disk))
	if err != nil {
		return err
	}
	if err := do(store, c); err != nil {
		return err
	}
	if err := store.Close(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return c.Close()
}

func (n *node) adopt() (res Adopted) {
	n.t.Helper()
	must(n.t, takeOver(n.t.Context(), n.dir, cache.OSDisk(), func(store *cache.Store, c *Containerd) (err error) {
		res, err = Adopt(n.t.Context(), store, c, func(Progress) {})
		return err
	}))
	return res
}

func (n *node) eject() (res Ejected) {
	n.t.Helper()
	must(n.t, takeOver(n.t.Context(), n.dir, cache.OSDisk(), func(store *cache.Store, c *Containerd) (err error) {
		res, err = Eject(n.t.Context(), store, c)
		return err
	}))
	return res
}

// exposed is what the store has on record.
func (n *node) exposed() (all []digest.Digest) {
	n.t.Helper()
	store, err := cache.Open(n.root(), cache.WithExposure(time.Minute))
	must(n.t, err)
	for dgst := range n.blobs {
		if _, ok := store.Exposed(dgst); ok {
			all = append(all, dgst)
		}
	}
	if store.Unsure() {
		n.t.Error("the store does not know what is exposed")
	}
	must(n.t, store.Close())
	return all
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st syscall.Stat_t
	must(t, syscall.Stat(path, &st))
	return st.Ino
}

func isThere(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
