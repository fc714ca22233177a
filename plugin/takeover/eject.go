package takeover

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/larder-project/larder/cache"
)

// Ejected is what Eject has done.
type Ejected struct {
	// Blobs were handed back; Had were in containerd's folder already.
	Blobs int `json:"blobs"`
	Had   int `json:"had"`
	// Missing are in containerd's database and nowhere else.
	Missing []Damaged `json:"missing,omitempty"`
}

// Eject gives containerd's folder all that containerd counts on, and notes that it does not count on the store any
// more. The store keeps its own names, as its rules say. What is missing is in the result and no error.
func Eject(ctx context.Context, store *cache.Store, c *Containerd) (res Ejected, _ error) {
	if err := c.besides(store); err != nil {
		return res, err
	}
	counted, err := c.known()
	if err != nil {
		return res, err
	}
	var exposed []digest.Digest
	err = store.WalkExposed(ctx, func(info content.Info) error {
		exposed = append(exposed, info.Digest)
		return nil
	})
	if err != nil {
		return res, err
	}
	wanted := maps.Clone(counted)
	for _, dgst := range exposed {
		wanted[dgst] = true
	}
	folders := map[string]bool{}
	for _, dgst := range slices.Sorted(maps.Keys(wanted)) {
		if ctx.Err() != nil {
			return res, context.Cause(ctx)
		}
		dir := filepath.Dir(c.path(dgst))
		if !folders[dir] {
			folders[dir] = true
			if err := c.makeFolder(dir); err != nil {
				return res, fmt.Errorf("containerd's folder: %w", err)
			}
		}
		if err := eject(ctx, store, c, dgst, counted[dgst], &res); err != nil {
			return res, err
		}
	}
	for dir := range folders {
		if err := cache.SyncFolder(c.disk, dir); err != nil {
			return res, fmt.Errorf("containerd's folder: %w", err)
		}
	}
	for _, dgst := range exposed {
		if err := store.Unexpose(dgst); err != nil && !errdefs.IsNotFound(err) {
			return res, err
		}
	}
	return res, needed(store, c, res.Missing)
}

// eject gives containerd's folder one blob. That the store does not have it is a loss only if containerd counts on it,
// and has it nowhere else.
func eject(ctx context.Context, store *cache.Store, c *Containerd, dgst digest.Digest, counted bool, res *Ejected) error {
	had, err := c.isThere(dgst)
	if err != nil {
		return err
	}
	err = store.LinkTo(ctx, dgst, c.path(dgst))
	switch {
	case errdefs.IsNotFound(err):
		if !had && counted {
			res.Missing = append(res.Missing, Damaged{Digest: dgst, Why: "it is neither in the store nor in containerd's folder"})
		} else if had {
			res.Had++
		}
		return nil
	case err != nil:
		return err
	case had:
		res.Had++
	default:
		res.Blobs++
	}
	return nil
}
