package takeover

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/larder-project/larder/cache"
)

// TestAdoptAndEject: all blobs change hands and back, as the files that they were.
func TestAdoptAndEject(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	files := map[digest.Digest]uint64{}
	var bytes int64
	for dgst, data := range n.blobs {
		files[dgst] = inode(t, n.theirs(dgst))
		bytes += int64(len(data))
	}
	if res := n.adopt(); res.Blobs != len(n.blobs) || res.Bytes != bytes || res.Had != 0 || len(res.Damaged) != 0 {
		t.Errorf("adopt: %+v, want %d blobs with %d bytes", res, len(n.blobs), bytes)
	}
	for dgst := range n.blobs {
		if got := inode(t, n.ours(dgst)); got != files[dgst] || isThere(n.theirs(dgst)) {
			t.Errorf("%s: inode %d, was %d; still in containerd's folder: %t", dgst, got, files[dgst], isThere(n.theirs(dgst)))
		}
	}
	if got := n.exposed(); len(got) != len(n.blobs) {
		t.Errorf("exposed: %v", got)
	}
	n.wantManifest()
	if !isThere(filepath.Join(n.containerd(), contentDir, "ingest", "abc", "data")) {
		t.Error("containerd's ingest is gone")
	}
	if res := n.adopt(); res.Blobs+res.Had != 0 {
		t.Errorf("second adopt: %+v", res)
	}

	if res := n.eject(); res.Blobs != len(n.blobs) || res.Had != 0 || len(res.Missing) != 0 {
		t.Errorf("eject: %+v", res)
	}
	for dgst := range n.blobs {
		if got := inode(t, n.theirs(dgst)); got != files[dgst] {
			t.Errorf("%s: inode %d, was %d", dgst, got, files[dgst])
		}
	}
	if got := n.exposed(); len(got) != 0 {
		t.Errorf("exposed after eject: %v", got)
	}
	if res := n.eject(); res.Blobs != 0 || res.Had != len(n.blobs) {
		t.Errorf("second eject: %+v", res)
	}
	if res := n.adopt(); res.Blobs != 0 || res.Had != len(n.blobs) || len(n.exposed()) != len(n.blobs) {
		t.Errorf("adopt again: %+v", res)
	}
}

// wantManifest checks that larder knows what hangs on the manifest.
func (n *node) wantManifest() {
	n.t.Helper()
	store, err := cache.Open(n.root())
	must(n.t, err)
	defer func() { must(n.t, store.Close()) }()
	for i, want := range []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayer} {
		if f, err := store.Facts(n.image[i]); err != nil || f.MediaType != want || f.Verified.IsZero() {
			n.t.Errorf("facts of %s: %+v, %v, want verified, of type %s", n.image[i], f, err, want)
		}
	}
}

// TestAdoptDamaged: a blob with other bytes is not adopted, unless the store has it; its bytes stay.
func TestAdoptDamaged(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	config, layer := n.image[1], n.image[2]
	for _, dgst := range []digest.Digest{config, layer} {
		must(t, os.Remove(n.theirs(dgst)))
		must(t, os.WriteFile(n.theirs(dgst), append([]byte("rot"), n.blobs[dgst][3:]...), 0o444))
	}
	store, err := cache.Open(n.root())
	must(t, err)
	must(t, store.Put(t.Context(), config, n.blobs[config], cache.Facts{}))
	must(t, store.Close())

	res := n.adopt()
	if res.Had != 1 || len(res.Damaged) != 1 || res.Damaged[0].Digest != layer || !slices.Equal(res.Damaged[0].Images, []string{"docker.io/library/app:1"}) {
		t.Errorf("got %+v", res)
	}
	if kept, err := os.ReadFile(res.Damaged[0].Path); err != nil || !strings.HasPrefix(string(kept), "rot") || isThere(n.theirs(layer)) || isThere(n.ours(layer)) {
		t.Errorf("the damaged blob: %.10q, %v", kept, err)
	}
	if got := n.exposed(); slices.Contains(got, layer) || !slices.Contains(got, config) {
		t.Errorf("exposed: %v", got)
	}
	if res := n.eject(); len(res.Missing) != 1 || res.Missing[0].Digest != layer || len(res.Missing[0].Images) != 1 {
		t.Errorf("eject: %+v", res)
	}
}

// TestAdoptOverDamaged: the store's own blob is read before containerd's is given up.
func TestAdoptOverDamaged(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	layer := n.image[2]
	store, err := cache.Open(n.root())
	must(t, err)
	must(t, store.Put(t.Context(), layer, n.blobs[layer], cache.Facts{}))
	must(t, store.Close())
	must(t, os.Chmod(n.ours(layer), 0o644))
	must(t, os.WriteFile(n.ours(layer), append([]byte("rot"), n.blobs[layer][3:]...), 0o444))

	if res := n.adopt(); res.Blobs != len(n.blobs) || len(res.Damaged) != 0 {
		t.Errorf("got %+v", res)
	}
	if data, err := os.ReadFile(n.ours(layer)); err != nil || digest.FromBytes(data) != layer {
		t.Errorf("the store has %.10q, %v", data, err)
	}
}

