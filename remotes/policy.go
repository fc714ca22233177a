package remotes

import (
	"maps"
	"time"
)

// Mode says when the upstreams of a repository are asked.
type Mode string

const (
	// ModeCacheFirst answers from the store inside the window; ECR's way, and
	// the default.
	ModeCacheFirst Mode = "cache-first"
	// ModeUpstreamFirst asks upstream at every pull by tag, and answers from
	// the store if that fails.
	ModeUpstreamFirst Mode = "upstream-first"
	// ModeOffline answers from the store and asks no upstream, ever.
	ModeOffline Mode = "offline"
)

// Privacy says who may have what is stored of a repository.
type Privacy string

const (
	// PrivateNo serves everyone who can reach larder; the default.
	PrivateNo Privacy = "no"
	// PrivateVerify serves those whose pull secret the upstream accepts.
	PrivateVerify Privacy = "verify"
)

// Settings are what a rule or a template says of the repositories below its
// prefix. A zero field says nothing.
type Settings struct {
	Mode    Mode
	Private Privacy
	// Window and Deleted are as in Freshness.
	Window  *time.Duration
	Deleted string
	// ImageTagMutability is ECR's: MUTABLE, IMMUTABLE, and both
	// _WITH_EXCLUSION. A tag of an immutable repository is never asked for
	// again, and never moves.
	ImageTagMutability string
	// ImageTagMutabilityExclusionFilters are the tags, as patterns with *, for
	// which the opposite holds: at most five.
	ImageTagMutabilityExclusionFilters []string
	// Allow and Deny are patterns of repositories, as stored (host/path) or
	// below the prefix. What Deny matches, or a non-empty Allow does not, is
	// refused.
	Allow, Deny []string
}

// Policy is how one repository is treated: Settings without gaps.
type Policy struct {
	Mode    Mode
	Private Privacy
	Window  time.Duration
	Deleted string
}

// Policies find the policy of a repository: what a rule or a template says of
// it, over the defaults.
type Policies struct {
	defaults Policy
	hosts    map[string]Policy
}

// NewPolicies makes Policies of what holds where nothing is said.
func NewPolicies(defaults Policy) Policies { return Policies{defaults: defaults} }

// AnyPrivate reports whether any repository may be under PrivateVerify. If none
// is, nothing is kept from anybody.
func (ps Policies) AnyPrivate() bool {
	for _, p := range ps.hosts {
		if p.Private == PrivateVerify {
			return true
		}
	}
	return ps.defaults.Private == PrivateVerify
}

// WithHost returns Policies with a policy for all repositories of a canonical
// registry host.
func (ps Policies) WithHost(host string, p Policy) Policies {
	hosts := maps.Clone(ps.hosts)
	if hosts == nil {
		hosts = map[string]Policy{}
	}
	hosts[host] = p
	return Policies{defaults: ps.defaults, hosts: hosts}
}

// For returns the policy of a repository.
func (ps Policies) For(repo Repository) Policy {
	if p, ok := ps.hosts[repo.Host]; ok {
		return p
	}
	return ps.defaults
}
