package main

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/plugin/mirror"
)

// bounds are how the process's file descriptors are shared out.
type bounds struct {
	mirror.Bounds
	open int // stored blobs that are sent at a time
}

// boundsOf gives clients five eighths of the descriptors that the process may
// have, and a quarter to the stored blobs that are sent to them. The rest is for
// upstreams, the store and the verbs: with none left for these, larder would
// look to itself as if upstream were down.
func boundsOf(cfg config.Mirror) (bounds, error) {
	var files unix.Rlimit // Go has raised the soft limit to the hard one
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return bounds{}, fmt.Errorf("limit of open files: %w", err)
	}
	n := int(min(files.Cur, 1<<20))
	b := bounds{Bounds: mirror.Bounds{Connections: n * 5 / 8, Stall: time.Duration(cfg.Stall)}, open: max(1, n/4)}
	if cfg.MaxConnections > 0 {
		b.Connections = min(b.Connections, cfg.MaxConnections)
	}
	return b, nil
}
