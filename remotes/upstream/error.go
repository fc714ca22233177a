package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
)

// Error is a failed exchange with an upstream. errors.Is finds one of
// errdefs.ErrNotFound (404), ErrPermissionDenied (401, 403),
// ErrResourceExhausted (429), ErrOutOfRange (416), ErrDataLoss (a body that is not what
// it should be) and ErrUnavailable (everything else) in it.
type Error struct {
	// Op says what was tried, for instance "resolve".
	Op string
	// Upstream and Object say on what: the endpoint, and repository and
	// reference there.
	Upstream, Object string
	// Status is the HTTP status, 0 if there was no answer.
	Status int
	// RetryAfter is what upstream asked for with a 429 or 503, 0 if nothing.
	RetryAfter time.Duration

	kind, cause error
}

// Error reads: op object at upstream: what happened.
func (e *Error) Error() string {
	return fmt.Sprintf("%s %s at %s: %v", e.Op, e.Object, e.Upstream, e.cause)
}

// Unwrap returns the kind and the cause.
func (e *Error) Unwrap() []error { return []error{e.kind, e.cause} }

// Reason is ECR's name for the failure (API reference, ImageFailureCode).
func (e *Error) Reason() string {
	switch {
	case errors.Is(e.kind, errdefs.ErrNotFound):
		return "ImageNotFound"
	case errors.Is(e.kind, errdefs.ErrPermissionDenied):
		return "UpstreamAccessDenied"
	case errors.Is(e.kind, errdefs.ErrResourceExhausted):
		return "UpstreamTooManyRequests"
	}
	return "UpstreamUnavailable"
}

// statusError is an HTTP answer that is no success. The transport returns it
// as an error, so that containerd's client neither retries it nor asks again
// elsewhere.
type statusError struct {
	status     int
	retryAfter time.Duration
	message    string // upstream's own words, bounded
}

func (e *statusError) Error() string {
	text := fmt.Sprintf("upstream answered %d %s", e.status, http.StatusText(e.status))
	if e.message != "" {
		text += ": " + e.message
	}
	return text
}

// Is lets containerd's client see a 404 for what it is.
func (e *statusError) Is(target error) bool {
	return e.status == http.StatusNotFound && target == errdefs.ErrNotFound
}

// newError classifies what containerd's client or the transport returned.
func newError(op, upstream, object string, err error) *Error {
	e := &Error{Op: op, Upstream: upstream, Object: object, kind: errdefs.ErrUnavailable, cause: err}
	if se := (*statusError)(nil); errors.As(err, &se) {
		e.Status, e.RetryAfter = se.status, se.retryAfter
	}
	if ue, ok := errors.AsType[remoteerrors.ErrUnexpectedStatus](err); ok {
		e.Status = ue.StatusCode
		// containerd's text carries the whole body and URL; upstream's own
		// words are enough, and bounded.
		e.cause = &statusError{status: ue.StatusCode, message: ociMessage(ue.Body)}
	}
	switch {
	case e.Status == http.StatusNotFound:
		e.kind = errdefs.ErrNotFound
	case e.Status == http.StatusUnauthorized, e.Status == http.StatusForbidden, errors.Is(err, docker.ErrInvalidAuthorization):
		e.kind = errdefs.ErrPermissionDenied
	case e.Status == http.StatusTooManyRequests:
		e.kind = errdefs.ErrResourceExhausted
	case e.Status == http.StatusRequestedRangeNotSatisfiable:
		e.kind = errdefs.ErrOutOfRange
	case errors.Is(err, errdefs.ErrDataLoss), errors.Is(err, errdefs.ErrFailedPrecondition):
		e.kind = errdefs.ErrDataLoss
	case errors.Is(err, circuitbreaker.ErrOpen):
		e.cause = errLeftAlone
	case errors.Is(err, context.DeadlineExceeded):
		e.cause = fmt.Errorf("no answer in time: %w", err)
	}
	return e
}

var errLeftAlone = fmt.Errorf("upstream did not answer lately and is left alone for now: %w", circuitbreaker.ErrOpen)

// maxMessage bounds how much of an upstream's words is passed on.
const maxMessage = 300

// oneLine makes hostile text fit for a log line or an error body.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	s = strings.ToValidUTF8(strings.TrimSpace(s), "?")
	if len(s) > maxMessage {
		s = strings.ToValidUTF8(s[:maxMessage], "") + "…"
	}
	return s
}
