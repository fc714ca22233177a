package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// grown fills one store of larder's step by step, and gives each step a larder that has
// a copy of the store as it was then, so that all steps can be measured once a round.
// None of them runs. The stores are in memory where that has room for them, room being
// what one of what they are filled with takes at most.
func (sc *scene) grown(ctx context.Context, u *upstream, steps []int, room int64, fill func(ctx context.Context, srv *server, from, to int) error) (servers []*server, err error) {
	var all int64
	for _, n := range steps {
		all += int64(n) * room
	}
	base := sc.dir
	if roomInMemory(all) {
		base = memoryDir
	}
	tmp, err := os.MkdirTemp(base, "larder-bench-")
	if err != nil {
		return nil, fmt.Errorf("folder of stores: %w", err)
	}
	sc.onEnd(func() error { return os.RemoveAll(tmp) })
	growing := filepath.Join(tmp, "growing")
	if err := os.Mkdir(growing, 0o700); err != nil {
		return nil, fmt.Errorf("folder of stores: %w", err)
	}
	srv, err := sc.keep(sc.startLarder(ctx, sc.bin, growing, u.URL(), ""))
	if err != nil {
		return nil, err
	}
	from := 0
	for _, n := range steps {
		began := time.Now()
		if err := fill(ctx, srv, from, n); err != nil {
			return nil, fmt.Errorf("fill a store from %d to %d: %w", from, n, err)
		}
		fmt.Fprintf(sc.out, "   from %d to %d in %.1f s\n", from, n, time.Since(began).Seconds())
		from = n
		at, err := sc.copied(ctx, u, srv, filepath.Join(tmp, fmt.Sprint(n)))
		if err != nil {
			return nil, err
		}
		servers = append(servers, at)
	}
	return servers, srv.close()
}

// copied is a larder with a copy, at dir, of the folder of one that runs, which is
// stopped for it and runs again. The copy does not run.
func (sc *scene) copied(ctx context.Context, u *upstream, srv *server, dir string) (*server, error) {
	if err := srv.close(); err != nil {
		return nil, err
	}
	from := filepath.Dir(filepath.Dir(srv.root)) // larder/store is in it
	if err := command(ctx, sc.dir, "cp", "-a", from, dir); err != nil {
		return nil, err
	}
	at, err := sc.keep(sc.startLarder(ctx, sc.bin, dir, u.URL(), ""))
	if err != nil {
		return nil, err
	}
	return at, errors.Join(at.close(), srv.again(ctx))
}

// running starts a server that was closed, and closes it when do is done. Upstream is
// not to be asked for anything meanwhile.
func running(ctx context.Context, u *upstream, srv *server, do func(began time.Time) error) (err error) {
	before, began := u.traffic(), time.Now()
	if err := srv.again(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, srv.close()) }()
	if err := do(began); err != nil {
		return err
	}
	if got := u.traffic().sub(before); got != (traffic{}) {
		return fmt.Errorf("%s has asked upstream for what is stored: %+v", srv.who, got)
	}
	return nil
}

// setMemory measures what a server has resident when that no longer changes.
func (m *measured) setMemory(ctx context.Context, measure string, at int, srv *server) error {
	kib, err := settled(ctx, srv)
	if err == nil {
		m.setAt(measure, at, kib/1024)
	}
	return err
}
