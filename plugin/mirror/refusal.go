package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/containerd/errdefs"
)

// refusal is an answer that is no success: a status, and a code and message
// of the distribution specification. Where ECR has a text for the case, it is
// ECR's (user guide, "Troubleshooting pull through cache").
type refusal struct {
	status  int
	code    string
	message string
	cause   error
}

// mistake is an error of the request itself, found by the mirror, with the
// answer to it.
type mistake struct {
	status        int
	code, message string
	err           error
}

func (m *mistake) Error() string { return m.err.Error() }
func (m *mistake) Unwrap() error { return m.err }

// invalid is the mistake of malformed text.
func invalid(code string, err error) error {
	return &mistake{status: http.StatusBadRequest, code: code, message: "the request is malformed", err: err}
}

// objectCode names what is wrong with text that is neither tag nor digest.
func objectCode(object string) string {
	if strings.Contains(object, ":") {
		return "DIGEST_INVALID"
	}
	return "MANIFEST_INVALID"
}

// reasoner is an error that upstream caused; *upstream.Error is one.
type reasoner interface {
	error
	// Reason is ECR's name for what upstream did.
	Reason() string
}

// refuse finds the refusal for an error. The kubelet shows the first host's
// body when all hosts fail: what stands here is what a person reads.
func refuse(req request, err error) refusal {
	if m, ok := errors.AsType[*mistake](err); ok {
		return refusal{status: m.status, code: m.code, message: m.message, cause: m.err}
	}
	r := refusal{status: http.StatusServiceUnavailable, code: "UNAVAILABLE", cause: err,
		message: "larder could not get it from upstream and has not stored it"}
	_, fromUpstream := errors.AsType[reasoner](err)
	switch {
	case errdefs.IsNotFound(err) && !fromUpstream:
		r.status, r.code = http.StatusNotFound, "NAME_UNKNOWN"
		r.message = fmt.Sprintf("The repository with name '%.256s' does not exist in the registry", req.name)
	case errdefs.IsNotFound(err) && req.kind == kindBlob:
		r.status, r.code, r.message = http.StatusNotFound, "BLOB_UNKNOWN", "Requested layer not found"
	case errdefs.IsNotFound(err) && req.kind == kindTags:
		r.status, r.code, r.message = http.StatusNotFound, "NAME_UNKNOWN", "Requested repository not found"
	case errdefs.IsNotFound(err):
		r.status, r.code, r.message = http.StatusNotFound, "MANIFEST_UNKNOWN", "Requested image not found"
	case errdefs.IsPermissionDenied(err) && fromUpstream:
		r.status, r.code = http.StatusForbidden, "DENIED"
		r.message = "The authentication to the upstream registry failed. Verify that the credentials provided in the pull through cache rule are correct, and try again."
	case errdefs.IsPermissionDenied(err):
		r.status, r.code, r.message = http.StatusForbidden, "DENIED", "larder is configured not to serve this"
	case errdefs.IsResourceExhausted(err) && !fromUpstream:
		r.message = "larder cannot store it, and passes as much through already as it may"
	case errdefs.IsResourceExhausted(err):
		// Not 429: containerd would ask five times at once.
		r.message = "upstream limits the rate of requests, and larder has not stored it"
	case errdefs.IsDataLoss(err), errdefs.IsInvalidArgument(err):
		r.status, r.message = http.StatusBadGateway, "upstream sent something else than it should have"
	case errors.Is(err, context.DeadlineExceeded) && !fromUpstream:
		r.message = "upstream has not answered in time; larder goes on asking, try again"
	}
	return r
}

// reason is ECR's name for what upstream did, "" if it was not upstream.
func (r refusal) reason() string {
	if e, ok := errors.AsType[reasoner](r.cause); ok {
		return e.Reason()
	}
	return ""
}

type errorBody struct {
	Errors []errorEntry `json:"errors"`
}

type errorEntry struct {
	Code    string      `json:"code"`
	Message string      `json:"message"`
	Detail  errorDetail `json:"detail"`
}

type errorDetail struct {
	Reason string `json:"reason,omitempty"`
	Cause  string `json:"cause,omitempty"`
}

// causeText is an error without its kind at the end: status and code say that.
func causeText(err error) string {
	return strings.TrimSuffix(err.Error(), ": "+errdefs.Resolve(err).Error())
}

// write sends the refusal.
func (r refusal) write(w http.ResponseWriter) {
	detail := errorDetail{Reason: r.reason()}
	message := r.message
	if r.cause != nil {
		detail.Cause = causeText(r.cause)
		if !strings.HasSuffix(message, ".") { // as a text of ECR's does
			message += ":"
		}
		message += " " + detail.Cause
	}
	body, err := json.Marshal(errorBody{Errors: []errorEntry{{Code: r.code, Message: message, Detail: detail}}})
	if err != nil {
		body = nil // three strings always encode
	}
	h := w.Header()
	// What described the content does not describe the refusal.
	for _, key := range []string{"ETag", "Docker-Content-Digest", "Accept-Ranges", "Content-Length", "Link", CacheHeader} {
		h.Del(key)
	}
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	if r.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", challenge)
	}
	w.WriteHeader(r.status)
	_, _ = w.Write(body) // the client left; the log line has the status
}
