package takeover

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/larder-project/larder/cache"
)

// DefaultRoot is containerd's root.
const DefaultRoot = "/var/lib/containerd"

// The folders in containerd's root.
const (
	metadataDir = "io.containerd.metadata.v1.bolt"
	contentDir  = "io.containerd.content.v1.content"
)

// damagedExt is added to the name of a blob with other bytes. containerd passes over what is no digest.
const damagedExt = ".damaged"

// lockTime is how long the database is waited for. A containerd that runs holds it all the time.
const lockTime = 200 * time.Millisecond

// Containerd is one that is stopped, and that cannot start before Close.
type Containerd struct {
	blobs string // the folder of its blobs, which may be missing
	db    *bolt.DB
	disk  cache.Disk
}

// Open takes hold of a containerd by its root. It returns errdefs.ErrUnavailable if it runs, and
// errdefs.ErrNotFound if there is none, and errdefs.ErrPermissionDenied to who may not read it. disk is the file system under its content.
func Open(root string, disk cache.Disk) (*Containerd, error) {
	path := filepath.Join(root, metadataDir, "meta.db")
	if fi, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) || err == nil && fi.Size() == 0 {
		return nil, fmt.Errorf("%s is not there: name containerd's root with --containerd-root: %w", path, errdefs.ErrNotFound)
	}
	// Whoever only reads holds it, too.
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: lockTime})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("containerd is running with the root %s: stop it first: %w", root, errdefs.ErrUnavailable)
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("containerd's database: run larder as root (%w): %w", err, errdefs.ErrPermissionDenied)
	}
	if err != nil {
		return nil, fmt.Errorf("containerd's database %s: %w", path, err)
	}
	return &Containerd{blobs: filepath.Join(root, contentDir, "blobs"), db: db, disk: disk}, nil
}

// Close lets containerd start.
func (c *Containerd) Close() error { return c.db.Close() }

// besides refuses a store on another file system than containerd's root. That it is on another mount of the same, the
// first link says.
func (c *Containerd) besides(store *cache.Store) error {
	root := filepath.Dir(filepath.Dir(c.blobs)) // which is there, as the database is
	theirs, err := c.disk.Lstat(root)
	if err != nil {
		return err
	}
	ours, err := c.disk.Lstat(store.Root())
	if err != nil {
		return err
	}
	t, tok := theirs.Sys().(*syscall.Stat_t)
	o, ook := ours.Sys().(*syscall.Stat_t)
	if tok && ook && t.Dev != o.Dev {
		return fmt.Errorf("larder's store %s and containerd's root %s are on two file systems, and nothing is copied: have larder's root on that of containerd: %w",
			store.Root(), root, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// path is the place of a blob in containerd's folder. The digest is valid.
func (c *Containerd) path(dgst digest.Digest) string {
	return filepath.Join(c.blobs, dgst.Algorithm().String(), dgst.Encoded())
}

// names calls fn for each blob in containerd's folder. What is no blob by its name is passed over.
func (c *Containerd) names(fn func(digest.Digest) error) error {
	algs, err := c.list(c.blobs)
	if err != nil {
		return err
	}
	for _, alg := range algs {
		if !alg.IsDir() {
			continue
		}
		blobs, err := c.list(filepath.Join(c.blobs, alg.Name()))
		if err != nil {
			return err
		}
		for _, b := range blobs {
			dgst := digest.NewDigestFromEncoded(digest.Algorithm(alg.Name()), b.Name())
			if dgst.Validate() != nil {
				continue
			}
			if err := fn(dgst); err != nil {
				return err
			}
		}
	}
	return nil
}

// list lists a folder; one that is not there is empty.
func (c *Containerd) list(dir string) ([]fs.DirEntry, error) {
	d, err := c.disk.OpenFile(dir, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.ReadDir(-1)
}

// makeFolder makes the folder of an algorithm, and those above it, as containerd would.
func (c *Containerd) makeFolder(dir string) error {
	err := c.disk.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		if err := c.makeFolder(filepath.Dir(dir)); err != nil {
			return err
		}
		err = c.disk.Mkdir(dir, 0o755)
	}
	if err != nil {
		return err
	}
	return cache.SyncFolder(c.disk, filepath.Dir(dir))
}
