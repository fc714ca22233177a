package lifecycle

import (
	"fmt"
	"slices"
	"strings"
)

// Policy is a lifecycle policy, with the names of ECR's JSON. Make one with
// [Parse].
type Policy struct {
	// Rules in the order of the text; what counts is their priority.
	Rules []Rule `json:"rules"`
}

// byPriority are the rules, the first to be applied first.
func (p Policy) byPriority() []Rule {
	return slices.SortedStableFunc(slices.Values(p.Rules), func(a, b Rule) int { return a.Priority - b.Priority })
}

// Rule says what becomes of the images that it selects.
type Rule struct {
	// Priority is unique in the policy; the lowest goes first.
	Priority    int       `json:"rulePriority"`
	Description string    `json:"description,omitempty"`
	Selection   Selection `json:"selection"`
	Action      Effect    `json:"action"`
}

// String names the rule in texts.
func (r Rule) String() string {
	if r.Description == "" {
		return fmt.Sprintf("rule %d", r.Priority)
	}
	return fmt.Sprintf("rule %d (%s)", r.Priority, r.Description)
}

// Selection says which images a rule selects.
type Selection struct {
	TagStatus TagStatus `json:"tagStatus"`
	// TagPatterns and TagPrefixes are of a rule for tagged images, one of them.
	// Each entry must fit some tag of an image. In a pattern * stands for any
	// characters.
	TagPatterns []string `json:"tagPatternList,omitempty"`
	TagPrefixes []string `json:"tagPrefixList,omitempty"`
	// StorageClass is standard if it is empty.
	StorageClass StorageClass `json:"storageClass,omitempty"`
	CountType    CountType    `json:"countType"`
	// CountUnit is days if the count is of time, else empty.
	CountUnit   string `json:"countUnit,omitempty"`
	CountNumber int    `json:"countNumber"`
}

func (s Selection) class() StorageClass {
	if s.StorageClass == "" {
		return Standard
	}
	return s.StorageClass
}

// TagStatus says whether a rule is for images with tags.
type TagStatus string

// The values of TagStatus.
const (
	Tagged   TagStatus = "tagged"
	Untagged TagStatus = "untagged"
	Any      TagStatus = "any"
)

// StorageClass is where ECR keeps an image. All images of a node are standard.
type StorageClass string

// The values of StorageClass.
const (
	Standard StorageClass = "standard"
	Archive  StorageClass = "archive"
)

// CountType says what a rule counts.
type CountType string

// The values of CountType.
const (
	// CountMoreThan selects all but the newest countNumber images.
	CountMoreThan CountType = "imageCountMoreThan"
	// SincePushed selects images that were pushed more than countNumber days ago.
	SincePushed CountType = "sinceImagePushed"
	// SincePulled selects images that were not pulled for countNumber days.
	SincePulled CountType = "sinceImagePulled"
	// SinceTransitioned selects images that were archived countNumber days ago.
	SinceTransitioned CountType = "sinceImageTransitioned"
)

// Effect is what a rule does.
type Effect struct {
	Type EffectType `json:"type"`
	// TargetStorageClass is archive for a transition, else empty.
	TargetStorageClass StorageClass `json:"targetStorageClass,omitempty"`
}

// EffectType is the kind of an Effect.
type EffectType string

// The values of EffectType.
const (
	Expire     EffectType = "expire"
	Transition EffectType = "transition"
)

// matches reports whether a rule's tag requirement, and its storage class, are
// met by an image with these tags.
func (s Selection) matches(tags []string) bool {
	if s.class() != Standard {
		return false
	}
	switch s.TagStatus {
	case Any:
		return true
	case Untagged:
		return len(tags) == 0
	}
	all := func(entries []string, fits func(entry, tag string) bool) bool {
		for _, e := range entries {
			if !slices.ContainsFunc(tags, func(tag string) bool { return fits(e, tag) }) {
				return false
			}
		}
		return true
	}
	return len(tags) > 0 && all(s.TagPatterns, fitsPattern) &&
		all(s.TagPrefixes, func(prefix, tag string) bool { return strings.HasPrefix(tag, prefix) })
}

// fitsPattern matches the whole tag. With ECR's four * at most, taking each
// part where it is found first is enough.
func fitsPattern(pattern, tag string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return tag == pattern
	}
	first, last := parts[0], parts[len(parts)-1]
	rest, ok := strings.CutPrefix(tag, first)
	if !ok {
		return false
	}
	for _, part := range parts[1 : len(parts)-1] {
		_, after, found := strings.Cut(rest, part)
		if !found {
			return false
		}
		rest = after
	}
	return strings.HasSuffix(rest, last)
}
