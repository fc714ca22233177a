package remotes

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
)

// DockerHub is the registry host that image names use for Docker Hub.
const DockerHub = "docker.io"

// maxHostLength bounds a registry host: a DNS name and a port.
const maxHostLength = 253 + len(":65535")

// ParseHost checks a registry host (host[:port], as in an image name) against
// the grammar of distribution/reference, and returns its canonical form:
// lower case, without the port of https, and docker.io for each of Docker Hub's
// names. Like there, a host has a dot or a port, or is localhost: else it would
// be the first segment of a Docker Hub repository; such a name keeps its port.
// It returns errdefs.ErrInvalidArgument for anything else.
//
// A registry that had two forms would have two policies, and what one of them
// keeps private the other one would fetch with larder's own credential.
func ParseHost(s string) (string, error) {
	if s == "" || len(s) > maxHostLength {
		return "", fmt.Errorf("registry host of %d bytes: want 1 to %d: %w", len(s), maxHostLength, errdefs.ErrInvalidArgument)
	}
	if strings.ContainsAny(s, "@?#") {
		// The text may hold a password or a token: it is not repeated.
		return "", fmt.Errorf("registry host: has an \"@\", \"?\" or \"#\", want host[:port] without credentials: %w", errdefs.ErrInvalidArgument)
	}
	host := strings.ToLower(s)
	if !strings.ContainsAny(host, ".:") && host != "localhost" {
		return "", fmt.Errorf("registry host %q: want a dot, a port, or localhost: %w", s, errdefs.ErrInvalidArgument)
	}
	named, err := reference.WithName(host + "/probe")
	if err != nil || reference.Domain(named) != host {
		return "", fmt.Errorf("registry host %q: want host[:port]: %w", s, errdefs.ErrInvalidArgument)
	}
	host, ok := canonicalPort(host)
	if !ok {
		return "", fmt.Errorf("registry host %q: want a port from 1 to 65535: %w", s, errdefs.ErrInvalidArgument)
	}
	switch host {
	case "index.docker.io", "registry-1.docker.io":
		return DockerHub, nil
	}
	return host, nil
}

// canonicalPort writes a port in one way, and leaves that of https out. It
// reports false for one to which nobody can connect.
func canonicalPort(host string) (string, bool) {
	i := strings.LastIndexByte(host, ':')
	if i < 0 || strings.HasSuffix(host, "]") { // an address of IPv6
		return host, true
	}
	name := host[:i]
	port, err := strconv.ParseUint(host[i+1:], 10, 16)
	if err != nil || port == 0 {
		return "", false
	}
	if port == 443 && (strings.ContainsAny(name, ".:") || name == "localhost") {
		return name, true
	}
	return name + ":" + strconv.FormatUint(port, 10), true
}
