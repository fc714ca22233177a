package lifecycle

import (
	"fmt"
	"slices"
	"strings"
)

const (
	maxWildcards = 4  // in a tag pattern
	minArchived  = 90 // days that an archived image stays at least
)

// check checks what no single value of a rule shows.
func (r *reader) check(path string, rule Rule) {
	r.checkTags(path+".selection", rule.Selection)
	r.checkCount(path+".selection", rule.Selection)
	r.checkAction(path+".action", rule)
}

// checkTags checks the lists, which go with tagged images only, one at a time.
func (r *reader) checkTags(path string, s Selection) {
	patterns, prefixes := len(s.TagPatterns) > 0, len(s.TagPrefixes) > 0
	switch {
	case s.TagStatus == Tagged && patterns == prefixes:
		r.problem(path, "tagStatus tagged wants tagPatternList or tagPrefixList, and not both")
	case s.TagStatus != Tagged && patterns:
		r.problem(path+".tagPatternList", "goes with tagStatus tagged only")
	case s.TagStatus != Tagged && prefixes:
		r.problem(path+".tagPrefixList", "goes with tagStatus tagged only")
	}
	for i, pattern := range s.TagPatterns {
		if n := strings.Count(pattern, "*"); n > maxWildcards {
			r.problem(fmt.Sprintf("%s.tagPatternList[%d]", path, i), "%.60q: has %d *, want at most %d", pattern, n, maxWildcards)
		}
	}
}

// checkCount checks what is counted, in which unit and of which storage class.
func (r *reader) checkCount(path string, s Selection) {
	switch timed := s.CountType != CountMoreThan; {
	case timed && s.CountUnit == "":
		r.problem(path+".countUnit", "is missing: countType %s wants days", s.CountType)
	case !timed && s.CountUnit != "":
		r.problem(path+".countUnit", "does not go with countType %s", s.CountType)
	}
	if s.CountType != SinceTransitioned {
		if s.StorageClass == Archive {
			r.problem(path+".storageClass", "archive goes with countType %s only", SinceTransitioned)
		}
		return
	}
	if s.StorageClass != Archive {
		r.problem(path+".storageClass", "countType %s wants archive", SinceTransitioned)
	}
	if s.CountNumber < minArchived {
		r.problem(path+".countNumber", "%d: countType %s wants at least %d", s.CountNumber, SinceTransitioned, minArchived)
	}
}

func (r *reader) checkAction(path string, rule Rule) {
	target := rule.Action.TargetStorageClass
	switch {
	case rule.Action.Type == Transition && target == "":
		r.problem(path+".targetStorageClass", "is missing: type transition wants archive")
	case rule.Action.Type == Expire && target != "":
		r.problem(path+".targetStorageClass", "goes with type transition only")
	}
	if rule.Action.Type == Transition && rule.Selection.CountType == SinceTransitioned {
		r.problem(path+".type", "countType %s wants expire", SinceTransitioned)
	}
}

// checkAmong checks rules, those that are sound, against each other. What ECR
// says "per storage class" holds so that a policy may have two of a kind: one
// that archives, and one that expires what is archived.
func (r *reader) checkAmong(path string, rules []Rule, sound []bool) {
	for i, rule := range rules {
		for j, other := range rules {
			if i == j || !sound[i] || !sound[j] {
				continue
			}
			at, its := fmt.Sprintf("%s[%d]", path, i), fmt.Sprintf("%s[%d]", path, j)
			if rule.Priority == other.Priority && j < i {
				r.problem(at+".rulePriority", "%d: %s has it already", rule.Priority, its)
			}
			if rule.Selection.class() == other.Selection.class() {
				r.checkPair(at, rule, its, other, j < i)
			}
		}
	}
}

// checkPair checks a rule against another one of its storage class.
func (r *reader) checkPair(at string, rule Rule, its string, other Rule, isLater bool) {
	a, b := rule.Selection, other.Selection
	if a.TagStatus == Any && other.Priority > rule.Priority {
		r.problem(at+".rulePriority", "%d: a rule with tagStatus any must have the highest number, %s has %d", rule.Priority, its, other.Priority)
	}
	if isLater && a.TagStatus == Untagged && b.TagStatus == Untagged {
		r.problem(at+".selection.tagStatus", "untagged: %s is the one rule for untagged images", its)
	}
	if isLater && len(a.TagPrefixes) > 0 && slices.Equal(setOf(a.TagPrefixes), setOf(b.TagPrefixes)) {
		r.problem(at+".selection.tagPrefixList", "%s has the same prefixes", its)
	}
}

func setOf(texts []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(texts)))
}
