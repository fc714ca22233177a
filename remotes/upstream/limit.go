package upstream

import (
	"fmt"
	"net/http"
	"time"

	"github.com/containerd/errdefs"
)

// maxAlone bounds for how long a 503 with Retry-After keeps larder off an
// upstream: a page for maintenance may say anything. A 429 is believed for as
// long as parseRetryAfter allows.
const maxAlone = time.Hour

// limitError says that larder did not ask, because of what the upstream said
// of its limits.
type limitError struct {
	text  string
	until time.Time
	left  time.Duration // until then, when it was made
	kind  error
}

func (e *limitError) Error() string { return e.text + " until " + e.until.UTC().Format(time.RFC3339) }
func (e *limitError) Unwrap() error { return e.kind }

func newLimit(until, now time.Time, kind error, text string) *limitError {
	return &limitError{text: text, until: until, left: until.Sub(now), kind: kind}
}

// Spare says whether the upstream may be asked for what larder can do without,
// such as the check of a tag whose image is stored: nil, or an *Error with
// Unasked set and what is left of the wait in RetryAfter. It may not while the
// upstream wants to be left alone, and while no more pulls remain in its
// window than Options.Reserve, or half of all if that is less: those are for
// what is not stored.
func (c *Client) Spare(now time.Time) error {
	limit := c.site.resting(c.account(), now)
	if limit == nil {
		limit = c.site.scarce(c.account(), c.site.reserve, now)
	}
	if limit == nil {
		return nil
	}
	return c.failure(purpose{op: "check", object: "tags"}, limit)
}

// account is whose allowance the client's next request will spend: that of the
// last one, since only an exchange knows which credential it shows.
func (c *Client) account() string {
	if name := c.shown.Load(); name != nil {
		return *name
	}
	return Anonymous
}

// forbids says why an exchange must not be sent now, nil if it may. What is
// left of an allowance may be spent. Blobs do not count against it: without
// them the last pull that was allowed could not be completed.
func (c *Client) forbids(p purpose, now time.Time) *limitError {
	if limit := c.site.resting(c.account(), now); limit != nil || p.stream {
		return limit
	}
	return c.site.scarce(c.account(), 0, now)
}

// resting says that an account is to leave the site alone, nil if not.
func (s *site) resting(name string, now time.Time) *limitError {
	known, alone := s.known(name)
	switch {
	case known.AloneUntil.After(now):
		return newLimit(known.AloneUntil, now, errdefs.ErrResourceExhausted,
			fmt.Sprintf("upstream answered %d and asked to be left alone", http.StatusTooManyRequests))
	case alone.After(now):
		return newLimit(alone, now, errdefs.ErrUnavailable,
			fmt.Sprintf("upstream answered %d and asked to be left alone", http.StatusServiceUnavailable))
	}
	return nil
}

// scarce says that an account has no more than reserve pulls left in a window
// that runs, nil if it has more, or the site tells no window.
func (s *site) scarce(name string, reserve int64, now time.Time) *limitError {
	known, _ := s.known(name)
	if known.Limit != nil {
		reserve = min(reserve, *known.Limit/2)
	}
	if known.Remaining == nil || *known.Remaining > reserve || !known.WindowEnd.After(now) {
		return nil
	}
	return newLimit(known.WindowEnd, now, errdefs.ErrResourceExhausted,
		fmt.Sprintf("upstream allows %d more pulls", *known.Remaining))
}
