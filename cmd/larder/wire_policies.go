package main

import (
	"log/slog"
	"time"

	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/remotes"
)

// policiesOf returns what rules and templates say, over [freshness].
func policiesOf(cfg *config.Config, rules remotes.Rules) (remotes.Policies, error) {
	defaults := remotes.Policy{
		Mode: remotes.ModeCacheFirst, Private: remotes.PrivateNo,
		Window: time.Duration(cfg.Freshness.Window), Deleted: string(cfg.Freshness.Deleted),
	}
	return remotes.NewPolicies(defaults).WithRules(rules, templatesOf(cfg))
}

func templatesOf(cfg *config.Config) []remotes.Template {
	var templates []remotes.Template
	for _, t := range cfg.Templates {
		templates = append(templates, t.Remote())
	}
	return templates
}

// tellIdle logs templates that hold for nothing: left alone, they would look as
// if they worked.
func tellIdle(policies remotes.Policies, logger *slog.Logger) {
	for _, prefix := range policies.Idle() {
		logger.Warn("template holds for nothing: its prefix is neither that of a rule nor begins with a registry host", "prefix", prefix)
	}
}
