package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/gofrs/flock"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/cmd/larder/admin"
	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/plugin/mirror"
	"github.com/larder-project/larder/plugin/proxy"
	"github.com/larder-project/larder/plugin/seed"
	"github.com/larder-project/larder/remotes"
)

func newServeCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon",
		Long: `Runs the mirror for containerd and the admin socket for larder's own verbs.

It needs no configuration: without a file the defaults hold. When it listens it
prints the mirror's address, and tells systemd if that started it (Type=notify).
SIGTERM lets running answers finish for shutdown.timeout; fills that are
under way are resumed by the next start. A second SIGTERM ends it at once. SIGHUP
checks the configuration file and logs what is wrong with it; what runs is not
changed: restart larder to apply it.`,
		Example: `  larder serve
  larder serve --config ./config.toml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// From the very start, or it would end the daemon.
			hangups := make(chan os.Signal, 1)
			signal.Notify(hangups, syscall.SIGHUP)
			defer signal.Stop(hangups)
			cfg, err := o.loadConfig()
			if err != nil {
				return err
			}
			// Whoever reads the log may go away; the daemon stays.
			signal.Ignore(syscall.SIGPIPE)
			defer behind(cmd.Context(), func(ctx context.Context) { o.checkOnHangup(ctx, hangups, o.newLogger(cfg.Log)) })()
			return o.serve(cmd.Context(), cfg)
		},
	}
}

// serve runs the daemon until ctx ends.
func (o *options) serve(ctx context.Context, cfg *config.Config) (err error) {
	logger := o.newLogger(cfg.Log)
	secret, err := readSecret(string(cfg.Mirror.SecretFile))
	if err != nil {
		return o.misconfigured(o.configPath, err)
	}
	if err := checkRoot(string(cfg.Root)); err != nil {
		return err
	}
	boot, err := bootOf(cfg.Scrub)
	if err != nil {
		return fmt.Errorf("scrub.verify_on_read: %w", err)
	}
	store, err := cache.Open(string(cfg.Root), append(exposureOf(cfg.Proxy),
		cache.WithFillPolicy(fillPolicyOf(cfg.Fill)), cache.WithBudget(budgetOf(cfg.Space)), cache.WithLogger(logger), cache.WithBoot(boot))...)
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; run as root, or set root and admin.address to places of your own", err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()

	bounds, err := boundsOf(cfg.Mirror)
	if err != nil {
		return err
	}
	mirrorListener, err := mirror.Listen(ctx, cfg.Mirror.Address.Listen(), bounds.Bounds, logger)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("mirror.address: %w; another program has this port: stop it, or set mirror.address", err)
		}
		return fmt.Errorf("mirror.address: %w", err)
	}
	defer func() { _ = mirrorListener.Close() }() // closed by its server before
	adminListener, err := listenUnix(string(cfg.Admin.Address))
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("admin.address: %w; run as root, or set root and admin.address to places of your own", err)
		}
		return fmt.Errorf("admin.address: %w", err)
	}
	defer adminListener.Close()

	registry, err := newRegistry(cfg, store, mirrorListener.Addr(), logger)
	if err != nil {
		return o.misconfigured(o.configPath, err)
	}
	defer registry.Pool.Close()
	defer behind(ctx, registry.Run)()
	defer behind(ctx, func(ctx context.Context) { store.Scrub(ctx, scrubPolicyOf(cfg.Scrub), registry) })()
	keeper := cache.NewKeeper(store, cache.KeeperConfig{Costs: registry, Users: usersOf(cfg.Space)})
	defer behind(ctx, keeper.Run)()
	url := "http://" + mirrorListener.Addr().String()
	has := plugins{seeder: seederOf(registry, cfg, logger)}
	if cfg.Proxy.Enabled {
		has.copies = openCopies(cfg, store, logger)
	}
	toClients := newMirrorServer(registry, has.seeder, cfg, bounds, secret, logger)
	toAdmins := newAdminServer(registry, has, cfg, url, logger)
	servers := []server{
		httpServer{toClients, func() error { return mirror.Serve(toClients, mirrorListener) }},
		httpServer{toAdmins, func() error { return toAdmins.Serve(adminListener) }},
	}
	if cfg.Proxy.Enabled {
		p, err := newProxyServer(cfg, store, registry, has.copies, logger)
		if err != nil {
			return err
		}
		defer p.listener.Close()
		if has.copies != nil {
			defer behind(ctx, has.copies.Run)()
		}
		defer behind(ctx, func(ctx context.Context) { proxy.MakeSure(ctx, store, string(cfg.Proxy.Containerd), logger) })()
		servers = append(servers, p)
	}
	defer behind(ctx, func(ctx context.Context) { watchdog(ctx, url, logger) })()
	fmt.Fprintf(o.stdout, "larder: mirror listening on %s\n", url)
	return runServers(ctx, servers, time.Duration(cfg.Shutdown.Timeout), logger)
}

// server serves until it is shut down, which is no error.
type server interface {
	serve() error
	// shutdown takes no new connections, and waits for what runs until ctx ends.
	shutdown(ctx context.Context) error
}

// httpServer is an http.Server, and has it serve where it listens.
type httpServer struct {
	*http.Server
	run func() error
}

func (s httpServer) serve() error {
	if err := s.run(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (s httpServer) shutdown(ctx context.Context) error {
	err := s.Shutdown(ctx)
	if err != nil && ctx.Err() != nil {
		return s.Close() // answers are cut off
	}
	return err
}

func newMirrorServer(registry *remotes.Registry, seeder *seed.Seeder, cfg *config.Config, bounds bounds, secret string, logger *slog.Logger) *http.Server {
	o := mirror.Options{
		Map: registry.Names.Map, Secret: secret, ID: registry.Pool.ID(), Wait: time.Duration(cfg.Mirror.Wait),
		MaxOpen: bounds.open, SharedStore: cfg.Proxy.HasContent(), Logger: logger,
	}
	if seeder != nil {
		o.Seeder = seeder
	}
	if cfg.Prefetch.Enabled {
		o.Prefetcher = registry
	}
	handler := mirror.New(registry, o)
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}

func newAdminServer(registry *remotes.Registry, has plugins, cfg *config.Config, url string, logger *slog.Logger) *http.Server {
	status := admin.Status{Version: version, PID: os.Getpid(), Started: time.Now(), Root: string(cfg.Root), Mirror: url}
	return &http.Server{
		Handler:           admin.NewHandler(registry, status, has.tell(cfg), logger),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}

// runServers serves until ctx ends or a server fails, then drains: no new
// connections, and what runs may take as long as timeout.
func runServers(ctx context.Context, servers []server, timeout time.Duration, logger *slog.Logger) error {
	group, gctx := errgroup.WithContext(ctx)
	for _, s := range servers {
		group.Go(s.serve)
	}
	notify(logger, daemon.SdNotifyReady)
	group.Go(func() error {
		<-gctx.Done()
		notify(logger, daemon.SdNotifyStopping)
		logger.Info("shutting down", "timeout", timeout)
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
		defer cancel()
		var stops errgroup.Group
		for _, s := range servers {
			stops.Go(func() error { return s.shutdown(drain) })
		}
		err := stops.Wait()
		if drain.Err() != nil {
			logger.Warn("answers cut off at the deadline", "timeout", timeout)
		}
		return err
	})
	return group.Wait()
}

// notify tells systemd; without systemd it does nothing.
func notify(logger *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		logger.Warn("systemd not notified", "state", state, "err", err)
	}
}

// listenUnix listens on a socket that only the daemon's user can connect to.
// A socket that a killed daemon left is replaced; a living one is not.
func listenUnix(path string) (net.Listener, error) {
	// A folder of our own keeps others out also before the socket has its mode.
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	// The lock makes one of look, remove and listen, for two daemons that
	// start at once. It is let go with the process, or with the listener.
	lock := flock.New(path+".lock", flock.SetPermissions(0o600))
	if ok, err := lock.TryLock(); err != nil || !ok {
		return nil, errors.Join(fmt.Errorf("%s: another daemon has it; give each a socket of its own", path), err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	locked := lockedListener{Listener: l, lock: lock}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, locked.Close())
	}
	return locked, nil
}

// lockedListener holds the lock of its socket's path.
type lockedListener struct {
	net.Listener
	lock *flock.Flock
}

// Close lets go of both. It may be called twice.
func (l lockedListener) Close() error { return errors.Join(l.Listener.Close(), l.lock.Unlock()) }
