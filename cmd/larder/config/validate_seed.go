package config

import "strings"

// checkSeed checks what containerd is given without a copy.
func (c *Config) checkSeed(fs *findings) {
	s := c.Seed
	if !s.Enabled {
		return
	}
	if c.Proxy.HasContent() {
		fs.add(invalid(`true: with "content" in proxy.services containerd has larder's store, and none of its own`), "seed.enabled", "proxy.services")
	}
	switch content, root := string(s.Content)+"/", string(c.Root)+"/"; {
	case s.Content == "":
		fs.add(invalid("must be set, with seed.enabled"), "seed.content", "seed.enabled")
	case strings.HasPrefix(content, root) || strings.HasPrefix(root, content):
		fs.add(invalid("%q: root is %q, and one must not be in the other: containerd removes what it does not know", s.Content, c.Root), "seed.content", "root")
	}
}
