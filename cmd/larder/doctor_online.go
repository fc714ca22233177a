package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/cmd/larder/doctor"
	"github.com/larder-project/larder/remotes"
	"github.com/larder-project/larder/remotes/upstream"
)

// probe asks one upstream, or those of one rule.
type probe struct {
	name string
	ask  func(context.Context) error
	// fails is the status of a failure.
	fails doctor.Status
}

// checkUpstreams asks each configured upstream once: those of rules as larder
// rules validate does, and those of other routes. Where none is configured, the
// built-in rules are asked; a node may well do without them.
func checkUpstreams(ctx context.Context, o *options, cfg *config.Config, timeout time.Duration) []doctor.Result {
	const check = "upstream"
	rules, err := remotes.NewRules(rulesOf(cfg), cfg.Names.BuiltinRules)
	if err != nil {
		return []doctor.Result{doctor.Bad(doctor.Unknown, check, withoutKind(err.Error()), "")}
	}
	v, err := o.validatorOf(cfg, rules)
	if err != nil {
		return []doctor.Result{doctor.Bad(doctor.Unknown, check, withoutKind(err.Error()), "")}
	}
	defer v.Pool.Close()
	probes := probesOf(cfg, v, rules)
	results := make([]doctor.Result, len(probes))
	var group errgroup.Group
	group.SetLimit(parallelValidations)
	for i, p := range probes {
		group.Go(func() error {
			ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %s", timeout))
			defer cancel()
			if err := p.ask(ctx); err != nil {
				results[i] = doctor.Bad(p.fails, check, p.name+": "+failureText(ctx, err), "see larder rules validate, and larder status")
				return nil
			}
			results[i] = doctor.Fine(check, "%s answers", p.name)
			return nil
		})
	}
	_ = group.Wait() // an upstream's failure is a result
	return results
}

func probesOf(cfg *config.Config, v remotes.Validator, rules remotes.Rules) []probe {
	var probes []probe
	var covered []string
	add := func(r remotes.Rule, fails doctor.Status) {
		covered = append(covered, config.Host(r.UpstreamRegistryURL).Canonical())
		probes = append(probes, probe{prefixOf(r) + ", " + r.UpstreamRegistryURL, func(ctx context.Context) error { return v.Validate(ctx, r) }, fails})
	}
	for _, r := range rulesOf(cfg) {
		add(r, doctor.Problem)
	}
	for _, route := range cfg.Routes {
		if slices.Contains(covered, route.Registry.Canonical()) {
			continue // the rule's probe asks all of its route
		}
		for _, text := range route.Upstreams {
			probes = append(probes, probe{string(text), func(ctx context.Context) error {
				ep, err := upstream.ParseEndpoint(string(text))
				if err != nil {
					return err
				}
				return v.Pool.Client(ep).Ping(ctx, "larder/doctor")
			}, doctor.Problem})
		}
	}
	if len(probes) == 0 {
		for _, r := range rules.All() {
			add(r, doctor.Warning)
		}
	}
	return probes
}
