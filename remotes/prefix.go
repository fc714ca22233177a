package remotes

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/containerd/errdefs"
)

// Root is ECR's keyword for "no prefix", in both prefixes of a rule and in
// that of a template.
const Root = "ROOT"

// Bounds and pattern of prefixes: ECR API model, shapes
// PullThroughCacheRuleRepositoryPrefix and Prefix (of a template). The pattern
// is the current one, which takes a__b and a--b; older copies of the model,
// which other tools check against, do not.
const (
	minRulePrefix     = 2
	maxRulePrefix     = 30
	minTemplatePrefix = 1
	maxTemplatePrefix = 256
	prefixText        = `^([a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*\/?|ROOT)$`
)

var prefixPattern = regexp.MustCompile(prefixText)

// rulePrefix checks a prefix of a rule.
func rulePrefix(field, prefix string) error {
	return validatePrefix(field, prefix, minRulePrefix, maxRulePrefix)
}

func validatePrefix(field, prefix string, least, most int) error {
	if n := len(prefix); n < least || n > most {
		return fmt.Errorf("%s: %.300q has %d characters, want %d to %d: %w", field, prefix, n, least, most, errdefs.ErrInvalidArgument)
	}
	if !prefixPattern.MatchString(prefix) {
		return fmt.Errorf("%s: %q must match %s: %w", field, prefix, prefixText, errdefs.ErrInvalidArgument)
	}
	return nil
}

// matchedPrefix is a prefix as it is matched: "" for ROOT, else ending in a
// slash, since ECR assumes one at the end of every prefix.
func matchedPrefix(prefix string) string {
	if prefix == Root || prefix == "" {
		return ""
	}
	return strings.TrimSuffix(prefix, "/") + "/"
}
