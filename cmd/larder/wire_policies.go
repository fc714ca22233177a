package main

import (
	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/remotes"
)

// policiesOf returns what rules and templates say, over [freshness].
func policiesOf(cfg *config.Config, rules remotes.Rules) (remotes.Policies, error) {
	var templates []remotes.Template
	for _, t := range cfg.Templates {
		templates = append(templates, t.Remote())
	}
	return remotes.NewPolicies(remotes.Policy{}).WithRules(rules, templates)
}
