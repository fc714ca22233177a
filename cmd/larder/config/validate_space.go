package config

// checkSpace checks the marks of eviction.
func (c *Config) checkSpace(fs *findings) {
	s := c.Space
	if s.High <= 0 || s.High > 100 {
		fs.add(invalid(`"%s": must be more than 0%% and at most 100%%`, s.High), "space.high")
	}
	if s.Low <= 0 || s.Low > 100 {
		fs.add(invalid(`"%s": must be more than 0%% and at most 100%%`, s.Low), "space.low")
	}
	if s.Low > s.High && s.High > 0 {
		fs.add(invalid(`"%s": must not be more than space.high, which is "%s"`, s.Low, s.High), "space.low", "space.high")
	}
	if s.MinFree.Percent == 100 {
		fs.add(invalid(`"%s": leaves nothing for larder`, s.MinFree), "space.min_free")
	}
}
