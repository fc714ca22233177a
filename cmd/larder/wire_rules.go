package main

import (
	"strings"

	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/remotes"
	"github.com/larder-project/larder/remotes/upstream"
)

// ruleSet are the rules of a configuration, in the order in which they are
// tried, and which of them the configuration names.
type ruleSet struct {
	remotes.Rules
	configured map[string]bool // by prefix, without a slash at the end
}

// loadRules loads the configuration with its rules.
func (o *options) loadRules() (*config.Config, ruleSet, error) {
	cfg, err := o.loadConfig()
	if err != nil {
		return nil, ruleSet{}, err
	}
	set, err := ruleSetOf(cfg)
	return cfg, set, err
}

// loadRulesWithPolicies is loadRules with what the files of lifecycle policies
// say.
func (o *options) loadRulesWithPolicies() (*config.Config, ruleSet, error) {
	cfg, err := o.loadConfig()
	if err != nil {
		return nil, ruleSet{}, err
	}
	if cfg, err = cfg.ReadPolicies(); err != nil {
		return nil, ruleSet{}, o.misconfigured(o.configPath, err)
	}
	set, err := ruleSetOf(cfg)
	return cfg, set, err
}

func ruleSetOf(cfg *config.Config) (ruleSet, error) {
	own := rulesOf(cfg)
	rules, err := remotes.NewRules(own, cfg.Names.BuiltinRules)
	set := ruleSet{Rules: rules, configured: map[string]bool{}}
	for _, r := range own {
		set.configured[prefixOf(r)] = true
	}
	return set, err
}

// prefixOf is a rule's prefix as people compare them.
func prefixOf(r remotes.Rule) string { return strings.TrimSuffix(r.ECRRepositoryPrefix, "/") }

func (s ruleSet) isBuiltin(r remotes.Rule) bool { return !s.configured[prefixOf(r)] }

// mirrorAddr is the mirror's address as configured, for verbs that run without
// the daemon.
type mirrorAddr config.Address

// Network implements net.Addr.
func (mirrorAddr) Network() string { return "tcp" }

// String implements net.Addr.
func (a mirrorAddr) String() string { return config.Address(a).Listen() }

// validatorOf wires what asks the upstreams of rules. Close its Pool.
func (o *options) validatorOf(cfg *config.Config, rules remotes.Rules) (remotes.Validator, error) {
	routes, named, err := routesOf(cfg)
	if err != nil {
		return remotes.Validator{}, err
	}
	options, err := poolOptions(cfg, rules, named, newWarner(o.stderr))
	if err != nil {
		return remotes.Validator{}, o.misconfigured(o.configPath, err)
	}
	pool, err := upstream.NewPool(options)
	if err != nil {
		return remotes.Validator{}, o.misconfigured(o.configPath, err)
	}
	return remotes.Validator{Pool: pool, Routes: routes, Credentials: options.Credentials}, nil
}
