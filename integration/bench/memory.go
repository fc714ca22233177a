package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/larder-project/larder/integration/bench/figures"
	"github.com/larder-project/larder/integration/bench/load"
)

const (
	// parallel is how many fills, and how many warm streams, run at once.
	parallel = 32
	// idle is how many connections are idle.
	idle = 10_000

	fills   = "32 fills"
	streams = "32 warm streams"
	conns   = "10,000 idle connections"
)

func memoryUse() experiment {
	return experiment{
		name: "resident memory",
		about: "The most memory that the server's processes have resident, together (VmHWM, reset before each part): while 32 clients bring a blob of 32 MiB (-full: 1 GiB) each that is not stored, " +
			"at once; while 32 connections fetch one stored blob 8 times each; and with 10,000 connections that have asked for a manifest once, one after the other, and stay open, in a process started for it. " +
			"larder has upstream.max_connections = 0 here: by default it runs 24 fills from one upstream at a time. nginx and Go's file server serve larder's files.",
		run: runMemory,
	}
}

func runMemory(ctx context.Context, sc *scene) error {
	r := recipe{repo: "library/parallel", seed: 9}
	size := sc.opts.imageSize / parallel
	if sc.opts.full {
		size = sc.opts.imageSize
	}
	for range parallel {
		r.layers = append(r.layers, size)
	}
	img, err := sc.images.add(ctx, r)
	if err != nil {
		return err
	}
	u, err := sc.upstream()
	if err != nil {
		return err
	}
	sc.sheet.row(fills, "MiB", figures.Less, "", figures.Goal{Bound: 64})
	sc.sheet.row(streams, "MiB", figures.Less, "", figures.Goal{Bound: 32})
	sc.sheet.row(conns, "MiB", figures.Less, "", figures.Goal{Bound: 128})
	if err := mayOpen(idle); err != nil {
		return err
	}
	unbounded := pullThrough{larder, func(ctx context.Context, dir, base string) (*server, error) {
		return sc.startLarder(ctx, sc.bin, dir, base, "upstream.max_connections = 0")
	}}
	var all []contestant
	for _, kind := range append([]pullThrough{unbounded}, sc.registries()...) {
		all = append(all, contestant{kind.who, func(ctx context.Context, m *measured) error {
			return sc.cold(ctx, kind, u.URL(), func(srv *server) error { return measureMemory(ctx, sc, kind, srv, u, img, m) })
		}})
	}
	return sc.coldRounds(ctx, all...)
}

func measureMemory(ctx context.Context, sc *scene, kind pullThrough, srv *server, u *upstream, img *image, m *measured) error {
	before := u.traffic()
	err := peak(m, fills, srv, func() error { return fetchAll(ctx, srv, img) })
	if err != nil {
		return err
	}
	if got := u.traffic().sub(before); kind.who == larder && got.Bytes != img.size()-img.config.Size {
		return fmt.Errorf("%s: upstream was asked for %+v, want %d bytes", fills, got, img.size()-img.config.Size)
	}
	err = peak(m, streams, srv, func() error { return stream(ctx, srv, img) })
	if err != nil {
		return err
	}
	if err := srv.fetchWhole(ctx, srv.manifestPath(img, tag), img.manifest); err != nil {
		return err
	}
	if err := measureIdle(ctx, sc, kind, img, u, m); err != nil || kind.who != larder {
		return err
	}
	return measureBeside(ctx, sc, filepath.Join(srv.root, "blobs"), img, m.round)
}

// measureBeside is with servers of files: larder's own, below root.
func measureBeside(ctx context.Context, sc *scene, root string, img *image, round int) error {
	starts := []func() (*server, error){func() (*server, error) { return startFileServer(ctx, root) }}
	if sc.has("nginx", nginx) {
		starts = append(starts, func() (*server, error) { return sc.startNginx(ctx, root, false) })
	}
	for _, start := range starts {
		srv, err := start()
		if err != nil {
			return err
		}
		m := &measured{who: srv.who, round: round, values: map[string]float64{}}
		err = errors.Join(
			peak(m, streams, srv, func() error { return stream(ctx, srv, img) }),
			peak(m, conns, srv, func() error { return hold(ctx, srv, img) }),
			srv.close())
		if err != nil {
			return err
		}
		sc.sheet.add(m)
	}
	return nil
}

