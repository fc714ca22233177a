package remotes

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// Permit returns errdefs.ErrPermissionDenied, naming who says so and by what
// pattern, for a repository that a rule or a template denies or does not allow.
// It is asked whether something is stored or not.
func (ps Policies) Permit(repo Repository) error {
	p := ps.For(repo)
	if p.deny != nil {
		for _, name := range ps.namesBelow(repo, p.deny) {
			if i := slices.IndexFunc(p.deny.deny, func(d Pattern) bool { return d.Match(name) }); i >= 0 {
				return fmt.Errorf("repository %s is denied by %s, which has deny = %q: %w", repo, p.deny, p.deny.deny[i], errdefs.ErrPermissionDenied)
			}
		}
	}
	if p.allow == nil {
		return nil
	}
	for _, name := range ps.namesBelow(repo, p.allow) {
		if matchesAny(p.allow.allow, name) {
			return nil
		}
	}
	return fmt.Errorf("repository %s is not allowed by %s, which has allow = %q: %w", repo, p.allow, p.allow.settings.Allow, errdefs.ErrPermissionDenied)
}

// namesBelow are the names that a setter's patterns are matched with: the one
// as stored, for an ECR registry also with its usual host, and whatever follows
// the setter's prefix in that and in the local names.
func (ps Policies) namesBelow(repo Repository, s *setter) []string {
	names := []string{repo.String()}
	host := policyHost(repo.Host)
	if host != repo.Host {
		names = append(names, host+"/"+repo.Path)
	}
	all := slices.Clone(names)
	for _, c := range ps.byHost[host].rules {
		if name, ok := c.rule.local(repo.Path); ok {
			all = append(all, name)
		}
	}
	for _, name := range all {
		for _, prefix := range s.prefixes {
			if rest, ok := strings.CutPrefix(name, prefix); ok && rest != "" {
				names = append(names, rest)
			}
		}
	}
	return names
}
