package upstream

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"strconv"
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
// anything else, credentials in the text included; the error repeats the text
// only where it cannot hold a secret.
func ParseEndpoint(s string) (Endpoint, error) {
	text := s
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	switch {
	case err == nil && u.User != nil:
		return Endpoint{}, fmt.Errorf("upstream: credentials do not belong in an address: %w", errdefs.ErrInvalidArgument)
	case err != nil, strings.ContainsAny(text, "?#"), u.Opaque != "":
		return Endpoint{}, fmt.Errorf("upstream %s: want [http[s]://]host[:port][/prefix]: %w", quote(s), errdefs.ErrInvalidArgument)
	case u.Scheme != "https" && u.Scheme != "http":
		return Endpoint{}, fmt.Errorf("upstream %s: scheme is %s, want http or https: %w", quote(s), quote(u.Scheme), errdefs.ErrInvalidArgument)
	}
	ep := Endpoint{Scheme: u.Scheme, Host: strings.ToLower(u.Host), Prefix: strings.Trim(u.Path, "/")}
	named, err := reference.WithName(ep.Host + "/" + cmp.Or(ep.Prefix, "probe"))
	if err != nil || reference.Domain(named) != ep.Host || !isPort(u.Port()) {
		return Endpoint{}, fmt.Errorf("upstream %s: not a registry host, or its prefix is not a repository path: %w", quote(s), errdefs.ErrInvalidArgument)
	}
	return ep, nil
}

// maxQuoted bounds how much of a refused address is repeated.
const maxQuoted = 200

// quote repeats an address in an error. Behind an at sign, a question mark or
// a hash there may be a secret, even in text that is no URL.
func quote(s string) string {
	if len(s) > maxQuoted || strings.ContainsAny(s, "@?#") {
		return "(not repeated)"
	}
	return strconv.Quote(s)
}

// isPort reports whether s is a port one can connect to, or none.
func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return s == "" || err == nil && n > 0
}

// String returns the form that ParseEndpoint reads, with its scheme.
func (e Endpoint) String() string {
	s := e.Scheme + "://" + e.Host
	if e.Prefix != "" {
		s += "/" + e.Prefix
	}
	return s
}

// isOriginOf reports whether a URL is one of the endpoint's host and port, by
// its scheme.
func (e Endpoint) isOriginOf(u *url.URL) bool {
	return u.Scheme == e.Scheme && hostPort(u.Scheme, u.Host) == e.hostPort()
}

// hostPort is Host with its port spelled out, as a dialer sees it.
func (e Endpoint) hostPort() string { return hostPort(e.Scheme, e.Host) }

// hostPort spells out the default port of a scheme, in lower case.
func hostPort(scheme, host string) string {
	u := url.URL{Scheme: scheme, Host: strings.ToLower(host)}
	port := u.Port()
	if port == "" {
		switch scheme {
		case "http":
			port = "80"
		case "socks5", "socks5h":
			port = "1080"
		default:
			port = "443"
		}
	}
	return net.JoinHostPort(u.Hostname(), port)
}
