package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/mount"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/plugin/proxy"
	"github.com/larder-project/larder/plugin/unpack"
)

// exposureOf is how the store treats what containerd counts on.
func exposureOf(cfg config.Proxy) []cache.Option {
	if !cfg.HasContent() {
		return nil
	}
	return []cache.Option{cache.WithExposure(time.Duration(cfg.Grace))}
}

// newProxyServer listens for containerd, before anything that takes long: it may
// be started as soon as this process is ready.
func newProxyServer(cfg *config.Config, store *cache.Store, awaiter proxy.Awaiter, copies *unpack.Copies, logger *slog.Logger) (*proxyServer, error) {
	if err := prepareMounts(filepath.Join(filepath.Dir(string(cfg.Proxy.Socket)), "mounts"), logger); err != nil {
		return nil, fmt.Errorf("proxy.socket: %w", err)
	}
	l, err := listenUnix(string(cfg.Proxy.Socket))
	if err != nil {
		return nil, fmt.Errorf("proxy.socket: %w", err)
	}
	o := proxy.Options{Awaiter: awaiter, Wait: time.Duration(cfg.Mirror.Wait), Unpacker: unpack.Unpacker{Copies: copies}, Logger: logger}
	if cfg.Proxy.HasContent() {
		return &proxyServer{Server: proxy.New(store, o), listener: l}, nil
	}
	containerd, err := proxy.NewContainerd(string(cfg.Proxy.Containerd), o.Limits)
	if err != nil {
		return nil, fmt.Errorf("proxy.containerd: %w", errors.Join(err, l.Close()))
	}
	return &proxyServer{Server: proxy.NewDiffer(store, containerd, o), listener: l, containerd: containerd}, nil
}

// openCopies opens the copies of layers below the store's folder. They are the first
// to go where the disk has less free than it should. They are nil where their folder
// is of no use: containerd may have all of its content here, and needs no copies.
func openCopies(cfg *config.Config, store *cache.Store, logger *slog.Logger) *unpack.Copies {
	minFree := amountOf(cfg.Space.MinFree)
	copies, err := unpack.OpenCopies(filepath.Join(string(cfg.Root), "copies"), unpack.CopiesOptions{
		Layers: store, Max: int64(cfg.Proxy.Copies), Logger: logger,
		Spare: func() (int64, error) {
			u, err := store.Usage()
			return u.Free - minFree.Of(u.Total), err
		},
	})
	if err != nil {
		logger.Warn("layers are unpacked without copies until the next start", "err", err)
		return nil
	}
	return copies
}

// prepareMounts says where snapshots are mounted for as long as a layer is
// unpacked into them, and takes away what a process left there that was killed.
func prepareMounts(dir string, logger *slog.Logger) error {
	if err := mount.SetTempMountLocation(dir); err != nil {
		return err
	}
	warnings, err := mount.CleanupTempMounts(0)
	for _, w := range warnings {
		logger.Warn("a mount of an earlier process stays", "err", w)
	}
	return err
}

// proxyServer is the proxy plugin as a server.
type proxyServer struct {
	*proxy.Server
	listener   net.Listener
	containerd *proxy.Containerd // nil where it has no content of its own
}

func (s *proxyServer) serve() error { return s.Serve(s.listener) }

func (s *proxyServer) shutdown(ctx context.Context) error {
	s.Shutdown(ctx)
	if s.containerd == nil {
		return nil
	}
	return s.containerd.Close()
}
