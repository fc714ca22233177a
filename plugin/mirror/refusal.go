package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/upstream"
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

// refuse finds the refusal for an error. The kubelet shows the first host's
// body when all hosts fail: what stands here is what a person reads.
func refuse(req request, err error) refusal {
	r := refusal{status: http.StatusServiceUnavailable, code: "UNAVAILABLE", cause: err,
		message: "larder could not get it from upstream and has not stored it"}
	fromUpstream := errors.As(err, new(*upstream.Error))
	switch {
	case errdefs.IsInvalidArgument(err):
		r.status, r.code, r.message = http.StatusBadRequest, invalidCode(req), "the request is malformed"
	case errdefs.IsNotFound(err) && !fromUpstream:
		r.status, r.code = http.StatusNotFound, "NAME_UNKNOWN"
		r.message = fmt.Sprintf("The repository with name '%.256s' does not exist in the registry: no rule covers it", req.name)
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
		r.status, r.code, r.message = http.StatusForbidden, "DENIED", "larder does not serve this registry"
	case errdefs.IsResourceExhausted(err):
		// Not 429: containerd would ask five times at once.
		r.message = "upstream limits the rate of requests, and larder has not stored it"
	case errdefs.IsDataLoss(err):
		r.status, r.message = http.StatusBadGateway, "upstream sent something else than it should have"
	case errors.Is(err, context.DeadlineExceeded):
		r.message = "upstream has not answered in time; larder goes on asking, try again"
	}
	return r
}

func invalidCode(req request) string {
	switch req.kind {
	case kindBlob, kindReferrers:
		return "DIGEST_INVALID"
	case kindManifest:
		return "MANIFEST_INVALID"
	}
	return "NAME_INVALID"
}

// reason is ECR's name for what upstream did, "" if it was not upstream.
func (r refusal) reason() string {
	if ue := (*upstream.Error)(nil); errors.As(r.cause, &ue) {
		return ue.Reason()
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

// write sends the refusal.
func (r refusal) write(w http.ResponseWriter) {
	detail := errorDetail{Reason: r.reason()}
	message := r.message
	if r.cause != nil {
		detail.Cause = r.cause.Error()
		message += ": " + detail.Cause
	}
	body, err := json.Marshal(errorBody{Errors: []errorEntry{{Code: r.code, Message: message, Detail: detail}}})
	if err != nil {
		body = nil // three strings always encode
	}
	h := w.Header()
	h.Del("ETag")
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(r.status)
	_, _ = w.Write(body) // the client left; the log line has the status
}
