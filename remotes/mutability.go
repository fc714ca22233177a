package remotes

import (
	"fmt"
	"regexp"

	"github.com/containerd/errdefs"
)

// The values of ECR's ImageTagMutability.
const (
	Mutable                = "MUTABLE"
	Immutable              = "IMMUTABLE"
	MutableWithExclusion   = "MUTABLE_WITH_EXCLUSION"
	ImmutableWithExclusion = "IMMUTABLE_WITH_EXCLUSION"
)

// Bounds and pattern of exclusion filters: ECR API model, shape
// ImageTagMutabilityExclusionFilter of type WILDCARD.
const (
	maxExclusionFilters = 5
	exclusionText       = `^[0-9a-zA-Z._*-]{1,128}$`
)

var exclusionPattern = regexp.MustCompile(exclusionText)

// mutabilityProblems checks the mutability with its filters. ECR takes filters
// with the two values that name them, and those not without.
func (s Settings) mutabilityProblems() []error {
	const field = "image_tag_mutability_exclusion_filters"
	all := []error{oneOf("image_tag_mutability", s.ImageTagMutability, Mutable, Immutable, MutableWithExclusion, ImmutableWithExclusion)}
	takes := s.ImageTagMutability == MutableWithExclusion || s.ImageTagMutability == ImmutableWithExclusion
	switch n := len(s.ImageTagMutabilityExclusionFilters); {
	case n > 0 && !takes:
		all = append(all, fmt.Errorf("%s: goes only with image_tag_mutability = %q or %q: %w", field, MutableWithExclusion, ImmutableWithExclusion, errdefs.ErrInvalidArgument))
	case n == 0 && takes, n > maxExclusionFilters:
		all = append(all, fmt.Errorf("%s: has %d entries, image_tag_mutability = %q wants 1 to %d: %w", field, n, s.ImageTagMutability, maxExclusionFilters, errdefs.ErrInvalidArgument))
	}
	for i, text := range s.ImageTagMutabilityExclusionFilters {
		if !exclusionPattern.MatchString(text) {
			all = append(all, fmt.Errorf("%s[%d]: %.200q must match %s: %w", field, i, text, exclusionText, errdefs.ErrInvalidArgument))
		}
	}
	return all
}

// Immutable reports whether a tag, once stored, is never asked for again and
// never moves.
func (p Policy) Immutable(tag string) bool {
	if p.mutability == nil {
		return false
	}
	switch p.mutability.settings.ImageTagMutability {
	case Immutable:
		return true
	case ImmutableWithExclusion:
		return !matchesAny(p.mutability.exclusions, tag)
	case MutableWithExclusion:
		return matchesAny(p.mutability.exclusions, tag)
	}
	return false
}
