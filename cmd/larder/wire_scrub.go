package main

import (
	"time"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/cmd/larder/config"
)

// scrubDelay is what a node has for other things when it starts.
const scrubDelay = 5 * time.Minute

// scrubPolicyOf returns how the store is scrubbed.
func scrubPolicyOf(cfg config.Scrub) cache.ScrubPolicy {
	return cache.ScrubPolicy{
		Rate:   int64(cfg.Rate),
		Period: time.Duration(cfg.Period),
		Delay:  scrubDelay,
		Busy:   cache.BusyAbove(float64(cfg.MaxLoad) / 100),
	}
}

// bootOf returns what tells this boot from another, "" if nothing is verified
// for it.
func bootOf(cfg config.Scrub) (string, error) {
	if cfg.VerifyOnRead != config.VerifyBoot {
		return "", nil
	}
	return cache.BootID()
}
