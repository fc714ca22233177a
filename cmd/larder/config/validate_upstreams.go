package config

import (
	"fmt"
	"net"

	"github.com/larder-project/larder/remotes/upstream"
)

func (c *Config) checkPrivate(fs *findings) {
	for i, e := range c.Upstream.Private {
		if ep, err := upstream.ParseEndpoint(string(e)); err == nil && ep.Prefix != "" {
			fs.add(invalid("%q: want a host without a path", e), fmt.Sprintf("upstream.private[%d]", i))
		}
	}
}

// checkCredentials checks what belongs together.
func (c *Config) checkCredentials(fs *findings) {
	const file, folder = "credentials.kubelet_config", "credentials.kubelet_bin_dir"
	switch config, dir := c.Credentials.KubeletConfig, c.Credentials.KubeletBinDir; {
	case config != "" && dir == "":
		fs.add(invalid("%q: needs %s, the folder of the plugins it names", config, folder), file, folder)
	case config == "" && dir != "":
		fs.add(invalid("%q: needs %s, which names plugins in it", dir, file), folder, file)
	}
}

func (c *Config) checkRoutes(fs *findings) {
	own := map[string]string{}
	for i, h := range c.Names.Own {
		own[h.Canonical()] = fmt.Sprintf("names.own[%d]", i)
	}
	first := map[string]string{}
	for i, r := range c.Routes {
		key := fmt.Sprintf("routes[%d].registry", i)
		host := r.Registry.Canonical()
		switch {
		case r.Registry == "":
			fs.add(invalid("must be set"), key)
		case own[host] != "":
			fs.add(invalid("%q: means larder itself, by %s", r.Registry, own[host]), key, own[host])
		case first[host] != "":
			fs.add(invalid("%q: has a route already, %s", r.Registry, first[host]), key, first[host])
		default:
			first[host] = key
		}
		c.checkUpstreams(fs, fmt.Sprintf("routes[%d].upstreams", i), r.Upstreams)
	}
}

func (c *Config) checkUpstreams(fs *findings, key string, upstreams []Endpoint) {
	if len(upstreams) == 0 {
		fs.add(invalid("want at least one upstream"), key)
	}
	first := map[upstream.Endpoint]string{}
	for i, e := range upstreams {
		at := fmt.Sprintf("%s[%d]", key, i)
		ep, err := upstream.ParseEndpoint(string(e))
		if err != nil {
			fs.add(err, at)
			continue
		}
		if other, taken := first[ep]; taken {
			fs.add(invalid("%q: is %s already", e, other), at, other)
			continue
		}
		first[ep] = at
		if c.Mirror.Address.reaches(ep.Host) {
			fs.add(invalid("%q: is larder's own mirror.address, larder would ask itself", e), at, "mirror.address")
		}
	}
}

// reaches reports whether an upstream's host is this very address.
func (a Address) reaches(host string) bool {
	_, port, err := net.SplitHostPort(string(a))
	if err != nil || port == "0" {
		return false
	}
	other := Address(host)
	_, otherPort, err := net.SplitHostPort(host)
	if err != nil || otherPort != port {
		return false
	}
	return a.Listen() == other.Listen() || a.Loopback() && other.Loopback()
}
