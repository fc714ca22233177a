package main

import (
	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/remotes"
)

// policiesOf returns the policies that the rules set.
func policiesOf(cfg *config.Config) remotes.Policies {
	policies := remotes.NewPolicies(remotes.Policy{Private: remotes.PrivateNo})
	for _, r := range cfg.Rules {
		if r.Private != "" {
			policies = policies.WithHost(config.Host(r.UpstreamRegistryURL).Canonical(), remotes.Policy{Private: remotes.Privacy(r.Private)})
		}
	}
	return policies
}