// TestAdoptOtherAlgorithms: containerd takes blobs by the other digests of OCI, too.
func TestAdoptOtherAlgorithms(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	dgst := digest.SHA512.FromString("by another")
	theirs := filepath.Join(n.containerd(), contentDir, "blobs", "sha512", dgst.Encoded())
	must(t, os.MkdirAll(filepath.Dir(theirs), 0o755))
	must(t, os.WriteFile(theirs, []byte("by another"), 0o444))
	n.remember(dgst)
	was := inode(t, theirs)
	if res := n.adopt(); res.Blobs != len(n.blobs)+1 || isThere(theirs) {
		t.Errorf("adopt: %+v", res)
	}
	must(t, os.Remove(filepath.Dir(theirs))) // containerd makes it when it needs it
	if res := n.eject(); res.Blobs != len(n.blobs)+1 || inode(t, theirs) != was {
		t.Errorf("eject: %+v", res)
	}
}

// TestAdoptSeeded: a file that the store gave to containerd's folder may have rotted since, for both.
func TestAdoptSeeded(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	config, layer := n.image[1], n.image[2]
	n.adopt()
	n.eject() // leaves what seeding does
	must(t, os.Chmod(n.ours(layer), 0o644))
	must(t, os.WriteFile(n.ours(layer), append([]byte("rot"), n.blobs[layer][3:]...), 0o444))

	res := n.adopt()
	if res.Had != len(n.blobs)-1 || len(res.Damaged) != 1 || res.Damaged[0].Digest != layer || !isThere(res.Damaged[0].Path) || isThere(n.ours(layer)) {
		t.Errorf("got %+v; in the store: %t", res, isThere(n.ours(layer)))
	}
	if inode(t, n.ours(config)) == 0 || isThere(n.theirs(config)) || isThere(n.theirs(layer)) {
		t.Error("names are left in containerd's folder")
	}
}

// TestEjectReplaces: what is in containerd's folder already counts if it is the blob.
func TestEjectReplaces(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.adopt()
	manifest, config, layer := n.image[0], n.image[1], n.image[2]
	must(t, os.WriteFile(n.theirs(config), n.blobs[config], 0o444))
	must(t, os.WriteFile(n.theirs(manifest), n.blobs[manifest], 0o444))
	must(t, os.Truncate(n.ours(manifest), 7)) // the store's is damaged, and theirs is not
	must(t, os.WriteFile(n.theirs(layer), append([]byte("rot"), n.blobs[layer][3:]...), 0o444))
	n.eject()
	for dgst := range n.blobs {
		if data, err := os.ReadFile(n.theirs(dgst)); err != nil || digest.FromBytes(data) != dgst {
			t.Errorf("%s: %.10q, %v", dgst, data, err)
		}
	}
	if inode(t, n.theirs(config)) == inode(t, n.ours(config)) {
		t.Error("containerd's own file was replaced")
	}
}

// TestEjectMissing: what containerd counts on and nobody has is told, and all else is handed back.
func TestEjectMissing(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.adopt()
	gone := digest.FromString("gone")
	n.remember(gone)
	res := n.eject()
	if res.Blobs != len(n.blobs) || len(res.Missing) != 1 || res.Missing[0].Digest != gone {
		t.Errorf("got %+v", res)
	}
}

// TestEjectWithoutIndex: containerd's database says what it counts on, too.
func TestEjectWithoutIndex(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.adopt()
	must(t, os.Remove(filepath.Join(n.root(), "index.db")))
	if res := n.eject(); res.Blobs != len(n.blobs) || len(res.Missing) != 0 {
		t.Errorf("got %+v", res)
	}
}

// TestContainerdRuns: neither does anything while containerd runs, nor where it never did.
func TestContainerdRuns(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	db, err := bolt.Open(n.database(), 0o600, nil)
	must(t, err)
	if _, err := Open(n.containerd(), cache.OSDisk()); !errdefs.IsUnavailable(err) {
		t.Errorf("got %v", err)
	}
	must(t, db.Close())
	c, err := Open(n.containerd(), cache.OSDisk())
	must(t, err)
	if _, err := bolt.Open(n.database(), 0o600, &bolt.Options{Timeout: time.Millisecond}); err == nil {
		t.Error("containerd could start meanwhile")
	}
	must(t, c.Close())
	if _, err := Open(t.TempDir(), cache.OSDisk()); !errdefs.IsNotFound(err) {
		t.Errorf("got %v", err)
	}
}