// measureIdle is with a new process: what the streams have left is not of interest.
func measureIdle(ctx context.Context, sc *scene, kind pullThrough, img *image, u *upstream, m *measured) error {
	return sc.cold(ctx, kind, u.URL(), func(srv *server) error {
		if err := srv.fetchWhole(ctx, srv.manifestPath(img, tag), img.manifest); err != nil {
			return err
		}
		return peak(m, conns, srv, func() error { return hold(ctx, srv, img) })
	})
}

// fetchAll brings all layers at once.
func fetchAll(ctx context.Context, srv *server, img *image) error {
	errs := make([]error, len(img.layers))
	var all sync.WaitGroup
	for i, layer := range img.layers {
		all.Go(func() { errs[i] = srv.fetchWhole(ctx, srv.blobPath(img, layer.Digest), layer) })
	}
	all.Wait()
	return errors.Join(errs...)
}

func stream(ctx context.Context, srv *server, img *image) error {
	_, err := load.Start(ctx, load.Plan{
		Address: srv.addr, Method: http.MethodGet, Path: srv.blobPath(img, img.layers[0].Digest), Size: img.layers[0].Size,
		Conns: parallel, Each: 8, Limit: answerLimit,
	})
	return err
}

// hold opens many connections, has each ask once, one after the other, and closes them
// when all are open.
func hold(ctx context.Context, srv *server, img *image) (err error) {
	held := make([]net.Conn, 0, idle)
	defer func() {
		for _, conn := range held {
			conn.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	path := srv.manifestPath(img, img.manifest.Digest.String())
	for range idle {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp4", srv.addr)
		if err != nil {
			return fmt.Errorf("connection %d: %w", len(held), err)
		}
		held = append(held, conn)
		if err := askOnce(ctx, conn, srv, path, img.manifest.Size); err != nil {
			return fmt.Errorf("connection %d: %w", len(held), err)
		}
	}
	return nil
}

// askOnce is one request on a connection that stays open.
func askOnce(ctx context.Context, conn net.Conn, srv *server, path string, size int64) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: %s\r\n\r\n", path, srv.addr, acceptManifest); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil || n != size || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s, %d bytes, %w, want %d", path, resp.Status, n, err, size)
	}
	return nil
}

// mayOpen is an error where a process cannot have so many connections.
func mayOpen(connections int) error {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	if files.Max < uint64(connections)+1000 {
		return fmt.Errorf("a process may open %d files, and %d connections are wanted: raise `ulimit -Hn`", files.Max, connections)
	}
	return nil
}

// peak measures the most memory that a server has meanwhile.
func peak(m *measured, measure string, srv *server, do func() error) error {
	mib, err := peakOf(srv, do)
	if err != nil {
		return fmt.Errorf("%s: %w", measure, err)
	}
	m.set(measure, mib)
	return nil
}

// peakOf is the most that all processes of a server have meanwhile, those that it has
// only begun meanwhile as well: a server may listen before it has all of them.
func peakOf(srv *server, do func() error) (mib float64, err error) {
	pids, err := group(srv.proc.PID())
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
			return 0, fmt.Errorf("reset the peak of %s: %w", srv.who, err)
		}
	}
	if err := do(); err != nil {
		return 0, err
	}
	if pids, err = group(srv.proc.PID()); err != nil {
		return 0, err
	}
	for _, pid := range pids {
		kib, err := memoryOf(pid, "VmHWM")
		if err != nil {
			return 0, err
		}
		mib += kib / 1024
	}
	return mib, nil
}
