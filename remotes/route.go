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
	return []upstream.Endpoint{{Scheme: "https", Host: EndpointHost(host)}}
}

// EndpointHost is where the registry of a canonical registry host itself is
// reached, whatever its route: Docker Hub is not at the host of its image names.
func EndpointHost(host string) string {
	if host == DockerHub {
		return "registry-1.docker.io"
	}
	return host
}
