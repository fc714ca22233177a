package config

import (
	"fmt"
	"time"
)

const (
	// containerd goes to the next host when no header came for this long; a
	// mirror that waits longer only costs time.
	containerdPatience = 30 * time.Second
	// leastStall is what a client may well need for something else, such as
	// the disk.
	leastStall = time.Second
	// maxAttempts bounds the hammering of an upstream.
	maxAttempts = 100
	// maxPrefetched is what all images together may have on their way.
	maxPrefetched = 24
)

// finding is a problem of one key, or of one with others.
type finding struct {
	// keys begins with the key at fault; then come those it disagrees with.
	keys []string
	err  error
}

// findings collects problems.
type findings []finding

func (fs *findings) add(err error, keys ...string) {
	*fs = append(*fs, finding{keys: keys, err: err})
}

// Validate checks what no single value shows: missing values, and values that
// contradict each other. It returns all problems, each as an [*Error] without
// a place, joined by errors.Join. Load calls it.
func (c *Config) Validate() error {
	var problems []*Error
	for _, f := range c.check() {
		problems = append(problems, &Error{Key: f.keys[0], Err: f.err})
	}
	return join(problems)
}

func (c *Config) check() findings {
	var fs findings
	c.checkPlaces(&fs)
	c.checkSockets(&fs)
	c.checkProxy(&fs)
	c.checkTimes(&fs)
	c.checkTags(&fs)
	c.checkAccess(&fs)
	c.checkPrivate(&fs)
	c.checkLimits(&fs)
	c.checkScrub(&fs)
	c.checkSpace(&fs)
	c.checkSeed(&fs)
	c.checkCredentials(&fs)
	c.checkRoutes(&fs)
	c.checkRules(&fs)
	c.checkTemplates(&fs)
	c.checkPins(&fs)
	return fs
}

// checkPlaces checks where the daemon stores and listens.
func (c *Config) checkPlaces(fs *findings) {
	switch c.Root {
	case "":
		fs.add(invalid("must be set"), "root")
	case "/":
		fs.add(invalid("%q: the store needs a folder of its own", c.Root), "root")
	}
	if c.Admin.Address == "" {
		fs.add(invalid("must be set"), "admin.address")
	}
	switch {
	case c.Mirror.Address == "":
		fs.add(invalid("must be set"), "mirror.address")
	case !c.Mirror.Address.Loopback() && c.Mirror.SecretFile == "":
		fs.add(invalid("%q: other machines can reach it, so mirror.secret_file must be set", c.Mirror.Address),
			"mirror.address", "mirror.secret_file")
	}
}

// checkTimes checks durations and the other bounds.
func (c *Config) checkTimes(fs *findings) {
	for _, d := range []struct {
		key   string
		value Duration
	}{
		{"mirror.wait", c.Mirror.Wait},
		{"freshness.retry", c.Freshness.Retry},
		{"fill.stall", c.Fill.Stall},
		{"upstream.dial_timeout", c.Upstream.DialTimeout},
		{"upstream.header_timeout", c.Upstream.HeaderTimeout},
		{"upstream.pause", c.Upstream.Pause},
	} {
		if d.value <= 0 {
			fs.add(invalid(`"%s": must be more than 0s`, d.value), d.key)
		}
	}
	if time.Duration(c.Mirror.Wait) >= containerdPatience {
		fs.add(invalid(`"%s": must be less than %s, after which containerd itself gives up`, c.Mirror.Wait, containerdPatience), "mirror.wait")
	}
	if s := time.Duration(c.Mirror.Stall); s < 0 || s > 0 && s < leastStall {
		fs.add(invalid(`"%s": must be at least %s, or 0s`, c.Mirror.Stall, leastStall), "mirror.stall")
	}
	if c.Mirror.MaxConnections < 0 {
		fs.add(invalid("%d: must not be negative", c.Mirror.MaxConnections), "mirror.max_connections")
	}
	if c.Freshness.Patience > c.Mirror.Wait && c.Mirror.Wait > 0 {
		fs.add(invalid(`"%s": must not be more than mirror.wait, which is "%s"`, c.Freshness.Patience, c.Mirror.Wait),
			"freshness.patience", "mirror.wait")
	}
	if c.Fill.MinSpeed <= 0 {
		fs.add(invalid(`"%s": must be more than 0B, or a stalled download never ends`, c.Fill.MinSpeed), "fill.min_speed")
	}
	if c.Companions.MaxSize <= 0 {
		fs.add(invalid(`"%s": must be more than 0B; companions.fetch = false fetches none`, c.Companions.MaxSize), "companions.max_size")
	}
	if n := c.Prefetch.Parallel; n < 1 || n > maxPrefetched {
		fs.add(invalid("%d: want 1 to %d; prefetch.enabled = false prefetches nothing", n, maxPrefetched), "prefetch.parallel")
	}
	if n := c.Fill.Attempts; n < 1 || n > maxAttempts {
		fs.add(invalid("%d: want 1 to %d", n, maxAttempts), "fill.attempts")
	}
}

// checkAccess checks what is remembered of pull secrets. Without any memory each
// of an image's blobs would cost a request, and each pull fail with upstream.
func (c *Config) checkAccess(fs *findings) {
	p := c.Private
	if p.Verified <= 0 {
		fs.add(invalid(`"%s": must be more than 0s`, p.Verified), "private.verified")
	}
	if p.Grace < p.Verified {
		fs.add(invalid(`"%s": must not be less than private.verified, which is "%s"`, p.Grace, p.Verified), "private.grace", "private.verified")
	}
	if p.Refused <= 0 {
		fs.add(invalid(`"%s": must be more than 0s`, p.Refused), "private.refused")
	}
	if p.Refused > p.Verified && p.Verified > 0 {
		fs.add(invalid(`"%s": must not be more than private.verified, which is "%s"`, p.Refused, p.Verified), "private.refused", "private.verified")
	}
}

// checkScrub checks what is read in the background.
func (c *Config) checkScrub(fs *findings) {
	if c.Scrub.Rate > 0 && c.Scrub.Period < Duration(time.Hour) {
		fs.add(invalid(`"%s": must be at least 1h; scrub.rate = "0B" turns it off`, c.Scrub.Period), "scrub.period", "scrub.rate")
	}
	if c.Scrub.MaxLoad <= 0 {
		fs.add(invalid(`"%s": must be more than 0%%`, c.Scrub.MaxLoad), "scrub.max_load")
	}
}

func (c *Config) checkTags(fs *findings) {
	first := map[Glob]string{}
	for i, t := range c.Freshness.Tags {
		key := fmt.Sprintf("freshness.tags[%d].match", i)
		if t.Match == "" {
			fs.add(invalid("must be set"), key)
		} else if other, taken := first[t.Match]; taken {
			fs.add(invalid("%q: is never reached, %s has the same pattern", t.Match, other), key, other)
		} else {
			first[t.Match] = key
		}
	}
}

func (c *Config) checkPins(fs *findings) {
	first := map[PinName]string{}
	for i, p := range c.Pins {
		key := fmt.Sprintf("pins[%d].name", i)
		if p.Name == "" {
			fs.add(invalid("must be set"), key)
		} else if other, taken := first[p.Name]; taken {
			fs.add(invalid("%q: stands in %s already", p.Name, other), key, other)
		} else {
			first[p.Name] = key
		}
	}
}
