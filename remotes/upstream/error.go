package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
	"unicode"

	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/larder-project/larder/remotes/upstream/ranged"
	"github.com/opencontainers/go-digest"
)

// Error is a failed exchange with an upstream. errors.Is finds one of
// errdefs.ErrNotFound (404), ErrPermissionDenied (401, 403),
// ErrResourceExhausted (429), ErrOutOfRange (416), ErrDataLoss (an answer
// that is not what it should be), ErrInvalidArgument (a digest that is none)
// and ErrUnavailable (everything else) in it, and the context's error or
// io.ErrUnexpectedEOF if that was the cause.
type Error struct {
	// Op says what was tried, for instance "resolve".
	Op string
	// Upstream and Object say on what: the endpoint, and repository and
	// reference there.
	Upstream, Object string
	// Status is the HTTP status, 0 if there was no answer.
	Status int
	// RetryAfter is what upstream asked for with a 429 or 503, at most a
	// day, 0 if nothing.
	RetryAfter time.Duration
	// Unasked reports that larder did not ask, because of what the upstream
	// said of its limits. RetryAfter is what is left of the wait.
	Unasked bool

	kind error
	text string  // one bounded line, without secrets
	is   []error // what else errors.Is finds

	elsewhere bool // it is the answer of a host behind a redirect
	ignored   bool // the whole came in place of a part
}

// Error reads: op object at upstream: what happened. It is one line.
func (e *Error) Error() string {
	return fmt.Sprintf("%s %s at %s: %s", e.Op, e.Object, e.Upstream, e.text)
}

// Unwrap returns the kind and the well-known causes, and not the error that
// containerd's client returned: that may repeat URLs with signatures, and may
// say "not found" where it means something else.
func (e *Error) Unwrap() []error { return append([]error{e.kind}, e.is...) }

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
	header     http.Header
	message    string // upstream's own words, bounded
	by         string // the host, if it is not the upstream
	note       string // what the credential has to do with it, if anything
}

func (e *statusError) Error() string {
	by := "upstream"
	if e.by != "" {
		by = e.by
	}
	text := strings.TrimSpace(fmt.Sprintf("%s answered %d %s", by, e.status, http.StatusText(e.status)))
	// The message is last: it may be cut.
	for _, more := range []string{e.note, e.message} {
		if more != "" {
			text += ": " + more
		}
	}
	return text
}

// Is lets containerd's client see a 404 for what it is.
func (e *statusError) Is(target error) bool {
	return e.status == http.StatusNotFound && target == errdefs.ErrNotFound
}

// isRefusal reports whether the upstream works, and only this request is
// refused: then another way to ask may be taken.
func (e *statusError) isRefusal() bool {
	return e.status >= 400 && e.status < 500 && e.status != http.StatusTooManyRequests
}

// transportError is a request without an answer. It hides its cause from
// containerd's client, which would ask five times after a time-out.
type transportError struct {
	text    string
	verdict verdict
	cause   error
}

func newTransportError(req *http.Request, err error) error {
	if ae, ok := errors.AsType[*addressError](err); ok {
		return ae
	}
	e := &transportError{text: fmt.Sprintf("%s %s: %v", req.Method, req.URL.Host, err), cause: err}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() && req.Context().Err() == nil {
		e.text, e.verdict = fmt.Sprintf("%s %s: no answer in time: %v", req.Method, req.URL.Host, err), silent
	}
	return e
}

func (e *transportError) Error() string { return e.text }

// Is finds the context's errors, and a deadline in a time-out of our own.
func (e *transportError) Is(target error) bool {
	switch target {
	case context.DeadlineExceeded:
		return e.verdict == silent || errors.Is(e.cause, target)
	case context.Canceled:
		return errors.Is(e.cause, target)
	}
	return false
}

// newError classifies what containerd's client or the transport returned.
func newError(op, upstream, object string, err error) *Error {
	e := &Error{Op: op, Upstream: upstream, Object: object}
	for _, known := range []error{context.Canceled, context.DeadlineExceeded, io.ErrUnexpectedEOF, circuitbreaker.ErrOpen} {
		if errors.Is(err, known) {
			e.is = append(e.is, known)
		}
	}
	te, isToken := errors.AsType[*tokenError](err)
	if isToken {
		err = te.err
	}
	if ue, ok := errors.AsType[remoteerrors.ErrUnexpectedStatus](err); ok {
		// Its text carries the URL; upstream's own words are enough.
		err = &statusError{status: ue.StatusCode, message: ociMessage(ue.Body)}
	}
	if se, ok := errors.AsType[*statusError](err); ok {
		e.Status, e.RetryAfter, e.elsewhere = se.status, se.retryAfter, se.by != "" && !isToken
	}
	if le, ok := errors.AsType[*limitError](err); ok {
		e.RetryAfter, e.Unasked = le.left, true
	}
	e.ignored = errors.Is(err, ranged.ErrIgnored)
	e.kind = kindOf(e.Status, err)
	e.text = oneLine(describe(err))
	if isToken {
		e.text = oneLine("no token: " + strings.TrimPrefix(te.note+": ", ": ") + describe(err))
		if !errors.Is(e.kind, errdefs.ErrPermissionDenied) && !errors.Is(e.kind, errdefs.ErrResourceExhausted) {
			e.kind = errdefs.ErrUnavailable // a token service has no images to miss
		}
	}
	return e
}

