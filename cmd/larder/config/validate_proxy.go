package config

import (
	"slices"
	"strconv"
	"strings"
)

// maxSocketPath is what sun_path of unix(7) holds, without the final zero.
const maxSocketPath = 107

// checkSockets checks the length of all paths of unix sockets: to listen or to
// connect there fails with no more than "invalid argument".
func (c *Config) checkSockets(fs *findings) {
	for _, s := range []struct {
		key  string
		path Path
	}{
		{"admin.address", c.Admin.Address},
		{"proxy.socket", c.Proxy.Socket},
		{"proxy.containerd", c.Proxy.Containerd},
		{"space.cri", c.Space.CRI},
	} {
		if n := len(s.path); n > maxSocketPath {
			fs.add(invalid("%q: has %d bytes, a socket's path may have %d", s.path, n, maxSocketPath), s.key)
		}
	}
}

// HasContent reports whether larder is containerd's content store. Without it,
// containerd knows of nothing in the store.
func (p Proxy) HasContent() bool { return p.Enabled && slices.Contains(p.Services, ServiceContent) }

// checkProxy checks how larder serves containerd, also while it does not.
func (c *Config) checkProxy(fs *findings) {
	p := &c.Proxy
	// Content alone makes pulls half as fast: unpacking reads over the socket.
	both := slices.Sorted(slices.Values(p.Services))
	if !slices.Equal(both, []Service{ServiceContent, ServiceDiff}) && !slices.Equal(both, []Service{ServiceDiff}) {
		names := make([]string, len(p.Services))
		for i, s := range p.Services {
			names[i] = strconv.Quote(string(s))
		}
		fs.add(invalid(`[%s]: want ["content", "diff"] or ["diff"]`, strings.Join(names, ", ")), "proxy.services")
	}
	if p.Enabled && p.Socket == "" {
		fs.add(invalid("must be set, for proxy.enabled"), "proxy.socket", "proxy.enabled")
	}
	if p.Enabled && p.Containerd == "" {
		fs.add(invalid("must be set, for proxy.enabled"), "proxy.containerd", "proxy.enabled")
	}
}
