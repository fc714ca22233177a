package builtin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/diff/apply"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/containerd/v2/plugins/diff/walking"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-project/larder/plugin/unpack"
)

func init() { //nolint:gochecknoinits // see plugin.go
	registry.Register(&plugin.Registration{
		Type:     plugins.DiffPlugin,
		ID:       "larder",
		Requires: []plugin.Type{plugins.MetadataPlugin, plugins.MountManagerPlugin},
		InitFn:   initDiffer,
	})
}

func initDiffer(ic *plugin.InitContext) (any, error) {
	p, err := ic.GetSingle(plugins.MetadataPlugin)
	if err != nil {
		return nil, fmt.Errorf("larder: %w", err)
	}
	db, ok := p.(*metadata.DB)
	if !ok {
		return nil, fmt.Errorf("larder: containerd's metadata is a %T", p)
	}
	var mounts mount.Manager
	switch m, err := ic.GetSingle(plugins.MountManagerPlugin); {
	case err == nil:
		mounts, _ = m.(mount.Manager)
	case !errors.Is(err, plugin.ErrPluginNotFound):
		return nil, fmt.Errorf("larder: %w", err)
	}
	store := db.ContentStore()
	return differ{
		Comparer: walking.NewWalkingDiff(store),
		store:    store, others: apply.NewFileSystemApplierWithMountManager(store, mounts),
	}, nil
}

// differ unpacks layers as package unpack does, and has containerd's own differ do
// all else.
type differ struct {
	diff.Comparer
	store  content.Provider
	others diff.Applier
}

// Apply unpacks a layer.
func (d differ) Apply(ctx context.Context, desc ocispec.Descriptor, mounts []mount.Mount, opts ...diff.ApplyOpt) (ocispec.Descriptor, error) {
	var c diff.ApplyConfig
	for _, o := range opts {
		if err := o(ctx, desc, &c); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	if !unpack.Takes(ctx, desc.MediaType) || len(mounts) != 1 { // more are the mount manager's
		return d.others.Apply(ctx, desc, mounts, opts...)
	}
	ra, err := d.store.ReaderAt(ctx, desc)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("unpack %s: %w", desc.Digest, err)
	}
	report := func(int64) {}
	if c.Progress != nil {
		report = c.Progress
	}
	report(0)
	began := time.Now()
	applied, err := unpack.Unpacker{}.Apply(ctx, desc.Digest, watched{ra, report}, mounts, c.SyncFs)
	switch err = errors.Join(err, ra.Close()); {
	case errdefs.IsNotImplemented(err):
		return d.others.Apply(ctx, desc, mounts, opts...)
	case err != nil:
		return applied, fmt.Errorf("unpack %s: %w", desc.Digest, err)
	}
	report(desc.Size)
	log.G(ctx).WithFields(log.Fields{"digest": desc.Digest, "bytes": applied.Size, "dur": time.Since(began)}).Debug("layer is unpacked")
	return applied, nil
}

// watched tells how much of a layer was read.
type watched struct {
	content.ReaderAt
	report func(int64)
}

func (w watched) ReadAt(p []byte, off int64) (int, error) {
	n, err := w.ReaderAt.ReadAt(p, off)
	w.report(off + int64(n))
	return n, err
}
