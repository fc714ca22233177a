package builtin

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// others is containerd's own differ, that notes what it was asked.
type others struct{ asked []string }

func (o *others) Apply(_ context.Context, desc ocispec.Descriptor, _ []mount.Mount, _ ...diff.ApplyOpt) (ocispec.Descriptor, error) {
	o.asked = append(o.asked, desc.MediaType)
	return desc, nil
}

// TestDiffer: layers are unpacked here, and what is not taken containerd's own differ
// gets.
func TestDiffer(t *testing.T) {
	t.Parallel()
	p, _ := initPlugin(t, func(*Config) {})
	instance, err := p.Instance()
	if err != nil {
		t.Fatal(err)
	}
	store, ok := instance.(*contentStore)
	if !ok {
		t.Fatalf("it is a %T", instance)
	}
	defer store.Close()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := w.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Uid: os.Getuid(), Gid: os.Getgid()}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(layer.Bytes()), Size: int64(layer.Len())}
	if err := content.WriteBlob(t.Context(), store, "ref", bytes.NewReader(layer.Bytes()), desc); err != nil {
		t.Fatal(err)
	}
	upper := t.TempDir()
	mounts := []mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{"upperdir=" + upper, "lowerdir=" + t.TempDir()}}}
	var theirs others
	d := differ{store: store, others: &theirs}
	var read []int64
	got, err := d.Apply(t.Context(), desc, mounts, diff.WithProgress(func(_ ocispec.Descriptor, n int64) { read = append(read, n) }))
	if err != nil || got.Digest != desc.Digest || len(theirs.asked) > 0 {
		t.Errorf("applied %v, %v; containerd's own was asked for %v", got, err, theirs.asked)
	}
	if _, err := os.Stat(filepath.Join(upper, "file")); err != nil {
		t.Error(err)
	}
	if len(read) < 2 || read[0] != 0 || read[len(read)-1] != desc.Size {
		t.Errorf("told of %v of %d bytes", read, desc.Size)
	}
	encrypted := desc
	encrypted.MediaType += "+encrypted"
	for _, call := range []struct {
		desc   ocispec.Descriptor
		mounts []mount.Mount
	}{{encrypted, mounts}, {desc, append(mounts, mounts...)}} {
		if _, err := d.Apply(t.Context(), call.desc, call.mounts); err != nil {
			t.Error(err)
		}
	}
	if len(theirs.asked) != 2 {
		t.Errorf("containerd's own was asked for %v, want two layers", theirs.asked)
	}
	missing := desc
	missing.Digest = digest.FromString("missing")
	if _, err := d.Apply(t.Context(), missing, mounts); err == nil {
		t.Error("a layer that is not there: no error")
	}
}

// TestDifferIsRegistered by the name that containerd's configuration has.
func TestDifferIsRegistered(t *testing.T) {
	t.Parallel()
	for _, r := range registry.Graph(func(*plugin.Registration) bool { return false }) {
		if r.URI() == string(plugins.DiffPlugin)+".larder" {
			return
		}
	}
	t.Error("it is not")
}
