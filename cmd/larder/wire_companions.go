package main

import (
	"context"
	"sync"

	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/remotes"
)

func companionsOf(cfg config.Companions) remotes.Companions {
	return remotes.Companions{Fetch: cfg.Fetch, MaxSize: int64(cfg.MaxSize)}
}

func prefetchOf(cfg config.Prefetch) remotes.Prefetch {
	if !cfg.Enabled {
		return remotes.Prefetch{}
	}
	return remotes.Prefetch{Parallel: cfg.Parallel}
}

// behind runs what does its work behind the servers. The returned func ends it
// and waits until it has ended.
func behind(ctx context.Context, run func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { run(ctx) })
	return func() {
		cancel()
		wg.Wait()
	}
}
