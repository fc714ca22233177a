package upstream

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// maxRetryAfter bounds what an upstream can ask for: nobody means more.
const maxRetryAfter = 24 * time.Hour

// parseRetryAfter reads seconds or a date (RFC 9110, 10.2.3): 0 if it is
// neither or in the past, at most maxRetryAfter.
func parseRetryAfter(text string, now time.Time) time.Duration {
	if secs, err := strconv.ParseUint(text, 10, 64); err == nil {
		return time.Duration(min(secs, uint64(maxRetryAfter/time.Second))) * time.Second
	}
	if strings.Trim(text, "0123456789") == "" && text != "" {
		return maxRetryAfter // a number that no integer holds
	}
	if at, err := http.ParseTime(text); err == nil && at.After(now) {
		return min(at.Sub(now), maxRetryAfter)
	}
	return 0
}

// contentRange is a Content-Range of bytes; total is -1 if not told.
type contentRange struct{ first, last, total int64 }

// parseContentRange reads "bytes first-last/total" (RFC 9110, 14.4).
func parseContentRange(text string) (contentRange, bool) {
	rest, ok := strings.CutPrefix(text, "bytes ")
	span, total, ok2 := strings.Cut(rest, "/")
	first, last, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return contentRange{}, false
	}
	var err [3]error
	r := contentRange{total: -1}
	r.first, err[0] = parseSize(first)
	r.last, err[1] = parseSize(last)
	if total != "*" {
		r.total, err[2] = parseSize(total)
	}
	if err != [3]error{} || r.last < r.first || r.total >= 0 && r.last >= r.total {
		return contentRange{}, false
	}
	return r, true
}

// parseSize reads a size that an int64 holds, of digits only.
func parseSize(text string) (int64, error) {
	n, err := strconv.ParseUint(text, 10, 63)
	return int64(n), err
}

// checkRange refuses a part that does not begin where it was asked to:
// containerd's client believes any 206, and a Content-Range in a 200.
func checkRange(req *http.Request, resp *http.Response) error {
	text := resp.Header.Get("Content-Range")
	asked, isAsked := strings.CutPrefix(req.Header.Get("Range"), "bytes=")
	first, _, _ := strings.Cut(asked, "-")
	offset, err := parseSize(first)
	isAsked = isAsked && err == nil
	if resp.StatusCode != http.StatusPartialContent {
		if isAsked && text != "" {
			return fmt.Errorf("asked for bytes from %d, got all with range %q: %w", offset, oneLine(text), errdefs.ErrDataLoss)
		}
		if isAsked && resp.ContentLength >= 0 && resp.ContentLength < offset {
			// The whole, and it ends before what was asked for.
			return &statusError{status: http.StatusRequestedRangeNotSatisfiable}
		}
		return nil
	}
	if !isAsked {
		return fmt.Errorf("asked for all, got range %q: %w", oneLine(text), errdefs.ErrDataLoss)
	}
	if got, ok := parseContentRange(text); !ok || got.first != offset {
		return fmt.Errorf("asked for bytes from %d, got range %q: %w", offset, oneLine(text), errdefs.ErrDataLoss)
	}
	return nil
}

// wholeSize is the size of the whole object behind a response, -1 if it does
// not tell.
func wholeSize(resp *http.Response) int64 {
	if resp.StatusCode != http.StatusPartialContent {
		return resp.ContentLength
	}
	if r, ok := parseContentRange(resp.Header.Get("Content-Range")); ok {
		return r.total
	}
	return -1
}

// maxContentType bounds a media type, as the grammar of RFC 6838 does.
const maxContentType = 255

// contentType is the media type of a response without its parameters, "" if
// it is none.
func contentType(h http.Header) string {
	text, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	text = strings.ToLower(strings.TrimSpace(text))
	if len(text) > maxContentType {
		return ""
	}
	return text
}

// ociMessage takes code and message out of an OCI error body.
func ociMessage(body []byte) string {
	var doc struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	if json.Unmarshal(body, &doc) != nil || len(doc.Errors) == 0 {
		return ""
	}
	first := doc.Errors[0]
	return oneLine(strings.TrimSuffix(strings.TrimPrefix(first.Code+": "+first.Message, ": "), ": "))
}
