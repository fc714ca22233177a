package main

import (
	"cmp"
	"context"
	"log/slog"
	"os"

	"github.com/larder-project/larder/cmd/larder/config"
)

// checkOnHangup checks the configuration file at each SIGHUP, until ctx ends.
func (o *options) checkOnHangup(ctx context.Context, hangups <-chan os.Signal, logger *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
		}
		file := cmp.Or(o.configPath, config.DefaultPath)
		cfg, err := o.loadConfig()
		if err == nil {
			err = checkWiring(cfg, logger)
		}
		if err != nil {
			logger.Error("SIGHUP: the configuration file has problems; larder runs on with what it read at its start", "file", file, "err", err)
			continue
		}
		logger.Info("SIGHUP: the configuration file is good; restart larder to apply it", "file", file)
	}
}
