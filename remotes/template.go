package remotes

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
)

// Template is what ECR's repository creation template is: settings for the
// repositories below a prefix. ECR applies it when it makes a repository;
// larder makes none, so a template holds from when it is configured.
type Template struct {
	// Prefix, 1 to 256 characters, or ROOT, is matched as a rule's is: against
	// the local name under any rule that covers the repository, and against the
	// name as stored (registry host and path). ROOT holds where no other
	// template does.
	Prefix string
	// Settings of the longest prefix hold, whole: templates are not merged.
	Settings Settings
}

// Validate returns all Problems of the template.
func (t Template) Validate() error { return errors.Join(t.Problems()...) }

// Problems returns every problem of the template, each naming its field and
// what was wanted, wrapping errdefs.ErrInvalidArgument.
func (t Template) Problems() []error {
	prefix := validatePrefix("prefix", t.Prefix, minTemplatePrefix, maxTemplatePrefix)
	return found(append([]error{prefix}, t.Settings.problems()...))
}

// checkTemplates checks each template, and that no two have one prefix.
func checkTemplates(templates []Template) error {
	seen := map[string]bool{}
	for _, t := range templates {
		if err := t.Validate(); err != nil {
			return err
		}
		if seen[matchedPrefix(t.Prefix)] {
			return fmt.Errorf("prefix: %q stands in two templates: %w", t.Prefix, errdefs.ErrAlreadyExists)
		}
		seen[matchedPrefix(t.Prefix)] = true
	}
	return nil
}

// storedForm reads a template's prefix as the beginning of a stored name. It
// reports false for a prefix that does not begin with a registry host.
func (t Template) storedForm() (host, path string, ok bool) {
	first, path, _ := strings.Cut(matchedPrefix(t.Prefix), "/")
	host, err := ParseHost(first)
	return host, path, err == nil
}

// localForm reads a template's prefix as the beginning of local names under a
// rule, and says of which paths upstream they are the names. depth is how much
// of such a path the prefix takes; it is less than the rule takes, or even below
// zero, if the prefix ends before the rule's.
func (t Template) localForm(r Rule) (path string, depth int, ok bool) {
	mine, rules := matchedPrefix(t.Prefix), r.prefix()
	upstream := r.upstreamPrefix()
	if below, ok := strings.CutPrefix(mine, rules); ok {
		path = upstream + below
		return path, len(path), true
	}
	if strings.HasPrefix(rules, mine) {
		return upstream, len(upstream) - (len(rules) - len(mine)), true
	}
	return "", 0, false
}
