package main

import (
	"fmt"
	"log/slog"

	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/remotes"
)

// setPins adds the pins of a configuration and of its pin file.
func setPins(wired *remotes.Config, cfg *config.Config, logger *slog.Logger) error {
	first := map[string]int{}
	for i, p := range cfg.Pins {
		name, err := wired.Names.PinName(string(p.Name))
		if err != nil {
			return fmt.Errorf("pins[%d].name: %w", i, err)
		}
		if j, taken := first[name]; taken {
			return fmt.Errorf("pins[%d].name: %q: is what pins[%d] pins already, %s: %w", i, p.Name, j, name, errdefs.ErrInvalidArgument)
		}
		first[name] = i
		wired.Pinned = append(wired.Pinned, cache.Pin{Name: name, Reason: string(p.Reason)})
		tellBroad(logger, fmt.Sprintf("pins[%d].name", i), name)
	}
	if cfg.PinsFile == "" {
		return nil
	}
	file, err := remotes.OpenPinFile(string(cfg.PinsFile), wired.Names)
	if err != nil {
		return eachPrefixed("pins_file", err)
	}
	wired.PinFile = file
	pins, _ := file.Pins() // it has just been read
	for _, p := range pins {
		tellBroad(logger, file.Path(), p.Name)
	}
	return nil
}

// tellBroad logs a pin that leaves nothing to remove.
func tellBroad(logger *slog.Logger, place, name string) {
	if remotes.PinsEverything(name) {
		logger.Warn("a pin keeps everything: nothing can be removed", "at", place, "pin", name)
	}
}
