package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/plugin/hosts"
	"github.com/larder-project/larder/remotes"
	"github.com/larder-project/larder/remotes/upstream"
)

// newLogger makes the daemon's logger.
func (o *options) newLogger(cfg config.Log) *slog.Logger {
	ho := &slog.HandlerOptions{Level: cfg.Level.Slog()}
	if cfg.Format == config.FormatJSON {
		return slog.New(slog.NewJSONHandler(o.stderr, ho))
	}
	return slog.New(slog.NewTextHandler(o.stderr, ho))
}

// newRegistry wires the pull-through path of a configuration over a store.
func newRegistry(cfg *config.Config, store *cache.Store, mirror net.Addr, logger *slog.Logger) (*remotes.Registry, error) {
	wired, err := wire(cfg, mirror, logger)
	if err != nil {
		return nil, err
	}
	wired.Store = store
	return remotes.NewRegistry(wired), nil
}

// wire makes all of the pull-through path but the store, and so finds what is
// wrong beyond the configuration file itself: what the files that it names hold,
// too. mirror is the address on which the mirror listens: names on it mean
// larder itself. Close the Pool, if the path is not used.
func wire(cfg *config.Config, mirror net.Addr, logger *slog.Logger) (remotes.Config, error) {
	cfg, err := cfg.ReadPolicies()
	if err != nil {
		return remotes.Config{}, err
	}
	rules, err := remotes.NewRules(rulesOf(cfg), cfg.Names.BuiltinRules)
	if err != nil {
		return remotes.Config{}, err
	}
	routes, named, err := routesOf(cfg)
	if err != nil {
		return remotes.Config{}, err
	}
	policies, err := policiesOf(cfg, rules)
	if err != nil {
		return remotes.Config{}, err
	}
	tellIdle(policies, logger)
	names, err := namesOf(cfg, rules, mirror)
	if err != nil {
		return remotes.Config{}, err
	}
	fresh, err := freshnessOf(cfg.Freshness)
	if err != nil {
		return remotes.Config{}, err
	}
	wired := remotes.Config{
		Names: names, Routes: routes, Freshness: fresh, Policies: policies,
		Access: accessOf(cfg.Private), Companions: companionsOf(cfg.Companions), Prefetch: prefetchOf(cfg.Prefetch), Users: usersOf(cfg.Space),
		Logger: logger,
	}
	if err := setPins(&wired, cfg, logger); err != nil {
		return remotes.Config{}, err
	}
	opts, err := poolOptions(cfg, rules, named, logger)
	if err != nil {
		return remotes.Config{}, err
	}
	pool, err := upstream.NewPool(opts)
	if err != nil {
		return remotes.Config{}, err
	}
	wired.Pool = pool
	return wired, nil
}

// poolOptions are how upstreams are asked, by the daemon and by verbs.
func poolOptions(cfg *config.Config, rules remotes.Rules, named []upstream.Endpoint, logger *slog.Logger) (upstream.Options, error) {
	creds, err := credentialsOf(rules.All(), cfg.Credentials, logger)
	if err != nil {
		return upstream.Options{}, err
	}
	opts := upstream.Options{
		UserAgent:     "larder/" + version,
		Credentials:   creds,
		Named:         named,
		DialTimeout:   time.Duration(cfg.Upstream.DialTimeout),
		HeaderTimeout: time.Duration(cfg.Upstream.HeaderTimeout),
		Pause:         time.Duration(cfg.Upstream.Pause),
	}
	setLimits(&opts, cfg.Upstream)
	return opts, nil
}

func rulesOf(cfg *config.Config) []remotes.Rule {
	var rules []remotes.Rule
	for _, r := range cfg.Rules {
		rules = append(rules, r.Remote())
	}
	return rules
}

// routesOf returns the routes, and all endpoints that the configuration
// names: these may be at private addresses.
func routesOf(cfg *config.Config) (remotes.Routes, []upstream.Endpoint, error) {
	var named []upstream.Endpoint
	byHost := map[string][]upstream.Endpoint{}
	var errs []error
	add := func(text string) upstream.Endpoint {
		ep, err := upstream.ParseEndpoint(text)
		errs = append(errs, err)
		named = append(named, ep)
		return ep
	}
	for _, route := range cfg.Routes {
		host, err := remotes.ParseHost(string(route.Registry))
		errs = append(errs, err)
		for _, u := range route.Upstreams {
			byHost[host] = append(byHost[host], add(string(u)))
		}
	}
	for _, r := range cfg.Rules {
		add(r.UpstreamRegistryURL)
	}
	for _, p := range cfg.Upstream.Private {
		add(string(p))
	}
	routes, err := remotes.NewRoutes(byHost)
	return routes, named, errors.Join(append(errs, err)...)
}

func namesOf(cfg *config.Config, rules remotes.Rules, mirror net.Addr) (remotes.Names, error) {
	names := remotes.Names{Rules: rules, Own: map[string]bool{}}
	for _, text := range ownHosts(cfg, mirror) {
		host, err := remotes.ParseHost(text)
		if err != nil {
			return remotes.Names{}, err
		}
		names.Own[host] = true
	}
	for _, text := range cfg.Names.ECRHosts {
		p, err := remotes.ParsePattern(string(text))
		if err != nil {
			return remotes.Names{}, err
		}
		names.ECRHosts = append(names.ECRHosts, p)
	}
	if cfg.Names.Unlisted == config.UnlistedAllow {
		return names, nil
	}
	names.Listed = map[string]bool{}
	for _, r := range rules.All() {
		names.Listed[config.Host(r.UpstreamRegistryURL).Canonical()] = true
	}
	for _, route := range cfg.Routes {
		names.Listed[route.Registry.Canonical()] = true
	}
	return names, nil
}

// ownHosts are the registry hosts that mean larder: the configured ones, and
// the mirror's address under its usual names.
func ownHosts(cfg *config.Config, mirror net.Addr) []string {
	var own []string
	for _, h := range cfg.Names.Own {
		own = append(own, string(h))
	}
	// Port 0 is chosen when the daemon listens: who only looks does not know it.
	if _, port, err := net.SplitHostPort(mirror.String()); err == nil && port != "0" {
		own = append(own, mirror.String(), "localhost:"+port, "127.0.0.1:"+port)
	}
	return own
}

func freshnessOf(cfg config.Freshness) (remotes.Freshness, error) {
	f := remotes.Freshness{
		Window:   time.Duration(cfg.Window),
		Patience: time.Duration(cfg.Patience),
		Retry:    time.Duration(cfg.Retry),
		Deleted:  string(cfg.Deleted),
	}
	for _, t := range cfg.Tags {
		match, err := remotes.ParsePattern(string(t.Match))
		if err != nil {
			return remotes.Freshness{}, err
		}
		f.Tags = append(f.Tags, remotes.TagWindow{Match: match, Window: time.Duration(t.Window)})
	}
	return f, nil
}

func fillPolicyOf(cfg config.Fill) cache.FillPolicy {
	p := cache.DefaultFillPolicy()
	p.Stall, p.MinSpeed, p.Attempts = time.Duration(cfg.Stall), int64(cfg.MinSpeed), cfg.Attempts
	return p
}

// readSecret reads the node secret as setup wrote it; "" if none is
// configured.
func readSecret(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	secret, err := hosts.ReadSecret(path)
	if errdefs.IsNotFound(err) {
		return "", fmt.Errorf("mirror.secret_file: %w; \"larder setup containerd\" makes it", err)
	}
	if err != nil {
		return "", fmt.Errorf("mirror.secret_file: %w", err)
	}
	return secret, nil
}
