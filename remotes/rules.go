package remotes

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
)

// Rules chooses among rules as ECR does: the longest prefix wins, aligned to
// path segments, ROOT last. Their number is not bounded; ECR takes 50.
type Rules struct {
	sorted []heldRule
}

// heldRule is a rule, and where it comes from.
type heldRule struct {
	Rule
	builtin bool
}

// NewRules checks rules and adds the built-in ones whose prefix none of them
// takes, if builtin is set. Two rules with one prefix are an error.
func NewRules(rules []Rule, builtin bool) (Rules, error) {
	var all []heldRule
	seen := map[string]bool{}
	for _, r := range rules {
		if err := r.Validate(); err != nil {
			return Rules{}, err
		}
		if seen[r.prefix()] {
			return Rules{}, fmt.Errorf("ecr_repository_prefix: %q stands in two rules: %w", r.ECRRepositoryPrefix, errdefs.ErrAlreadyExists)
		}
		seen[r.prefix()] = true
		all = append(all, heldRule{Rule: r})
	}
	if builtin {
		for _, r := range BuiltinRules() {
			if !seen[r.prefix()] {
				all = append(all, heldRule{Rule: r, builtin: true})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b heldRule) int { return cmp.Compare(len(b.prefix()), len(a.prefix())) })
	return Rules{sorted: all}, nil
}

// Map returns the upstream repository of a local path, and the rule that
// says so. It returns errdefs.ErrNotFound if no rule covers the path.
func (rs Rules) Map(path string) (Repository, Rule, error) {
	return rs.mapBy(path, func(heldRule) bool { return true })
}

// mapOn is Map for a path on an ECR registry host of an account. Built-in
// rules hold there only if builtin says so: see Names.ECRHosts.
func (rs Rules) mapOn(account string, builtin bool, path string) (Repository, Rule, error) {
	return rs.mapBy(path, func(r heldRule) bool {
		if r.builtin {
			return builtin
		}
		return r.RegistryID == "" || r.RegistryID == account
	})
}

// mapBy is Map with the rules that hold.
func (rs Rules) mapBy(path string, holds func(heldRule) bool) (Repository, Rule, error) {
	for _, r := range rs.sorted {
		if !holds(r) {
			continue
		}
		if rest, ok := r.rewrite(path); ok {
			repo, err := NewRepository(r.UpstreamRegistryURL, rest)
			return repo, r.Rule, err
		}
	}
	return Repository{}, Rule{}, fmt.Errorf("repository %q: no rule covers it; begin with a rule's prefix (docker-hub, quay, …) or add a [[rules]] entry: %w", path, errdefs.ErrNotFound)
}

// All returns the rules in the order in which they are tried.
func (rs Rules) All() []Rule {
	all := make([]Rule, 0, len(rs.sorted))
	for _, r := range rs.sorted {
		all = append(all, r.Rule)
	}
	return all
}
