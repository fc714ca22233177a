package remotes

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Policies find the policy of a repository: what a rule or a template says of
// it, over the defaults. They depend on the canonical name alone, so that all
// forms of a name lead to one policy, and the hosts of one ECR registry too. The
// zero Policies say nothing.
type Policies struct {
	defaults Policy
	root     *setter             // the template ROOT
	byHost   map[string]coverage // by policyHost
	idle     []string            // prefixes of templates that hold for nothing
	private  bool                // saysPrivate, once and for all
}

// coverage is what says something of the repositories of a registry host, the
// first to ask first.
type coverage struct {
	rules, templates []cover
}

// cover is a rule or a template for the repositories below a path of a
// registry host.
type cover struct {
	*setter
	path  string    // "" for all, else ending in a slash
	depth int       // how much of the path its prefix takes
	rule  *heldRule // nil for a template
}

// NewPolicies makes Policies of what holds where nothing is said. Its zero
// fields are as the Registry's Freshness has them.
func NewPolicies(defaults Policy) Policies { return Policies{defaults: defaults} }

// WithRules returns Policies with what rules and templates say over the same
// defaults. It returns errdefs.ErrInvalidArgument for a template that is not
// valid, and ErrAlreadyExists for two with one prefix.
func (ps Policies) WithRules(rules Rules, templates []Template) (Policies, error) {
	if err := checkTemplates(templates); err != nil {
		return Policies{}, err
	}
	ps.root, ps.byHost, ps.idle = nil, map[string]coverage{}, nil
	var errs []error
	for _, r := range rules.sorted {
		errs = append(errs, ps.addRule(r))
	}
	for _, t := range templates {
		errs = append(errs, ps.addTemplate(rules, t))
	}
	if err := errors.Join(errs...); err != nil {
		return Policies{}, err
	}
	for _, on := range ps.byHost {
		// Both are stable: rules come with the longest local prefix first, and
		// templates in the order of the file. A built-in rule has nothing to say,
		// and must not keep a configured one from saying it.
		slices.SortStableFunc(on.rules, func(a, b cover) int {
			return cmp.Or(compareBools(a.rule.builtin, b.rule.builtin), cmp.Compare(b.depth, a.depth))
		})
		slices.SortStableFunc(on.templates, func(a, b cover) int {
			return cmp.Or(cmp.Compare(b.depth, a.depth), cmp.Compare(len(b.prefixes[0]), len(a.prefixes[0])))
		})
	}
	ps.private = ps.saysPrivate()
	return ps, nil
}

// compareBools has false come before true.
func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func (ps *Policies) addRule(r heldRule) error {
	s, err := newSetter(fmt.Sprintf("rule %q", r.ECRRepositoryPrefix), r.Settings, r.prefix())
	on := ps.byHost[policyHost(r.host())]
	on.rules = append(on.rules, cover{setter: s, path: r.upstreamPrefix(), depth: len(r.upstreamPrefix()), rule: &r})
	ps.byHost[policyHost(r.host())] = on
	return err
}

// addTemplate adds a template under every form in which its prefix is one.
func (ps *Policies) addTemplate(rules Rules, t Template) error {
	prefixes := []string{matchedPrefix(t.Prefix)}
	host, path, isStored := t.storedForm()
	if isStored {
		prefixes = append(prefixes, host+"/"+path, policyHost(host)+"/"+path)
	}
	s, err := newSetter(fmt.Sprintf("template %q", t.Prefix), t.Settings, slices.Compact(prefixes)...)
	if t.Prefix == Root {
		ps.root = s
		return err
	}
	idle := true
	add := func(host, path string, depth int) {
		idle = false
		host = policyHost(host)
		on := ps.byHost[host]
		on.templates = append(on.templates, cover{setter: s, path: path, depth: depth})
		ps.byHost[host] = on
	}
	if isStored {
		add(host, path, len(path))
	}
	for _, r := range rules.sorted {
		if path, depth, ok := t.localForm(r.Rule); ok {
			add(r.host(), path, depth)
		}
	}
	if idle {
		ps.idle = append(ps.idle, t.Prefix)
	}
	return err
}

// Idle are the prefixes of templates that hold for nothing: no rule leads below
// them, and they begin with no registry host. They are probably not meant so.
func (ps Policies) Idle() []string { return ps.idle }

// over returns Policies whose gaps are filled.
func (ps Policies) over(f Freshness) Policies {
	ps.defaults = ps.defaults.fill(f)
	return ps
}

// For returns the policy of a repository. It is asked at every request, and
// allocates nothing.
func (ps Policies) For(repo Repository) Policy {
	first, second := ps.setters(repo)
	p := ps.defaults
	second.apply(&p)
	first.apply(&p)
	return p
}

// setters finds the rule and the template of a repository, the one that counts
// more first: the one whose prefix takes more of the name, at equal length the
// rule.
func (ps Policies) setters(repo Repository) (first, second *setter) {
	on := ps.byHost[policyHost(repo.Host)]
	covers := func(c cover) bool { return strings.HasPrefix(repo.Path, c.path) }
	rule, template := slices.IndexFunc(on.rules, covers), slices.IndexFunc(on.templates, covers)
	switch {
	case rule < 0 && template < 0:
		return ps.root, nil
	case rule < 0:
		return on.templates[template].setter, nil
	case template < 0:
		return on.rules[rule].setter, ps.root
	case on.templates[template].depth > on.rules[rule].depth:
		return on.templates[template].setter, on.rules[rule].setter
	}
	return on.rules[rule].setter, on.templates[template].setter
}

// AnyPrivate reports whether any repository may be under PrivateVerify. If none
// is, nothing is kept from anybody. It is asked at every request, as For is.
func (ps Policies) AnyPrivate() bool {
	return ps.private || ps.defaults.Private == PrivateVerify
}

// saysPrivate reports whether any rule or template says so.
func (ps Policies) saysPrivate() bool {
	return ps.anySays(func(s *setter) bool { return s.settings.Private == PrivateVerify })
}

// anyLifecycle reports whether any repository may have a lifecycle policy.
func (ps Policies) anyLifecycle() bool {
	return ps.anySays(func(s *setter) bool { return s.lifecycle != nil })
}

// anySays reports whether any rule or template says something.
func (ps Policies) anySays(says func(*setter) bool) bool {
	covers := func(c cover) bool { return says(c.setter) }
	for _, on := range ps.byHost {
		if slices.ContainsFunc(on.rules, covers) || slices.ContainsFunc(on.templates, covers) {
			return true
		}
	}
	return ps.root != nil && says(ps.root)
}
