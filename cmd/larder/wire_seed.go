package main

import (
	"log/slog"

	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/plugin/seed"
	"github.com/larder-project/larder/remotes"
)

// seederOf is who gives stored images to containerd; nil if nobody is to.
func seederOf(registry *remotes.Registry, cfg *config.Config, logger *slog.Logger) *seed.Seeder {
	if !cfg.Seed.Enabled {
		return nil
	}
	return seed.New(registry, seed.Options{Content: string(cfg.Seed.Content), Root: registry.Store.Root(), Logger: logger})
}
