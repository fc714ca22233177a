package upstream

import (
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestParseRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"":                              0,
		"0":                             0,
		"30":                            30 * time.Second,
		"-30":                           0,
		"1.5":                           0,
		"soon":                          0,
		"86401":                         maxRetryAfter,
		"9223372036854775807":           maxRetryAfter,
		"99999999999999999999999999":    maxRetryAfter,
		"Sun, 01 Mar 2026 12:02:00 GMT": 2 * time.Minute,
		"Sun, 01 Mar 2026 11:58:00 GMT": 0,
		"Fri, 01 Mar 9999 12:02:00 GMT": maxRetryAfter,
	} {
		if got := parseRetryAfter(text, now); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}

func TestParseContentRange(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]contentRange{
		"bytes 0-0/1":   {0, 0, 1},
		"bytes 5-9/10":  {5, 9, 10},
		"bytes 5-8/10":  {5, 8, 10},
		"bytes 5-9/*":   {5, 9, -1},
		"bytes 05-9/10": {5, 9, 10},
	} {
		if got, ok := parseContentRange(text); !ok || got != want {
			t.Errorf("%q: got %+v, %t, want %+v", text, got, ok, want)
		}
	}
	for _, text := range []string{
		"", "bytes", "bytes ", "bytes */10", "bytes 5-9", "bytes 5-9/", "bytes 9-5/10", "bytes 5-10/10", "bytes -5-9/10", "bytes 5-9/-1",
		"bytes +5-9/10", "lines 5-9/10", "bytes 5-9/99999999999999999999", "5-9/10", "bytes 5-9/10/11", "bytes 5--9/10",
	} {
		if got, ok := parseContentRange(text); ok {
			t.Errorf("%q: got %+v, want a refusal", text, got)
		}
	}
}

func TestOCIMessage(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		``:                "",
		`<html>`:          "",
		`{"errors":[]}`:   "",
		`{"errors":"no"}`: "",
		`{"errors":[{}]}`: "",
		`{"errors":[{"code":"DENIED","message":"no access"},{"code":"OTHER"}]}`: "DENIED: no access",
		`{"errors":[{"code":"DENIED"}]}`:                                        "DENIED",
		`{"errors":[{"message":"no access"}]}`:                                  "no access",
		`{"errors":[{"code":"A","message":"b\nc\u001b[31m\u202ed\u2028e"}]}`:    "A: b c [31m d e",
	} {
		if got := ociMessage([]byte(body)); got != want {
			t.Errorf("%s: got %q, want %q", body, got, want)
		}
	}
	long := ociMessage([]byte(`{"errors":[{"message":"` + strings.Repeat("ü", 5000) + `"}]}`))
	if len(long) > maxMessage+len("…") || !strings.HasSuffix(long, "ü…") {
		t.Errorf("long message: got %d bytes ending in %q", len(long), long[len(long)-8:])
	}
}

func TestContentType(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                                "",
		"Application/JSON; charset=utf-8": "application/json",
		strings.Repeat("a", 256):          "",
		"application/vnd.oci.image.index.v1+json": "application/vnd.oci.image.index.v1+json",
	} {
		if got := contentType(http.Header{"Content-Type": {text}}); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// FuzzParseRetryAfter holds that no upstream can ask for more than a day.
func FuzzParseRetryAfter(f *testing.F) {
	for _, s := range []string{"30", "-1", "99999999999999999999", "Fri, 01 Mar 9999 12:02:00 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", " 5"} {
		f.Add(s)
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		if d := parseRetryAfter(s, now); d < 0 || d > maxRetryAfter {
			t.Fatalf("%q: %s", s, d)
		}
	})
}

// FuzzContentRange holds that a range which is taken makes sense, and that
// the size of the whole is one, or -1.
func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 5-9/10", "bytes 5-9/*", "bytes */10", "bytes 9-5/10", "bytes 0-9223372036854775807/*", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, ok := parseContentRange(s)
		if ok && (r.first < 0 || r.last < r.first || r.total >= 0 && r.total <= r.last || r.total < -1) {
			t.Fatalf("%q: %+v", s, r)
		}
		resp := &http.Response{StatusCode: http.StatusPartialContent, Header: http.Header{"Content-Range": {s}}, ContentLength: 5}
		if size := wholeSize(resp); size < -1 || ok && size != r.total || !ok && size != -1 {
			t.Fatalf("%q: size %d of %+v", s, size, r)
		}
		req := &http.Request{Header: http.Header{"Range": {"bytes=5-"}}}
		if err := checkRange(req, resp); (err == nil) != (ok && r.first == 5) {
			t.Fatalf("%q: %v for %+v", s, err, r)
		}
	})
}

// FuzzOCIMessage holds that a body of any bytes yields one bounded line.
func FuzzOCIMessage(f *testing.F) {
	f.Add([]byte(`{"errors":[{"code":"DENIED","message":"no access"}]}`))
	f.Add([]byte(`{"errors":[{"code":"\u2028\n","message":"\ud800"}]}`))
	f.Add([]byte(`{"errors":[{"message":"` + strings.Repeat(`ü\n`, 300) + `"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		s := ociMessage(body)
		if len(s) > maxMessage+len("…") || !utf8.ValidString(s) || strings.ContainsAny(s, "\n\r\x00\x1b\u2028\u202e\u0085") {
			t.Fatalf("%q: %q", body, s)
		}
	})
}
