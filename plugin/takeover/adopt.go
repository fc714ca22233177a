package takeover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/larder-project/larder/cache"
)

// Progress is how much of the bytes that have to be read was read.
type Progress struct{ Bytes, Total int64 }

// Damaged is a blob that cannot be had.
type Damaged struct {
	Digest digest.Digest `json:"digest"`
	Why    string        `json:"why"`
	// Path is where its bytes are, if there are any.
	Path string `json:"path,omitempty"`
	// Images are those of containerd that need it, as far as it can be told.
	Images []string `json:"images,omitempty"`
}

// Adopted is what Adopt has done.
type Adopted struct {
	// Blobs and Bytes were taken over; Had were in the store already.
	Blobs int   `json:"blobs"`
	Bytes int64 `json:"bytes"`
	Had   int   `json:"had"`
	// Damaged were left.
	Damaged []Damaged `json:"damaged,omitempty"`
}

// Adopt moves the blobs of containerd's folder into the store, which must have been opened with cache.WithExposure,
// and notes that containerd counts on them. report is called between two pieces. A blob whose bytes are wrong is in the
// result and no error.
func Adopt(ctx context.Context, store *cache.Store, c *Containerd, report func(Progress)) (Adopted, error) {
	if err := c.besides(store); err != nil {
		return Adopted{}, err
	}
	a := adoption{store: store, containerd: c, report: report}
	if err := a.look(); err != nil {
		return a.res, err
	}
	known, err := c.known()
	if err != nil {
		return a.res, err
	}
	for _, dgst := range a.todo {
		if err := a.link(ctx, dgst); err != nil {
			return a.res, err
		}
		known[dgst] = true // or garbage, which containerd finds as such
	}
	if err := store.ExposeAll(ctx, slices.Collect(maps.Keys(known))); err != nil {
		return a.res, err
	}
	if err := a.unlink(); err != nil {
		return a.res, err
	}
	return a.res, needed(store, c, a.res.Damaged)
}

type adoption struct {
	store      *cache.Store
	containerd *Containerd
	report     func(Progress)
	todo       []digest.Digest
	at         Progress
	res        Adopted
}

// look lists what there is, and sums it up.
func (a *adoption) look() error {
	return a.containerd.names(func(dgst digest.Digest) error {
		fi, err := a.containerd.disk.Lstat(a.containerd.path(dgst))
		if err != nil {
			return err
		}
		a.todo = append(a.todo, dgst)
		a.at.Total += fi.Size()
		return nil
	})
}

// link gives a blob its name in the store.
func (a *adoption) link(ctx context.Context, dgst digest.Digest) error {
	path := a.containerd.path(dgst)
	fi, err := a.containerd.disk.Lstat(path)
	if err != nil {
		return err
	}
	before, read := a.at.Bytes, int64(0)
	linked, err := a.store.Adopt(ctx, dgst, path, func(_ context.Context, n int) error {
		read = min(read+int64(n), fi.Size())
		a.at.Bytes = before + read
		a.report(a.at)
		return nil
	})
	a.at.Bytes = before + fi.Size()
	a.report(a.at)
	switch {
	case errdefs.IsDataLoss(err):
		a.res.Damaged = append(a.res.Damaged, Damaged{Digest: dgst, Why: err.Error(), Path: path + damagedExt})
		return nil
	case err != nil:
		return err
	case !linked:
		a.res.Had++
		return nil
	}
	a.res.Blobs++
	a.res.Bytes += fi.Size()
	return nil
}

// unlink takes the names in containerd's folder away, when all else is on disk.
func (a *adoption) unlink() error {
	c := a.containerd
	damaged := map[digest.Digest]bool{}
	for _, d := range a.res.Damaged {
		damaged[d.Digest] = true
	}
	for _, dgst := range a.todo {
		_, exposed := a.store.Exposed(dgst)
		var err error
		switch path := c.path(dgst); {
		case damaged[dgst]:
			err = c.disk.Rename(path, path+damagedExt)
		case !exposed: // it was, a moment ago
			err = fmt.Errorf("the store does not have it any more: %w", errdefs.ErrUnavailable)
		default:
			err = c.disk.Remove(path)
		}
		if err != nil {
			return fmt.Errorf("take %s out of containerd's folder: %w", dgst, err)
		}
	}
	algs, err := c.list(c.blobs)
	if err != nil || len(algs) == 0 {
		return err
	}
	for _, alg := range algs {
		if alg.IsDir() {
			err = errors.Join(err, cache.SyncFolder(c.disk, filepath.Join(c.blobs, alg.Name())))
		}
	}
	return err
}

// needed finds the images that need damaged blobs.
func needed(store *cache.Store, c *Containerd, damaged []Damaged) error {
	if len(damaged) == 0 {
		return nil
	}
	images, err := c.images()
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(images)) {
		seen := map[digest.Digest]bool{}
		for _, manifest := range images[name] {
			reach(store, manifest, seen)
		}
		for i, d := range damaged {
			if seen[d.Digest] {
				damaged[i].Images = append(damaged[i].Images, name)
			}
		}
	}
	return nil
}

// reach adds what hangs on a manifest. What cannot be read, or is no manifest, has nothing.
func reach(store *cache.Store, dgst digest.Digest, seen map[digest.Digest]bool) {
	if seen[dgst] {
		return
	}
	seen[dgst] = true
	data, err := store.ReadManifest(dgst)
	if err != nil {
		return
	}
	m, err := cache.ParseStored(data, "")
	if err != nil {
		return
	}
	for _, blob := range m.Blobs {
		seen[blob.Digest] = true
	}
	for _, child := range m.Manifests {
		reach(store, child.Digest, seen)
	}
}

// isThere reports whether containerd's folder has a file for a blob.
func (c *Containerd) isThere(dgst digest.Digest) (bool, error) {
	fi, err := c.disk.Lstat(c.path(dgst))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && fi.Mode().IsRegular(), err
}
