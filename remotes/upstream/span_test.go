package upstream

import (
	"errors"
	"net/http"
	"net/url"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/upstream/ranged"
)

// TestSpanCheck compares answers with a part that was asked for: bytes 100 to 199
// of 1000.
func TestSpanCheck(t *testing.T) {
	t.Parallel()
	of := &inParts{size: 1000, etag: `"one"`, host: "cdn.example"}
	for name, tc := range map[string]struct {
		status      int
		text, etag  string
		length      int64
		ahead, want error // of a part ahead, and of one that is needed now
	}{
		"right":         {206, "bytes 100-199/1000", `"one"`, 100, nil, nil},
		"no total":      {206, "bytes 100-199/*", "", -1, nil, nil},
		"weak ETag":     {206, "bytes 100-199/1000", `W/"two"`, 100, nil, nil},
		"all":           {200, "", `"one"`, 1000, ranged.ErrIgnored, nil},
		"longer":        {206, "bytes 100-299/1000", "", 200, errdefs.ErrDataLoss, errdefs.ErrDataLoss},
		"shorter":       {206, "bytes 100-149/1000", "", 50, errdefs.ErrDataLoss, nil},
		"other length":  {206, "bytes 100-199/1000", "", 99, errdefs.ErrDataLoss, errdefs.ErrDataLoss},
		"other size":    {206, "bytes 100-199/2000", "", 100, errdefs.ErrDataLoss, errdefs.ErrDataLoss},
		"another ETag":  {206, "bytes 100-199/1000", `"two"`, 100, errdefs.ErrDataLoss, nil},
		"no range told": {206, "", "", 100, errdefs.ErrDataLoss, errdefs.ErrDataLoss},
	} {
		for ahead, want := range map[bool]error{true: tc.ahead, false: tc.want} {
			resp := &http.Response{
				StatusCode: tc.status, ContentLength: tc.length, Request: &http.Request{URL: &url.URL{Host: "cdn.example"}},
				Header: http.Header{"Content-Range": {tc.text}, "Etag": {tc.etag}},
			}
			err := (&span{last: 199, of: of, ahead: ahead}).check(resp)
			if !errors.Is(err, want) || (err == nil) != (want == nil) {
				t.Errorf("%s, ahead %t: %v, want %v", name, ahead, err, want)
			}
		}
	}
	if err := (*span)(nil).check(&http.Response{StatusCode: http.StatusOK}); err != nil {
		t.Errorf("no part: %v", err)
	}
}
