package remotes

import (
	"fmt"
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
// lower case, and docker.io for each of Docker Hub's names. Like there, a host
// has a dot or a port, or is localhost: else it would be the first segment of
// a Docker Hub repository. It returns errdefs.ErrInvalidArgument for anything
// else.
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
	switch host {
	case "index.docker.io", "registry-1.docker.io":
		return DockerHub, nil
	}
	return host, nil
}
