package upstream

import (
	"net/http"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
)

func TestTags(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t, remotestest.WithToken())
	for _, tag := range []string{"v2", "v3", "v4"} {
		reg.PutImage("team/app", tag, img)
	}
	c := clientOf(t, reg)
	for _, tc := range []struct {
		n    int
		last string
		want []string
		more bool
	}{
		{0, "", []string{"v1", "v2", "v3", "v4"}, false},
		{2, "", []string{"v1", "v2"}, true},
		{2, "v2", []string{"v3", "v4"}, false},
		{0, "v3", []string{"v4"}, false},
		{0, "v4", []string{}, false},
		{1, "v1", []string{"v2"}, true},
	} {
		tags, more, err := c.Tags(soon(t), "team/app", tc.n, tc.last)
		if err != nil || !slices.Equal(tags, tc.want) || more != tc.more {
			t.Errorf("%d after %q: %v, %t, %v, want %v, %t", tc.n, tc.last, tags, more, err, tc.want, tc.more)
		}
	}
}

// TestListsWrongAnswer sends something else than lists.
func TestListsWrongAnswer(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"<html>", `{"tags":"no","manifests":"no"}`, `[]`, `{"tags":[1],"manifests":[1]}`} {
		reg, img := withImage(t)
		reg.Fault(remotestest.Any(), remotestest.Status(http.StatusOK, nil, body))
		c := clientOf(t, reg)
		_, _, err := c.Tags(soon(t), "team/app", 0, "")
		failed(t, err, errdefs.ErrDataLoss)
		_, err = c.Referrers(soon(t), "team/app", img.Root.Digest, "")
		failed(t, err, errdefs.ErrDataLoss)
	}
}
