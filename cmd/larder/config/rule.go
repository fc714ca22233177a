package config

import "github.com/larder-project/larder/remotes"

// Remote is the rule as package remotes takes it.
func (r Rule) Remote() remotes.Rule {
	return remotes.Rule{
		ECRRepositoryPrefix:      r.ECRRepositoryPrefix,
		UpstreamRegistryURL:      r.UpstreamRegistryURL,
		UpstreamRegistry:         r.UpstreamRegistry,
		UpstreamRepositoryPrefix: r.UpstreamRepositoryPrefix,
		Settings:                 remotes.Settings{Private: remotes.Privacy(r.Private)},
	}
}
