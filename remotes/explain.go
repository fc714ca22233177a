package remotes

import "github.com/larder-project/larder/remotes/upstream"

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
	isECR := err == nil && IsECRHost(asked.Host)
	if ns == "" || err == nil && n.Own[asked.Host] {
		e.Form = FormOwn
	}
	repo, err := n.Map(ns, path)
	if err != nil {
		e.Reason = err.Error()
		return e, err
	}
	e.Repository, e.Upstreams = repo, routes.For(repo.Host)
	rule, covered := n.ruleTo(asked.Host, path, repo)
	switch {
	case e.Form == FormOwn:
		e.Rule = rule
	case isECR && rule != nil:
		e.Form, e.Rule = FormECR, rule
	case isECR && covered:
		e.Reason = "the rules do not apply to this ECR registry (names.ecr_hosts, registry_id): it is a repository there"
	case isECR:
		e.Reason = "no rule covers the path: it is a repository of this ECR registry itself"
	default:
		e.Reason = "the name has its registry host and needs none"
	}
	return e, nil
}

// ruleTo is the rule that maps a path to a repository; nil if none does.
// covered tells that there are rules for the path, be it to elsewhere.
func (n Names) ruleTo(host, path string, repo Repository) (rule *Rule, covered bool) {
	for _, r := range n.Rules.All() {
		rest, ok := r.rewrite(path)
		if !ok {
			continue
		}
		covered = true
		// On an ECR host, a rule of another account leads to the same place at
		// most.
		if account := ecrAccount(host); r.RegistryID != "" && account != "" && account != r.RegistryID {
			continue
		}
		if to, err := NewRepository(r.UpstreamRegistryURL, rest); err == nil && to == repo {
			return &r, true
		}
	}
	return nil, covered
}
