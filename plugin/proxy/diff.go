package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/plugin/unpack"
)

// differ unpacks layers from larder's own files.
type differ struct {
	diffapi.UnimplementedDiffServer
	store    content.Provider
	unpacker unpack.Unpacker
	logger   *slog.Logger
}

// Apply unpacks a layer. What it does not know, or is not stored, is not
// implemented here: containerd then asks the next differ of its list.
func (d *differ) Apply(ctx context.Context, req *diffapi.ApplyRequest) (*diffapi.ApplyResponse, error) {
	applied, err := d.apply(ctx, oci.DescriptorFromProto(req.GetDiff()), mount.FromProto(req.GetMounts()), req.GetSyncFs())
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	return &diffapi.ApplyResponse{Applied: oci.DescriptorToProto(applied)}, nil
}

func (d *differ) apply(ctx context.Context, desc ocispec.Descriptor, mounts []mount.Mount, sync bool) (applied ocispec.Descriptor, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("unpack %s: %w", desc.Digest, err)
		}
	}()
	if !unpack.Takes(ctx, desc.MediaType) {
		return applied, fmt.Errorf("media type %q: %w", desc.MediaType, errdefs.ErrNotImplemented)
	}
	ra, err := d.store.ReaderAt(ctx, desc)
	if errdefs.IsNotFound(err) {
		return applied, fmt.Errorf("it is not stored: %w", errdefs.ErrNotImplemented)
	}
	if err != nil {
		return applied, err
	}
	began := time.Now()
	applied, err = d.unpacker.Apply(ctx, desc.Digest, ra, mounts, sync)
	if err := errors.Join(err, ra.Close()); errdefs.IsNotImplemented(err) {
		return applied, err
	} else if err != nil {
		return applied, d.suspect(ctx, desc, err)
	}
	d.logger.DebugContext(ctx, "layer is unpacked", "digest", desc.Digest, "bytes", applied.Size, "dur", time.Since(began))
	return applied, nil
}

// suspect looks whether a layer that could not be unpacked is as it was stored: a
// damaged one is out of the way when containerd asks again. It returns why, and that.
func (d *differ) suspect(ctx context.Context, desc ocispec.Descriptor, why error) error {
	v, ok := d.store.(interface {
		Verify(context.Context, digest.Digest, cache.Pace) error
	})
	if !ok || ctx.Err() != nil {
		return why
	}
	if err := v.Verify(ctx, desc.Digest, nil); errdefs.IsDataLoss(err) {
		return errors.Join(why, err)
	}
	return why
}

// Diff is not implemented: containerd compares snapshots itself.
func (d *differ) Diff(context.Context, *diffapi.DiffRequest) (*diffapi.DiffResponse, error) {
	return nil, errgrpc.ToGRPC(fmt.Errorf("larder compares no snapshots: %w", errdefs.ErrNotImplemented))
}
