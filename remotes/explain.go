package remotes

import (
	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/remotes/upstream"
)

// Form is one of the three forms of a name.
type Form string

// The forms. See Names.
const (
	FormHost Form = "registry-host" // an image name as such
	FormOwn  Form = "own-address"   // below larder's own address, mapped by a rule
	FormECR  Form = "ecr-host"      // below an ECR registry host, mapped by a rule
)

// Explanation is how a name maps.
type Explanation struct {
	Form Form
	// Rule is the one that maps the name; nil if none does.
	Rule *Rule
	// Reason says why no rule maps the name, or why the name maps to nothing.
	Reason string
	// Repository is what the name means, zero if nothing.
	Repository Repository
	// Upstreams are asked for it in this order.
	Upstreams []upstream.Endpoint
}

// Explain tells how Map comes to its answer, and where the repository is asked
// for. Its error is Map's; the Explanation is as far as it goes.
func (n Names) Explain(routes Routes, ns, path string) (Explanation, error) {
	e := Explanation{Form: FormHost}
	asked, err := NewRepository(ns, path)
	isECR := err == nil && n.isMappedECR(asked.Host)
	if ns == "" || err == nil && n.Own[asked.Host] {
		e.Form = FormOwn
	}
	repo, err := n.Map(ns, path)
	if err == nil {
		e.Repository, e.Upstreams = repo, routes.For(repo.Host)
	}
	mapped, rule, ruleErr := n.Rules.Map(path)
	switch {
	case e.Form == FormOwn && err == nil:
		e.Rule = &rule
	case isECR && ruleErr == nil && err == nil && repo == mapped:
		e.Form, e.Rule = FormECR, &rule
	case err != nil:
		e.Reason = err.Error()
	case isECR && errdefs.IsNotFound(ruleErr):
		e.Reason = "no rule covers the path: it is a repository of this ECR registry itself"
	case IsECRHost(asked.Host):
		e.Reason = "the rules do not apply to this ECR registry (names.ecr_hosts): it is a repository there"
	default:
		e.Reason = "the name has its registry host and needs none"
	}
	return e, err
}
