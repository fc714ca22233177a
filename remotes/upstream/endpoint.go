package upstream

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
)

// Endpoint says where an upstream is reached: what stands in a route or in a
// rule's upstream_registry_url.
type Endpoint struct {
	// Scheme is "https", or "http" where the configuration says so.
	Scheme string
	// Host is the host, with a port if the configuration gave one.
	Host string
	// Prefix is put before every repository asked of this upstream. Empty
	// means none.
	Prefix string
}

// ParseEndpoint parses [scheme://]host[:port][/prefix]. The scheme is https
// unless the text says http. It returns errdefs.ErrInvalidArgument for
// anything else, credentials in the text included.
func ParseEndpoint(s string) (Endpoint, error) {
	text := s
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return Endpoint{}, fmt.Errorf("upstream %q: want [http[s]://]host[:port][/prefix]: %w", s, errdefs.ErrInvalidArgument)
	}
	switch {
	case u.User != nil:
		// The text may hold a secret: it is not repeated.
		return Endpoint{}, fmt.Errorf("upstream at %s: credentials do not belong in an address: %w", u.Host, errdefs.ErrInvalidArgument)
	case u.Scheme != "https" && u.Scheme != "http":
		return Endpoint{}, fmt.Errorf("upstream %q: scheme is %q, want http or https: %w", s, u.Scheme, errdefs.ErrInvalidArgument)
	case u.RawQuery != "" || u.Fragment != "" || u.Opaque != "":
		return Endpoint{}, fmt.Errorf("upstream %q: want [http[s]://]host[:port][/prefix]: %w", s, errdefs.ErrInvalidArgument)
	}
	ep := Endpoint{Scheme: u.Scheme, Host: strings.ToLower(u.Host), Prefix: strings.Trim(u.Path, "/")}
	name := ep.Host + "/probe"
	if ep.Prefix != "" {
		name = ep.Host + "/" + ep.Prefix
	}
	named, err := reference.WithName(name)
	if err != nil || reference.Domain(named) != ep.Host {
		return Endpoint{}, fmt.Errorf("upstream %q: not a registry host, or its prefix is not a repository path: %w", s, errdefs.ErrInvalidArgument)
	}
	return ep, nil
}

// String returns the form that ParseEndpoint reads, with its scheme.
func (e Endpoint) String() string {
	s := e.Scheme + "://" + e.Host
	if e.Prefix != "" {
		s += "/" + e.Prefix
	}
	return s
}

// hostPort is Host with its port spelled out, as a dialer sees it.
func (e Endpoint) hostPort() string { return hostPort(e.Scheme, e.Host) }

func hostPort(scheme, host string) string {
	u := url.URL{Scheme: scheme, Host: host}
	port := u.Port()
	if port == "" {
		port = "443"
		if scheme == "http" {
			port = "80"
		}
	}
	name := u.Hostname()
	if addr, err := netip.ParseAddr(name); err == nil && addr.Is6() {
		return "[" + name + "]:" + port
	}
	return name + ":" + port
}
