package config

import (
	"fmt"
	"strings"
)

const (
	// leastConnections leaves one for blobs and one for what must not wait
	// behind them.
	leastConnections = 2
	// speedMargin is how many times fill.min_speed a bound on the speed must
	// be: what is slowed down on purpose must not look stalled.
	speedMargin = 2
	// maxParallel is more than any upstream is worth.
	maxParallel = 64
)

// checkLimits checks what larder allows itself, and the settings of single
// upstreams.
func (c *Config) checkLimits(fs *findings) {
	if c.Upstream.Reserve < 0 {
		fs.add(invalid("%d: must not be negative", c.Upstream.Reserve), "upstream.reserve")
	}
	c.checkBounds(fs, "upstream", c.Upstream.MaxConnections, c.Upstream.MaxSpeed)
	if n := c.Upstream.Parallel; n < 1 || n > maxParallel {
		fs.add(invalid("%d: want 1 to %d", n, maxParallel), "upstream.parallel")
	}
	first := map[string]string{}
	for i, h := range c.Upstream.Hosts {
		path := fmt.Sprintf("upstream.hosts[%d]", i)
		key := path + ".host"
		if h.Host == "" {
			fs.add(invalid("must be set"), key)
		}
		for _, place := range h.Host.places() {
			if other := first[place]; other != "" && other != key {
				fs.add(invalid("%q: has settings already, %s", h.Host, other), key, other)
				break
			}
			first[place] = key
		}
		if h.ClientCertFile != "" && h.ClientKeyFile == "" {
			fs.add(invalid("must be set, since client_cert_file is"), path+".client_key_file", path+".client_cert_file")
		}
		if h.ClientKeyFile != "" && h.ClientCertFile == "" {
			fs.add(invalid("must be set, since client_key_file is"), path+".client_cert_file", path+".client_key_file")
		}
		c.checkBounds(fs, path, h.MaxConnections, h.MaxSpeed)
		if h.Parallel < 0 || h.Parallel > maxParallel {
			fs.add(invalid("%d: want 1 to %d, or 0 for upstream.parallel", h.Parallel, maxParallel), path+".parallel")
		}
	}
}

// places are the addresses that settings of a host hold for: without a port
// they hold for https and for http.
func (h Host) places() []string {
	host := h.Canonical()
	switch {
	case host == "":
		return nil
	case strings.LastIndexByte(host, ':') > strings.LastIndexByte(host, ']'): // not in an IPv6 address
		return []string{host}
	}
	return []string{host + ":443", host + ":80"}
}

func (c *Config) checkBounds(fs *findings, path string, connections int, speed Size) {
	if connections < 0 || connections > 0 && connections < leastConnections {
		fs.add(invalid("%d: want 0 or at least %d, one for blobs and one for what must not wait behind them", connections, leastConnections),
			path+".max_connections")
	}
	if least := speedMargin * c.Fill.MinSpeed; speed > 0 && speed < least {
		fs.add(invalid(`"%s": must be at least "%s", twice fill.min_speed, or a download that is slowed down on purpose counts as stalled`, speed, least),
			path+".max_speed", "fill.min_speed")
	}
}
