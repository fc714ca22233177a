package remotes

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// Names maps what clients ask for to repositories. Three forms reach one
// repository: with ns=docker.io, library/nginx; on larder's own address,
// docker-hub/library/nginx; and that path again with the registry host of an
// ECR registry.
type Names struct {
	// Rules map the paths of larder's own address, and of ECR hosts as ECRHosts
	// and the rules' RegistryID say.
	Rules Rules
	// Own are the canonical registry hosts that mean larder itself.
	Own map[string]bool
	// ECRHosts are the ECR registry hosts on which the built-in rules hold,
	// too. On the others only configured rules do: a path below github/ may
	// well be the account's own repository, and must not be fetched from
	// whoever has that name on ghcr.io. A path that no rule covers is taken as
	// it is.
	ECRHosts []Pattern
	// Listed, unless nil, are the only registry hosts that may be asked for
	// by ns.
	Listed map[string]bool
}

// Map returns the repository that a client means by a path and a ns
// parameter ("" if it sent none). It returns errdefs.ErrNotFound if a rule
// would be needed and none covers the path, ErrPermissionDenied for a host
// that is not listed, and ErrInvalidArgument for malformed names.
func (n Names) Map(ns, path string) (Repository, error) {
	if ns == "" {
		if err := checkPath(path); err != nil {
			return Repository{}, err
		}
		return n.mapByRule(path)
	}
	repo, err := NewRepository(ns, path)
	if err != nil {
		return Repository{}, err
	}
	if n.Own[repo.Host] {
		return n.mapByRule(path)
	}
	if account := ecrAccount(repo.Host); account != "" {
		mapped, _, err := n.Rules.mapOn(account, n.hasBuiltin(repo.Host), path)
		if !errdefs.IsNotFound(err) {
			return mapped, err
		}
	}
	if n.Listed != nil && !n.Listed[repo.Host] {
		return Repository{}, fmt.Errorf("registry host %s is not listed and names.unlisted is \"deny\": %w", repo.Host, errdefs.ErrPermissionDenied)
	}
	return repo, nil
}

// ParseReference reads a reference as a person types it, and maps it.
func (n Names) ParseReference(s string) (Reference, error) {
	ref, err := ParseReference(s)
	if err != nil {
		return Reference{}, err
	}
	repo, err := n.Map(ref.Host, ref.Path)
	if err != nil {
		return Reference{}, fmt.Errorf("reference %q: %w", s, err)
	}
	ref.Repository = repo
	return ref, nil
}

func (n Names) mapByRule(path string) (Repository, error) {
	repo, _, err := n.Rules.Map(path)
	return repo, err
}

// hasBuiltin reports whether the built-in rules hold on an ECR host.
func (n Names) hasBuiltin(host string) bool {
	return matchesAny(n.ECRHosts, host)
}
