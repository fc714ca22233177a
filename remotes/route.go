package remotes

import (
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/upstream"
)

// Routes say which upstreams stand behind a registry host, in the order in
// which they are tried. A host without a route is its own upstream.
type Routes struct {
	byHost map[string][]upstream.Endpoint
}

// NewRoutes takes the upstreams of each registry host. Hosts are canonical
// (see ParseHost); a host without upstreams is errdefs.ErrInvalidArgument.
func NewRoutes(byHost map[string][]upstream.Endpoint) (Routes, error) {
	for host, eps := range byHost {
		if len(eps) == 0 {
			return Routes{}, fmt.Errorf("route %s has no upstreams: %w", host, errdefs.ErrInvalidArgument)
		}
	}
	return Routes{byHost: byHost}, nil
}

// For returns the upstreams of a canonical registry host.
func (rs Routes) For(host string) []upstream.Endpoint {
	if eps := rs.byHost[host]; len(eps) > 0 {
		return eps
	}
	if host == DockerHub {
		host = "registry-1.docker.io"
	}
	return []upstream.Endpoint{{Scheme: "https", Host: host}}
}
