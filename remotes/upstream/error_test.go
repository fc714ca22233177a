package upstream

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
)

// TestErrorKinds has every operation meet every status. errors.Is must find
// the kind and no other one: a deleted image is treated unlike a failure.
func TestErrorKinds(t *testing.T) {
	t.Parallel()
	kinds := map[int]error{
		400: errdefs.ErrUnavailable, 401: errdefs.ErrPermissionDenied, 403: errdefs.ErrPermissionDenied, 404: errdefs.ErrNotFound,
		405: errdefs.ErrUnavailable, 408: errdefs.ErrUnavailable, 410: errdefs.ErrUnavailable, 416: errdefs.ErrOutOfRange,
		418: errdefs.ErrUnavailable, 429: errdefs.ErrResourceExhausted, 451: errdefs.ErrUnavailable, 500: errdefs.ErrUnavailable,
		502: errdefs.ErrUnavailable, 503: errdefs.ErrUnavailable, 504: errdefs.ErrUnavailable, 599: errdefs.ErrUnavailable, 300: errdefs.ErrUnavailable, 304: errdefs.ErrUnavailable,
	}
	all := []error{
		errdefs.ErrUnavailable, errdefs.ErrPermissionDenied, errdefs.ErrNotFound, errdefs.ErrOutOfRange,
		errdefs.ErrResourceExhausted, errdefs.ErrDataLoss, errdefs.ErrInvalidArgument, errdefs.ErrNotImplemented,
	}
	for status, kind := range kinds {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			reg, img := withImage(t)
			reg.Fault(remotestest.Any(), remotestest.Error(status, "CODE", "upstream's words"))
			for op, ask := range operations(t, img) {
				err := ask(clientOf(t, reg))
				e := failure(t, err, kind)
				if e.Status != status {
					t.Errorf("%s: status %d", op, e.Status)
				}
				for _, other := range all {
					if got := errors.Is(e, other); got != (other == kind) { //nolint:errorlint // sentinels themselves
						t.Errorf("%s: is %v: %t", op, other, got)
					}
				}
				if want := "upstream's words"; op != "resolve" && status >= 400 && !strings.Contains(e.Error(), want) {
					t.Errorf("%s: %v, want %q", op, e, want)
				}
			}
		})
	}
}

// TestTooManyRequestsIsAskedOnce counts what containerd's client alone would
// ask five times.
func TestTooManyRequestsIsAskedOnce(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t)
	reg.Fault(remotestest.Any(), remotestest.TooManyRequests(30*time.Second))
	for op, ask := range operations(t, img) {
		reg.ResetRequests()
		e := failure(t, ask(clientOf(t, reg)), errdefs.ErrResourceExhausted)
		if e.RetryAfter != 30*time.Second || e.Status != 429 || e.Reason() != "UpstreamTooManyRequests" {
			t.Errorf("%s: %+v", op, e)
		}
		if n := len(reg.Requests()); n != 1 {
			t.Errorf("%s: %d requests, want 1", op, n)
		}
	}
}

// TestServerErrorIsAskedOnce is the same for 5xx, which containerd's client
// would ask twice, and for an answer that is cut off before its header.
func TestServerErrorIsAskedOnce(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]remotestest.FaultFunc{
		"500": remotestest.Error(500, "X", "x"), "502": remotestest.Error(502, "X", "x"), "504": remotestest.Error(504, "X", "x"),
		"503": remotestest.Status(503, http.Header{"Retry-After": {"99999999999"}}, ""), "cut": remotestest.Abort(),
	} {
		reg, img := withImage(t)
		reg.Fault(remotestest.Any(), fault)
		for op, ask := range operations(t, img) {
			reg.ResetRequests()
			e := failure(t, ask(clientOf(t, reg)), errdefs.ErrUnavailable)
			if n := len(reg.Requests()); n != 1 {
				t.Errorf("%s, %s: %d requests, want 1", name, op, n)
			}
			if want := time.Duration(0); name == "503" && e.RetryAfter != maxRetryAfter || name != "503" && e.RetryAfter != want {
				t.Errorf("%s, %s: retry after %s", name, op, e.RetryAfter)
			}
		}
	}
}

