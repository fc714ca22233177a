package remotes

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/larder-project/larder/cache/lifecycle"
)

// Policy is how one repository is treated: Settings without gaps.
type Policy struct {
	Mode    Mode
	Private Privacy
	Window  time.Duration
	Deleted string

	// Who says it. Nil: nobody but the defaults.
	mode, mutability, allow, deny, lifecycle *setter
}

// fill fills gaps with the defaults, of which the freshness is one.
func (p Policy) fill(f Freshness) Policy {
	p.Mode = cmp.Or(p.Mode, ModeCacheFirst)
	p.Private = cmp.Or(p.Private, PrivateNo)
	p.Window = cmp.Or(p.Window, f.Window)
	p.Deleted = cmp.Or(p.Deleted, f.Deleted)
	return p
}

// over is a registry's freshness for the repositories of the policy. Windows of
// tag patterns go before the policy's, since they say more.
func (p Policy) over(f Freshness) Freshness {
	f.Window, f.Deleted = p.Window, p.Deleted
	if p.Mode == ModeUpstreamFirst {
		f.Window, f.Tags = 0, nil
	}
	return f
}

// WindowOf is for how long a stored tag is served without asking upstream, over
// a registry's freshness. always says that it is never asked for again.
func (p Policy) WindowOf(f Freshness, ref Reference) (window time.Duration, always bool) {
	return p.over(f).WindowOf(ref.String()), p.settles(ref.Tag)
}

// Lifecycle is the lifecycle policy that holds, and who says it, for instance
// rule "docker-hub". ok is false if there is none.
func (p Policy) Lifecycle() (policy lifecycle.Policy, by string, ok bool) {
	if p.lifecycle == nil {
		return lifecycle.Policy{}, "", false
	}
	return *p.lifecycle.lifecycle, p.lifecycle.String(), true
}

// setter is a rule or a template with its settings, compiled.
type setter struct {
	// name is for texts, for instance: rule "docker-hub".
	name string
	// prefixes are what allow and deny are below: "" for ROOT. A template that
	// begins with a registry host has two if that is not written as names are
	// stored.
	prefixes                []string
	settings                Settings
	exclusions, allow, deny []Pattern
	lifecycle               *lifecycle.Policy // nil: it says nothing
}

// newSetter compiles settings.
func newSetter(name string, s Settings, prefixes ...string) (*setter, error) {
	compiled := &setter{name: name, prefixes: prefixes, settings: s}
	var errs [4]error
	compiled.exclusions, errs[0] = parsePatterns(s.ImageTagMutabilityExclusionFilters)
	compiled.allow, errs[1] = parsePatterns(s.Allow)
	compiled.deny, errs[2] = parsePatterns(s.Deny)
	if s.LifecyclePolicy != "" {
		policy, err := lifecycle.Parse([]byte(s.LifecyclePolicy))
		compiled.lifecycle, errs[3] = &policy, err
	}
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return compiled, nil
}

// String names the setter in texts.
func (s *setter) String() string {
	if s == nil {
		return "default"
	}
	return s.name
}

// apply overwrites what the setter says something of. Exclusion filters belong
// to the mutability that they go with.
func (s *setter) apply(p *Policy) {
	if s == nil {
		return
	}
	if s.settings.Mode != "" {
		p.Mode, p.mode = s.settings.Mode, s
	}
	if s.settings.Window != nil {
		p.Window = *s.settings.Window
	}
	p.Private = cmp.Or(s.settings.Private, p.Private)
	p.Deleted = cmp.Or(s.settings.Deleted, p.Deleted)
	if s.settings.ImageTagMutability != "" {
		p.mutability = s
	}
	if len(s.allow) > 0 {
		p.allow = s
	}
	if len(s.deny) > 0 {
		p.deny = s
	}
	if s.lifecycle != nil {
		p.lifecycle = s
	}
}
