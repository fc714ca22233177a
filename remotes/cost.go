package remotes

import (
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes/upstream"
)

const (
	// costUnit is what the time of a fetch is compared with: 16 MiB at 80 MiB/s.
	costUnit = 200 * time.Millisecond
	// costSample is how much is fetched in that thought.
	costSample = 16 << 20
	// limitedCost is how much dearer a fetch is where pulls are counted: the next
	// one may be refused.
	limitedCost = 4
	// mostCost bounds what speed and limits make of it.
	mostCost = 50
	// offlineCost is that of what cannot be fetched again.
	offlineCost = 1e6
)

var _ cache.Costs = (*Registry)(nil)

// Cost says how dear it is to fetch an image again: by what was measured of the
// upstream that sent it, and by its limits. Unknown is 1.
func (r *Registry) Cost(repository, source string) cache.Cost {
	if repo, err := parseRepository(repository); err == nil && r.Policies.For(repo).Mode == ModeOffline {
		return cache.Cost{Weight: offlineCost, Why: "its repository is offline and cannot be asked again"}
	}
	ep, err := upstream.ParseEndpoint(source)
	if err != nil {
		return cache.Cost{Weight: 1}
	}
	return costOf(ep.Host, r.Pool.Pace(ep))
}

// costOf weighs what is known of an upstream.
func costOf(host string, p upstream.Pace) cache.Cost {
	c := cache.Cost{Weight: 1}
	if p.Speed > 0 {
		took := time.Duration(float64(costSample)/p.Speed*float64(time.Second)) + p.Latency
		c.Weight = max(0.5, float64(took)/float64(costUnit))
		c.Why = fmt.Sprintf("%s gives %s/s", host, humanize.IBytes(uint64(p.Speed)))
	}
	if p.Limited {
		c.Weight *= limitedCost
		if c.Why != "" {
			c.Why += " and limits pulls"
		} else {
			c.Why = host + " limits pulls"
		}
	}
	c.Weight = min(c.Weight, mostCost)
	return c
}

// parseRepository parses what Repository.String wrote.
func parseRepository(s string) (Repository, error) {
	ref, err := parseName(s)
	return ref.Repository, err
}
