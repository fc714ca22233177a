package remotes

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache/lifecycle"
)

// Mode says when the upstreams of a repository are asked.
type Mode string

const (
	// ModeCacheFirst answers from the store inside the window; ECR's way, and
	// the default.
	ModeCacheFirst Mode = "cache-first"
	// ModeUpstreamFirst asks upstream at every pull by tag, and answers from
	// the store if that fails. No window counts, only the pause after a
	// failed check.
	ModeUpstreamFirst Mode = "upstream-first"
	// ModeOffline answers from the store and asks no upstream, ever.
	ModeOffline Mode = "offline"
)

// Privacy says who may have what is stored of a repository.
type Privacy string

const (
	// PrivateNo serves everyone who can reach larder; the default.
	PrivateNo Privacy = "no"
	// PrivateVerify serves those whose pull secret the upstream accepts.
	PrivateVerify Privacy = "verify"
)

// Settings are what a rule or a template says of the repositories below its
// prefix. A zero field says nothing.
type Settings struct {
	Mode    Mode
	Private Privacy
	// Window and Deleted are as in Freshness.
	Window  *time.Duration
	Deleted string
	// ImageTagMutability is ECR's: one of Mutable, Immutable,
	// MutableWithExclusion, ImmutableWithExclusion. A tag that is stored and
	// immutable is never asked for again, and never moves.
	ImageTagMutability string
	// ImageTagMutabilityExclusionFilters are the tags, as patterns with *, for
	// which the opposite holds: at most five.
	ImageTagMutabilityExclusionFilters []string
	// Allow and Deny are patterns of repositories, as stored (host/path) or
	// below the prefix. What Deny matches, or a non-empty Allow does not, is
	// refused.
	Allow, Deny []string
	// LifecyclePolicy is the text of an ECR lifecycle policy: which stored
	// images of each repository go. See package lifecycle.
	LifecyclePolicy string
}

// Validate returns every problem of the settings, each naming its field and
// what was wanted, wrapping errdefs.ErrInvalidArgument.
func (s Settings) Validate() error { return errors.Join(s.problems()...) }

func (s Settings) problems() []error {
	all := []error{
		oneOf("mode", s.Mode, ModeCacheFirst, ModeUpstreamFirst, ModeOffline),
		oneOf("private", s.Private, PrivateNo, PrivateVerify),
		oneOf("deleted", s.Deleted, DeletedServe, DeletedWarn, DeletedRefuse),
	}
	if s.Window != nil && *s.Window < 0 {
		all = append(all, fmt.Errorf("window: %s: must not be negative: %w", *s.Window, errdefs.ErrInvalidArgument))
	}
	all = append(all, s.mutabilityProblems()...)
	all = append(all, patternProblems("allow", s.Allow)...)
	all = append(all, patternProblems("deny", s.Deny)...)
	return append(all, lifecycleProblems(s.LifecyclePolicy)...)
}

// lifecycleProblems are all that is wrong with the text of a policy.
func lifecycleProblems(text string) []error {
	if text == "" {
		return nil
	}
	_, err := lifecycle.Parse([]byte(text))
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	for i, err := range found(all) {
		all[i] = fmt.Errorf("lifecycle_policy: %w", err)
	}
	return found(all)
}

// found leaves out what is no problem.
func found(errs []error) []error {
	return slices.DeleteFunc(errs, func(err error) bool { return err == nil })
}

func patternProblems(field string, texts []string) []error {
	var all []error
	for i, text := range texts {
		if _, err := ParsePattern(text); err != nil {
			all = append(all, fmt.Errorf("%s[%d]: %w", field, i, err))
		}
	}
	return all
}

// oneOf checks a value that may be left out.
func oneOf[T ~string](field string, value T, choices ...T) error {
	if value == "" || slices.Contains(choices, value) {
		return nil
	}
	names := make([]string, len(choices))
	for i, c := range choices {
		names[i] = string(c)
	}
	return fmt.Errorf("%s: %.100q: want one of %s: %w", field, string(value), strings.Join(names, ", "), errdefs.ErrInvalidArgument)
}
