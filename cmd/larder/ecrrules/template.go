package ecrrules

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/cache/lifecycle"
	"github.com/larder-project/larder/remotes"
)

// pullThrough is the one use of ECR's templates that larder has: for
// repositories that pull through cache rules make.
const pullThrough = "PULL_THROUGH_CACHE"

// wildcard is the one type of ECR's exclusion filters.
const wildcard = "WILDCARD"

// TemplateEntry is a template with ECR's JSON names (API reference,
// RepositoryCreationTemplate), those that larder has a use for.
type TemplateEntry struct {
	Prefix             string            `json:"prefix"`
	AppliedFor         []string          `json:"appliedFor"`
	ImageTagMutability string            `json:"imageTagMutability,omitempty"`
	ExclusionFilters   []ExclusionFilter `json:"imageTagMutabilityExclusionFilters,omitempty"`
	LifecyclePolicy    string            `json:"lifecyclePolicy,omitempty"`
}

// ExclusionFilter names tags for which the opposite mutability holds.
type ExclusionFilter struct {
	FilterType string `json:"filterType"`
	Filter     string `json:"filter"`
}

// template is the entry as larder has it.
func (e TemplateEntry) template() remotes.Template {
	t := remotes.Template{Prefix: e.Prefix, Settings: remotes.Settings{
		ImageTagMutability: e.ImageTagMutability, LifecyclePolicy: e.LifecyclePolicy,
	}}
	for _, f := range e.ExclusionFilters {
		t.Settings.ImageTagMutabilityExclusionFilters = append(t.Settings.ImageTagMutabilityExclusionFilters, f.Filter)
	}
	return t
}

// decodeTemplates reads entries, and says which are not for larder.
func decodeTemplates(entries []json.RawMessage) (templates []remotes.Template, skipped []string, err error) {
	if len(entries) > maxRules {
		return nil, nil, invalid("has %d templates, want at most %d", len(entries), maxRules)
	}
	var errs []error
	first := map[string]int{}
	for i, raw := range entries {
		var e TemplateEntry
		if err := json.Unmarshal(raw, &e); err != nil {
			errs = append(errs, fmt.Errorf("repositoryCreationTemplates[%d]: %w", i, jsonError(err)))
			continue
		}
		at := fmt.Sprintf("repositoryCreationTemplates[%d] (%.40q)", i, e.Prefix)
		if !slices.Contains(e.AppliedFor, pullThrough) {
			skipped = append(skipped, fmt.Sprintf("%s: left out: it is not applied for %s", at, pullThrough))
			continue
		}
		prefix := strings.TrimSuffix(e.Prefix, "/")
		if other, taken := first[prefix]; taken {
			errs = append(errs, fmt.Errorf("%s: the prefix stands in repositoryCreationTemplates[%d] already: %w", at, other, errdefs.ErrAlreadyExists))
			continue
		}
		first[prefix] = i
		for _, err := range e.template().Problems() {
			errs = append(errs, fmt.Errorf("%s: %w", at, err))
		}
		templates = append(templates, e.template())
	}
	if len(errs) > 0 {
		return nil, nil, errors.Join(errs...)
	}
	return templates, skipped, nil
}

// templateItem is what is made of one template.
type templateItem struct {
	TemplateEntry
	notable
}

// planTemplate decides what is exported of a template.
func planTemplate(t remotes.Template) templateItem {
	s := t.Settings
	it := templateItem{
		TemplateEntry: TemplateEntry{
			Prefix: t.Prefix, AppliedFor: []string{pullThrough}, ImageTagMutability: s.ImageTagMutability, LifecyclePolicy: s.LifecyclePolicy,
		},
		notable: notable{title: fmt.Sprintf("template %q", t.Prefix)},
	}
	for _, f := range s.ImageTagMutabilityExclusionFilters {
		it.ExclusionFilters = append(it.ExclusionFilters, ExclusionFilter{wildcard, f})
	}
	if s.ImageTagMutability == "" && s.LifecyclePolicy == "" {
		it.left = true
		it.note("left out: ECR has nothing for its settings")
		return it
	}
	if own := ownKeys(remotes.Rule{Settings: s}); len(own) > 0 {
		it.note("without %s, which only larder has", strings.Join(own, ", "))
	}
	if host, _, _ := strings.Cut(t.Prefix, "/"); strings.Contains(host, ".") {
		it.note("larder takes the prefix for a registry host, too; ECR for that of repository names only")
	}
	policy, _ := lifecycle.Parse([]byte(s.LifecyclePolicy)) // valid, or there is none
	for _, r := range policy.Rules {
		if r.Selection.CountType == lifecycle.SincePulled && r.Action.Type == lifecycle.Expire {
			it.note("ECR refuses rule %d of its lifecycle_policy: it takes %s with %s only", r.Priority, lifecycle.SincePulled, lifecycle.Transition)
		}
	}
	return it
}
