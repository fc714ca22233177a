package remotes

import (
	"errors"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes/upstream"
)

// What to do with a stored tag that upstream no longer has (404).
const (
	DeletedServe  = "serve"  // serve it, as on any failure
	DeletedWarn   = "warn"   // serve it, and log a warning
	DeletedRefuse = "refuse" // answer 404, also in the pause after such a check
)

// Freshness says when a tag is checked upstream, and what happens when the
// check fails. The window is ECR's (user guide, "Pull through cache": 24
// hours since the last validation), but can be set.
type Freshness struct {
	// Window is how long a validated tag is served without a check.
	Window time.Duration
	// Tags give other windows; the first pattern that matches the full
	// reference wins.
	Tags []TagWindow
	// Patience is how long a pull waits for a check if there is a stored
	// image. The check goes on behind it.
	Patience time.Duration
	// Retry is the pause after a failed check. It doubles with each further
	// failure, up to the window.
	Retry time.Duration
	// Deleted is one of DeletedServe, DeletedWarn, DeletedRefuse.
	Deleted string
}

// TagWindow is a window for the references that match a pattern.
type TagWindow struct {
	Match  Pattern
	Window time.Duration
}

// DefaultFreshness is ECR's day, a second of patience, and a first pause of
// a minute.
func DefaultFreshness() Freshness {
	return Freshness{Window: 24 * time.Hour, Patience: time.Second, Retry: time.Minute, Deleted: DeletedServe}
}

// WindowOf returns the window of a reference.
func (f Freshness) WindowOf(reference string) time.Duration {
	for _, t := range f.Tags {
		if t.Match.Match(reference) {
			return t.Window
		}
	}
	return f.Window
}

// IsFresh reports whether a tag needs no check. A validation in the future
// means that the clock was set back: such a tag is checked.
func (f Freshness) IsFresh(t cache.Tag, now time.Time) bool {
	age := now.Sub(t.Validated)
	return age >= 0 && age < f.WindowOf(t.Name)
}

// due reports whether a stored tag is to be checked. If it is not, problem is
// why an earlier check failed, nil for a tag that is fresh.
func (f Freshness) due(t cache.Tag, now time.Time) (due bool, problem error) {
	switch {
	case f.IsFresh(t, now):
		return false, nil
	case f.holdsOff(t, now):
		return false, f.lastProblem(t)
	}
	return true, nil
}

// holdsOff reports whether a failed check forbids another one for now. A pause
// longer than any that this configuration gives means that the clock was set
// back, or the configuration changed: it does not count.
func (f Freshness) holdsOff(t cache.Tag, now time.Time) bool {
	return now.Before(t.NextCheck) && t.NextCheck.Sub(now) <= max(f.WindowOf(t.Name), f.Retry)
}

// postponed notes in a tag that a check was not made, because no upstream has
// anything to spare for it. That is no failure.
func (f Freshness) postponed(t cache.Tag, problem *upstream.Error, now time.Time) cache.Tag {
	most := max(f.WindowOf(t.Name), f.Retry)
	t.NextCheck = now.Add(min(problem.RetryAfter, most))
	t.LastError = problem.Error()
	return t
}

// failed notes a failed check in a tag.
func (f Freshness) failed(t cache.Tag, err error, now time.Time) cache.Tag {
	most := max(f.WindowOf(t.Name), f.Retry)
	wait := most
	if n := min(t.Failures, 62); f.Retry <= most>>n {
		wait = f.Retry << n
	}
	if ue := (*upstream.Error)(nil); errors.As(err, &ue) {
		wait = max(wait, min(ue.RetryAfter, most))
	}
	t.Gone = errdefs.IsNotFound(err)
	if t.Gone && f.Deleted == DeletedRefuse {
		// Pulls are refused meanwhile, not served: that must not last for a
		// whole window once the tag is there again.
		wait = min(wait, f.Retry)
	}
	t.Failures++
	t.NextCheck = now.Add(wait)
	t.LastError = err.Error()
	return t
}

// lastProblem is the failure that a tag remembers. Where deleted tags are
// refused, its kind counts.
func (f Freshness) lastProblem(t cache.Tag) error {
	if t.Gone && f.Deleted == DeletedRefuse {
		return &goneError{text: t.LastError}
	}
	return errors.New(t.LastError)
}

// goneError is upstream's word, remembered, that it does not have a tag.
type goneError struct{ text string }

func (e *goneError) Error() string { return e.text }

// Unwrap returns errdefs.ErrNotFound.
func (e *goneError) Unwrap() error { return errdefs.ErrNotFound }

// Reason is ECR's name for it: see upstream.Error.
func (e *goneError) Reason() string { return "ImageNotFound" }
