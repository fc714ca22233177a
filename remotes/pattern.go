package remotes

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// Pattern matches whole texts; "*" stands for any run of characters, slashes
// included, as in ECR's tag filters.
type Pattern struct {
	text string
	re   *regexp.Regexp
}

// ParsePattern compiles a pattern. It returns errdefs.ErrInvalidArgument for
// an empty one.
func ParsePattern(text string) (Pattern, error) {
	if text == "" {
		return Pattern{}, fmt.Errorf("pattern is empty: %w", errdefs.ErrInvalidArgument)
	}
	parts := strings.Split(text, "*")
	for i, p := range parts {
		parts[i] = regexp.QuoteMeta(p)
	}
	re, err := regexp.Compile("^" + strings.Join(parts, ".*") + "$")
	if err != nil {
		return Pattern{}, fmt.Errorf("pattern %q: %w: %w", text, err, errdefs.ErrInvalidArgument)
	}
	return Pattern{text: text, re: re}, nil
}

// Match reports whether the whole of s matches. The zero Pattern matches
// nothing.
func (p Pattern) Match(s string) bool { return p.re != nil && p.re.MatchString(s) }

// String returns the text that was parsed.
func (p Pattern) String() string { return p.text }

func matchesAny(patterns []Pattern, s string) bool {
	return slices.ContainsFunc(patterns, func(p Pattern) bool { return p.Match(s) })
}

func parsePatterns(texts []string) ([]Pattern, error) {
	var all []Pattern
	for _, text := range texts {
		p, err := ParsePattern(text)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}
