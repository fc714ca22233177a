package credentials

import (
	"fmt"
	"net"
	"net/url"
	"path"
	"strings"

	"github.com/containerd/errdefs"
)

// pattern is one of the kubelet's image patterns, as in matchImages and in the
// keys of a plugin's answer: [glob.]domain[:port][/path]. An image matches if
// its domain has as many labels and each matches its glob, its port is the
// same (none if the pattern has none), and its path begins with the pattern's:
// with its characters, not its segments.
type pattern struct {
	labels     []string
	port, path string
}

// parsePattern returns errdefs.ErrInvalidArgument for text that can match no
// image.
func parsePattern(text string) (pattern, error) {
	u, err := url.Parse("https://" + text)
	if err != nil || u.Host == "" {
		return pattern{}, fmt.Errorf("image pattern %q: want a domain, a port and a path perhaps behind it: %w", cut(text), errdefs.ErrInvalidArgument)
	}
	host, port, err := net.SplitHostPort(u.Host)
	if err != nil {
		host, port = u.Host, ""
	}
	p := pattern{labels: strings.Split(host, "."), port: port, path: u.Path}
	for _, glob := range p.labels {
		if _, err := path.Match(glob, ""); err != nil {
			return pattern{}, fmt.Errorf("image pattern %q: %q is no glob: %w", cut(text), cut(glob), errdefs.ErrInvalidArgument)
		}
	}
	return p, nil
}

// match reports whether an image (host[:port]/repository) matches.
func (p pattern) match(image string) bool {
	target, err := parsePattern(image)
	if err != nil || target.port != p.port || len(target.labels) != len(p.labels) || !strings.HasPrefix(target.path, p.path) {
		return false
	}
	for i, glob := range p.labels {
		if ok, err := path.Match(glob, target.labels[i]); err != nil || !ok {
			return false
		}
	}
	return true
}
