package upstream

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/containerd/errdefs"
)

// Anonymous is the account of requests without a credential.
const Anonymous = "anonymous"

// Account is what is known of one account at one upstream host: what the
// registry said of its limits, and how it answered.
type Account struct {
	// Host is the upstream's, host[:port].
	Host string `json:"host"`
	// Account is the user name that was shown, or Anonymous.
	Account string `json:"account"`
	// Source is whom the registry counts, in its own words: an address or a
	// user, "" if it did not say.
	Source string `json:"source,omitempty"`
	// Limit and Remaining are in pulls, as the registry counts them; nil if it
	// did not say.
	Limit     *int64 `json:"limit,omitempty"`
	Remaining *int64 `json:"remaining,omitempty"`
	// WindowSeconds is the span over which it counts, 0 if it did not say.
	WindowSeconds int64 `json:"windowSeconds,omitempty"`
	// WindowEnd is when it counts anew at the latest; zero if it did not say.
	WindowEnd time.Time `json:"windowEnd,omitzero"`
	// Seen is when it last spoke of limits.
	Seen time.Time `json:"seen,omitzero"`
	// AloneUntil is when it may be asked again after a 429 or 503 with
	// Retry-After; zero, or in the past, if it may be asked.
	AloneUntil time.Time `json:"aloneUntil,omitzero"`
	// Answers count exchanges by their end.
	Answers Answers `json:"answers"`
	// Bytes is what was received in bodies.
	Bytes int64 `json:"bytes"`
}

// Answers count the exchanges with an upstream by their end. What larder did
// not send, or the caller left, is not counted.
type Answers struct {
	OK       int64 `json:"ok"`
	NotFound int64 `json:"notFound"` // 404
	Refused  int64 `json:"refused"`  // 401, 403
	Limited  int64 `json:"limited"`  // 429
	Failed   int64 `json:"failed"`   // everything else
}

// accountOf names whose allowance a credential spends.
func accountOf(cred Credential) string {
	switch {
	case cred.IsZero():
		return Anonymous
	case cred.Username == "":
		return "identity token"
	}
	return oneLine(cred.Username)
}

// accountOf is the ledger's key for whose allowance a credential spends. A
// caller can give any name, also larder's: what wrong secrets bring upon a name
// (429, for instance) must not stop those who have the right one. A name has no
// zero byte in it: see oneLine.
func (c *Client) accountOf(cred Credential) string {
	name := accountOf(cred)
	if c.caller && !cred.IsZero() {
		name += "\x00" + hashOf(cred)
	}
	return name
}

// Ledger returns what is known of the accounts at all upstreams, sorted by
// host and account: one for each user name, whatever secrets were shown. Of many hosts and accounts the least recently used are
// forgotten, and nothing outlives the Pool.
func (p *Pool) Ledger() []Account {
	all := []Account{}
	for _, s := range p.sites.Values() {
		all = append(all, s.ledger()...)
	}
	slices.SortFunc(all, func(a, b Account) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Account, b.Account))
	})
	return all
}

func (s *site) ledger() []Account {
	s.mu.Lock()
	defer s.mu.Unlock()
	byName := map[string]Account{}
	for _, a := range slices.Concat(s.callers.Values(), s.accounts.Values()) {
		known := a.known
		known.Bytes = a.bytes.Load()
		known.AloneUntil = later(known.AloneUntil, s.alone)
		if other, ok := byName[known.Account]; ok {
			known = known.with(other)
		}
		byName[known.Account] = known
	}
	return slices.Collect(maps.Values(byName))
}

// with is what is known of one name by two secrets: of limits, what was said
// last.
func (a Account) with(b Account) Account {
	if b.Seen.After(a.Seen) {
		a, b = b, a
	}
	a.AloneUntil = later(a.AloneUntil, b.AloneUntil)
	a.Bytes += b.Bytes
	a.Answers.OK += b.Answers.OK
	a.Answers.NotFound += b.Answers.NotFound
	a.Answers.Refused += b.Answers.Refused
	a.Answers.Limited += b.Answers.Limited
	a.Answers.Failed += b.Answers.Failed
	return a
}

// noteHeaders takes note of what an answer says of limits.
func (s *site) noteHeaders(account string, h http.Header, now time.Time) {
	said, ok := parseAllowance(h, now)
	if !ok {
		return
	}
	a := s.account(account)
	s.mu.Lock()
	defer s.mu.Unlock()
	end := time.Time{}
	switch {
	case said.reset > 0:
		end = now.Add(said.reset)
	case said.window > 0:
		end = now.Add(said.window)
		// Nobody tells when a window began. If no more remains than before,
		// it is the one that was seen before, and it ends earlier.
		goesOn := a.known.Remaining != nil && said.remaining <= *a.known.Remaining
		if old := a.known.WindowEnd; goesOn && old.After(now) && old.Before(end) {
			end = old
		}
	}
	a.known.Remaining, a.known.Limit = &said.remaining, nil
	if said.limit >= 0 {
		a.known.Limit = &said.limit
	}
	a.known.WindowSeconds, a.known.WindowEnd = int64(said.window/time.Second), end
	a.known.Source, a.known.Seen = said.source, now
}

// noteEnd counts how an exchange ended, nil for well, and begins the time for
// which the upstream asked to be left alone.
func (s *site) noteEnd(account string, e *Error, now time.Time) {
	a := s.account(account)
	s.mu.Lock()
	defer s.mu.Unlock()
	n := &a.known.Answers
	switch {
	case e == nil:
		n.OK++
	case errdefs.IsNotFound(e.kind):
		n.NotFound++
	case errdefs.IsPermissionDenied(e.kind):
		n.Refused++
	case errdefs.IsResourceExhausted(e.kind):
		n.Limited++
	default:
		n.Failed++
	}
	if e == nil || e.RetryAfter <= 0 || e.elsewhere {
		return
	}
	switch e.Status {
	case http.StatusTooManyRequests:
		a.known.AloneUntil = later(a.known.AloneUntil, now.Add(e.RetryAfter))
	case http.StatusServiceUnavailable:
		// Not for one account: the registry is not there for anyone.
		s.alone = later(s.alone, now.Add(min(e.RetryAfter, maxAlone)))
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
