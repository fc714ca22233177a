package main

import (
	"strings"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/remotes"
	"github.com/larder-project/larder/remotes/upstream"
)

// setLimits sets what larder allows itself towards upstreams, and how single
// ones are spoken to.
func setLimits(opts *upstream.Options, cfg config.Upstream) {
	opts.Reserve = int64(cfg.Reserve)
	opts.MaxConnections, opts.MaxSpeed = cfg.MaxConnections, int64(cfg.MaxSpeed)
	opts.Parallel = cfg.Parallel
	opts.Waits = cache.Hold
	opts.Hosts, opts.Realms = map[string]upstream.Host{}, map[string][]string{}
	for _, h := range cfg.Hosts {
		host := upstreamHost(h.Host)
		opts.Hosts[host] = upstream.Host{
			CAFile: string(h.CAFile), ClientCertFile: string(h.ClientCertFile), ClientKeyFile: string(h.ClientKeyFile),
			MaxConnections: h.MaxConnections, MaxSpeed: int64(h.MaxSpeed), Parallel: h.Parallel,
		}
		for _, realm := range h.Realms {
			opts.Realms[host] = append(opts.Realms[host], strings.ToLower(string(realm)))
		}
	}
}

// upstreamHost is a host as it stands in an upstream.Endpoint: that of Docker
// Hub is not the one of its image names.
func upstreamHost(h config.Host) string { return remotes.EndpointHost(h.Canonical()) }
