package builtin

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// initPlugin makes the plugin as containerd does.
func initPlugin(t *testing.T, change func(*Config)) (_ *plugin.Plugin, root string) {
	t.Helper()
	root = filepath.Join(t.TempDir(), "store")
	all := registry.Graph(func(*plugin.Registration) bool { return false })
	i := slices.IndexFunc(all, func(r plugin.Registration) bool { return r.URI() == string(plugins.ContentPlugin)+".larder" })
	if i < 0 {
		t.Fatal("larder is not registered")
	}
	cfg := defaultConfig()
	change(cfg)
	ic := plugin.NewContext(t.Context(), plugin.NewPluginSet(), map[string]string{plugins.PropertyRootDir: root})
	ic.Config = cfg
	return all[i].Init(ic), root
}

// TestPlugin: containerd's registry makes a content store of it, by containerd's
// configuration, and can close it.
func TestPlugin(t *testing.T) {
	t.Parallel()
	p, root := initPlugin(t, func(*Config) {})
	instance, err := p.Instance()
	if err != nil {
		t.Fatal(err)
	}
	store, ok := instance.(content.Store)
	if !ok {
		t.Fatalf("it is a %T, want a content store", instance)
	}
	data := []byte("some bytes")
	desc := ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	if err := content.WriteBlob(t.Context(), store, "ref", bytes.NewReader(data), desc); err != nil {
		t.Fatal(err)
	}
	if got, err := content.ReadBlob(t.Context(), store, desc); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %q, %v", got, err)
	}
	closer, ok := instance.(interface{ Close() error })
	if !ok {
		t.Fatal("containerd cannot close it")
	}
	if err := closer.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(root, "blobs", "sha256", desc.Digest.Encoded())); err != nil {
		t.Errorf("the store is not where containerd says: %v", err)
	}
}

// TestPluginRefuses what is wrong in containerd's configuration.
func TestPluginRefuses(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Config){
		"grace":    func(c *Config) { c.Grace = "soon" },
		"max_size": func(c *Config) { c.MaxSizePercent = 130 },
		"min_free": func(c *Config) { c.MinFreePercent = -1 },
	} {
		p, root := initPlugin(t, change)
		if _, err := p.Instance(); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := os.Stat(root); err == nil {
			t.Errorf("%s: a store was made", name)
		}
	}
}