func kindOf(status int, err error) error {
	switch status {
	case http.StatusNotFound:
		return errdefs.ErrNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return errdefs.ErrPermissionDenied
	case http.StatusTooManyRequests:
		return errdefs.ErrResourceExhausted
	case http.StatusRequestedRangeNotSatisfiable:
		return errdefs.ErrOutOfRange
	case 0:
	default:
		return errdefs.ErrUnavailable
	}
	switch {
	case errors.Is(err, errdefs.ErrInvalidArgument):
		return errdefs.ErrInvalidArgument
	case errors.Is(err, errdefs.ErrResourceExhausted): // a limitError
		return errdefs.ErrResourceExhausted
	case isWrongAnswer(err):
		return errdefs.ErrDataLoss
	}
	return errdefs.ErrUnavailable
}

// isWrongAnswer reports whether upstream sent something, and not what it
// should have.
func isWrongAnswer(err error) bool {
	_, syntax := errors.AsType[*json.SyntaxError](err)
	_, types := errors.AsType[*json.UnmarshalTypeError](err)
	return syntax || types ||
		errors.Is(err, errdefs.ErrDataLoss) ||
		errors.Is(err, errdefs.ErrFailedPrecondition) || // containerd: longer than its descriptor
		errors.Is(err, errdefs.ErrNotImplemented) || // containerd: a manifest of schema 1
		errors.Is(err, digest.ErrDigestInvalidFormat) ||
		errors.Is(err, digest.ErrDigestInvalidLength) ||
		errors.Is(err, digest.ErrDigestUnsupported)
}

// judge says what a failed exchange says of the upstream.
func judge(ctx context.Context, e *Error, err error) verdict {
	if te, ok := errors.AsType[*tokenError](err); ok {
		err = te.err
	}
	te, isTransport := errors.AsType[*transportError](err)
	_, isAddress := errors.AsType[*addressError](err)
	_, isRedirect := errors.AsType[*redirectError](err)
	_, isCredential := errors.AsType[*credentialError](err)
	switch {
	case e.Unasked, isCredential:
		return unknown
	case e.Status >= 500:
		return failing
	case e.Status > 0, isAddress, isRedirect, !errors.Is(e.kind, errdefs.ErrUnavailable):
		return alive // a refusal of our own says nothing against it either
	case isTransport && te.verdict == silent:
		return silent
	case ctx.Err() != nil, isTransport && isOutOfFiles(te.cause):
		return unknown
	}
	return failing
}

// isOutOfFiles reports whether larder itself has no file descriptor left to
// connect with.
func isOutOfFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// describe is an error's text without URLs: the query of one may be a
// signature that opens a bucket.
func describe(err error) string {
	if errors.Is(err, circuitbreaker.ErrOpen) {
		return "upstream did not answer lately and is left alone for now"
	}
	if se, ok := errors.AsType[*statusError](err); ok {
		return se.Error()
	}
	if te, ok := errors.AsType[*transportError](err); ok {
		return hideURLs(te.Error())
	}
	if ce, ok := errors.AsType[*credentialError](err); ok {
		return hideURLs(ce.Error())
	}
	if ue, ok := errors.AsType[*url.Error](err); ok {
		return hideURLs(ue.Err.Error())
	}
	return hideURLs(err.Error())
}

// maxMessage bounds, in bytes, how much of an upstream's words is passed on.
const maxMessage = 300

// oneLine makes hostile text fit for a log line or an error body: what is not
// printable becomes a space.
func oneLine(s string) string {
	cut := len(s) > 4*maxMessage
	if cut {
		s = s[:4*maxMessage] // do not work on all of it
	}
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	s = strings.TrimSpace(s)
	if len(s) > maxMessage {
		s, cut = strings.ToValidUTF8(s[:maxMessage], ""), true
	}
	if cut {
		s += "…"
	}
	return s
}