// TestErrorText lets upstream say hostile things in every place.
func TestErrorText(t *testing.T) {
	t.Parallel()
	hostile := "a\nlevel=ERROR \x1b[31m\u202e\u2028 " + strings.Repeat("long ", 10_000)
	quoted := strings.ReplaceAll(strings.ReplaceAll(hostile, "\n", `\n`), "\x1b", `\u001b`)
	for name, fault := range map[string]remotestest.FaultFunc{
		"message":       remotestest.Status(500, nil, `{"errors":[{"code":"C","message":"`+quoted[:5000]+`"}]}`),
		"whole message": remotestest.Status(400, nil, `{"errors":[{"code":"C","message":"`+quoted+`"}]}`),
		"body":          remotestest.Status(500, nil, hostile),
		"header":        remotestest.Status(200, http.Header{"Content-Encoding": {strings.Repeat("x", 30_000)}}, ""),
		"digest":        remotestest.SetHeader("Docker-Content-Digest", strings.Repeat("x", 30_000)),
		"many headers":  remotestest.Status(200, http.Header{"X": {strings.Repeat("x", 100_000)}}, ""),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg, img := withImage(t)
			reg.Fault(remotestest.Any(), fault)
			for op, ask := range operations(t, img) {
				if name == "digest" && op != "resolve" || name == "body" && op == "tags" {
					continue
				}
				e, ok := errors.AsType[*Error](ask(clientOf(t, reg)))
				if !ok {
					t.Errorf("%s: no *Error", op)
					continue
				}
				failed(t, e, e.kind)
			}
		})
	}
}

// TestErrorHidesSignedURL redirects to URLs whose query is a secret, and lets
// that fail in many ways. Nor is a token in any error.
func TestErrorHidesSignedURL(t *testing.T) {
	t.Parallel()
	closed := remotestest.New(t)
	closed.Stop()
	cdn := remotestest.New(t)
	cdn.Fault(remotestest.Any(), remotestest.Error(403, "DENIED", "no"))
	cut := remotestest.New(t)
	cut.Fault(remotestest.Any(), remotestest.Abort())
	loop := remotestest.New(t)
	loop.Fault(remotestest.Any(), remotestest.RedirectTo(loop.URL()+"/x?X-Amz-Signature=hunter2"))
	for name, to := range map[string]string{
		"refused":    closed.URL() + "/x?X-Amz-Signature=hunter2",
		"denied":     cdn.URL() + "/x?X-Amz-Signature=hunter2",
		"cut":        cut.URL() + "/x?X-Amz-Signature=hunter2",
		"loop":       loop.URL() + "/x?X-Amz-Signature=hunter2",
		"no URL":     "http://[::1/%zz?X-Amz-Signature=hunter2",
		"private":    "https://10.0.0.1/x?X-Amz-Signature=hunter2",
		"userinfo":   "https://user:hunter2@10.0.0.1/x",
		"no port":    "http://127.0.0.1:hunter2/",
		"no host":    "http:///x?X-Amz-Signature=hunter2",
		"no scheme":  "hunter2://x",
		"odd escape": "https://example.com:1%zz/?hunter2",
	} {
		reg, img := withImage(t, remotestest.WithToken())
		reg.Fault(remotestest.Blobs(), remotestest.RedirectTo(to))
		c := named(t, reg.URL(), closed.URL(), cdn.URL(), cut.URL(), loop.URL()).Client(endpoint(t, reg.URL()))
		_, _, err := readBlob(t, c, "team/app", layer(img), 0)
		e, ok := errors.AsType[*Error](err)
		if !ok {
			t.Errorf("%s: %v, want an *Error", name, err)
			continue
		}
		failed(t, e, e.kind)
		for _, secret := range []string{"hunter2", "anonymous-", "Bearer", "Authorization"} {
			if strings.Contains(e.Error(), secret) && name != "no scheme" {
				t.Errorf("%s: error says %q: %v", name, secret, e)
			}
		}
		for _, cause := range e.Unwrap() {
			if strings.Contains(cause.Error(), "hunter2") {
				t.Errorf("%s: cause repeats the secret: %v", name, cause)
			}
		}
	}
}

func TestHideURLs(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                             "",
		"no URL here/there?":           "no URL here/there?",
		"Get \"https://a.b/c?d=e\": x": "Get \"https://a.b/… x",
		"https://a.b?d=e":              "https://a.b/…",
		"https://a.b":                  "https://a.b",
		"https://u:p@a.b/c":            "https://…",
		"https://u:p/q@a.b":            "https://…",
		"(http://a.b/c)":               "(http://a.b/…",
	} {
		if got := hideURLs(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// TestErrorKeepsCause says which causes a caller may look for.
func TestErrorKeepsCause(t *testing.T) {
	t.Parallel()
	for _, cause := range []error{io.ErrUnexpectedEOF, fmt.Errorf("x: %w", io.ErrUnexpectedEOF)} {
		e := newError("op", "https://example.com", "object", cause)
		if !errors.Is(e, io.ErrUnexpectedEOF) || !errdefs.IsUnavailable(e) {
			t.Errorf("%v: got %v", cause, e)
		}
	}
	if got, want := newError("op", "up", "object", &statusError{status: 404}).Error(), "op object at up: upstream answered 404 Not Found"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := newError("op", "up", "object", &statusError{status: 404}).Reason(); got != "ImageNotFound" {
		t.Errorf("reason %s", got)
	}
	if got := newError("op", "up", "object", io.EOF).Reason(); got != "UpstreamUnavailable" {
		t.Errorf("reason %s", got)
	}
}
