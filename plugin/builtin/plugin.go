package builtin

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/plugin/proxy"
)

// Config is the plugin's table in containerd's configuration.
type Config struct {
	// Root is the store's folder; "" is one below containerd's own root.
	Root string `toml:"root"`
	// MaxSizePercent is what the store may take of its file system, and
	// MinFreePercent what is to stay free of it: see cache.Budget. 0 is no bound.
	MaxSizePercent float64 `toml:"max_size_percent"`
	MinFreePercent float64 `toml:"min_free_percent"`
	// Grace is how long a blob stays that containerd has deleted, such as "10m".
	Grace string `toml:"grace"`
}

func defaultConfig() *Config {
	return &Config{MaxSizePercent: 30, MinFreePercent: 17, Grace: "10m"}
}

// containerd knows its plugins by a registry of the process, which packages fill
// when they are loaded.
func init() { //nolint:gochecknoinits // see above
	registry.Register(&plugin.Registration{
		Type:   plugins.ContentPlugin,
		ID:     "larder",
		Config: defaultConfig(),
		InitFn: func(ic *plugin.InitContext) (any, error) {
			cfg, ok := ic.Config.(*Config)
			if !ok {
				return nil, fmt.Errorf("larder: configuration is a %T", ic.Config)
			}
			root := cfg.Root
			if root == "" {
				root = ic.Properties[plugins.PropertyRootDir]
			}
			ic.Meta.Exports["root"] = root
			return open(root, cfg)
		},
	})
}

// contentStore is the plugin: containerd closes it when it ends.
type contentStore struct {
	*proxy.Content
	store *cache.Store
	stop  context.CancelFunc
	keep  sync.WaitGroup
}

func open(root string, cfg *Config) (*contentStore, error) {
	grace, err := time.ParseDuration(cfg.Grace)
	if err != nil {
		return nil, fmt.Errorf("larder: grace: %w", err)
	}
	for key, percent := range map[string]float64{"max_size_percent": cfg.MaxSizePercent, "min_free_percent": cfg.MinFreePercent} {
		if percent < 0 || percent >= 100 {
			return nil, fmt.Errorf("larder: %s = %v: want 0 to less than 100", key, percent)
		}
	}
	store, err := cache.Open(root, cache.WithExposure(grace), cache.WithBudget(cache.Budget{
		MaxSize: cache.Amount{Percent: cfg.MaxSizePercent}, MinFree: cache.Amount{Percent: cfg.MinFreePercent},
	}))
	if err != nil {
		return nil, fmt.Errorf("larder: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &contentStore{Content: proxy.NewContent(store), store: store, stop: cancel}
	c.keep.Go(func() { cache.NewKeeper(store, cache.KeeperConfig{}).Run(ctx) })
	return c, nil
}

// Close stops what runs behind the store, and closes it.
func (c *contentStore) Close() error {
	c.stop()
	c.keep.Wait()
	if err := c.store.Close(); err != nil {
		return fmt.Errorf("larder: close store: %w", err)
	}
	return nil
}
