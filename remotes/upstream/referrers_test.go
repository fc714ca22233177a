package upstream

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
)

func TestReferrers(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]remotestest.Option{
		"endpoint": nil, "tag schema": {remotestest.WithoutReferrers()}, "token": {remotestest.WithToken()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg, img := withImage(t, opts...)
			c := clientOf(t, reg)
			if name == "tag schema" {
				_, err := c.Referrers(soon(t), "team/app", img.Root.Digest, "")
				failed(t, err, errdefs.ErrNotFound)
			} else if none, err := c.Referrers(soon(t), "team/app", img.Root.Digest, ""); err != nil || len(none) != 0 {
				t.Errorf("got %v, %v, want none", none, err)
			}
			sbom := reg.PutReferrer("team/app", img.Root, "application/sbom")
			reg.PutReferrer("team/app", img.Root, "application/signature")
			all, err := c.Referrers(soon(t), "team/app", img.Root.Digest, "")
			if err != nil || len(all) != 2 {
				t.Errorf("got %v, %v, want both", all, err)
			}
			some, err := c.Referrers(soon(t), "team/app", img.Root.Digest, "application/sbom")
			if err != nil || len(some) != 1 || some[0].Digest != sbom.Digest {
				t.Errorf("got %v, %v, want the one", some, err)
			}
			none, err := c.Referrers(soon(t), "team/app", img.Root.Digest, "application/none")
			if err != nil || len(none) != 0 {
				t.Errorf("got %v, %v, want none", none, err)
			}
		})
	}
}

// TestReferrersPages has a list of three pages, one that never ends, and links
// that lead elsewhere.
func TestReferrersPages(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t)
	c := clientOf(t, reg)
	pages := 3
	reg.Fault(remotestest.Referrers(), func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		n, _ := strconv.Atoi(r.URL.Query().Get("page")) // 0 without
		if n+1 < pages {
			// Its host and path do not count.
			w.Header().Set("Link", `<http://169.254.169.254/other?page=`+strconv.Itoa(n+1)+`>; rel="next"`)
		}
		_, _ = w.Write([]byte(`{"schemaVersion":2,"manifests":[{"digest":"` + digest.FromString(strconv.Itoa(n)).String() +
			`","size":1,"artifactType":"` + strings.Repeat("t", n%2+1) + `"}]}`))
	})
	for artifactType, want := range map[string]int{"": 3, "t": 2, "tt": 1} {
		if got, err := c.Referrers(soon(t), "team/app", img.Root.Digest, artifactType); err != nil || len(got) != want {
			t.Errorf("%q: got %v, %v, want %d", artifactType, got, err, want)
		}
	}
	pages = 1 << 30
	_, err := c.Referrers(soon(t), "team/app", img.Root.Digest, "")
	failed(t, err, errdefs.ErrDataLoss)
}

// TestReferrersTooLong: pages are no way to a list that is longer than one
// answer may be. It would be stored, and served, as one.
func TestReferrersTooLong(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t)
	c := clientOf(t, reg)
	const each = 8 // of a page, which has a quarter of what all may have
	large := strings.Repeat("x", MaxManifestSize/4/each)
	pages := 3
	reg.Fault(remotestest.Referrers(), func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		n, _ := strconv.Atoi(r.URL.Query().Get("page"))
		if n+1 < pages {
			w.Header().Set("Link", `</v2/?page=`+strconv.Itoa(n+1)+`>; rel="next"`)
		}
		one := `{"digest":"` + digest.FromString(strconv.Itoa(n)).String() + `","size":1,"annotations":{"a":"` + large + `"}}`
		_, _ = w.Write([]byte(`{"schemaVersion":2,"manifests":[` + strings.Repeat(one+",", each-1) + one + `]}`))
	})
	if got, err := c.Referrers(soon(t), "team/app", img.Root.Digest, ""); err != nil || len(got) != pages*each {
		t.Errorf("got %d, %v, want %d", len(got), err, pages*each)
	}
	pages = 4
	got, err := c.Referrers(soon(t), "team/app", img.Root.Digest, "")
	failed(t, err, errdefs.ErrDataLoss)
	if len(got) != 0 {
		t.Errorf("got %d with the error", len(got))
	}
}

// TestReferrersTooLongIsNotNone: a first page that tells its length is refused by
// that, and what is under no tag is not asked for then.
func TestReferrersTooLongIsNotNone(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t)
	reg.Fault(remotestest.Referrers(), remotestest.Status(http.StatusOK,
		http.Header{"Content-Length": {strconv.Itoa(MaxManifestSize + 1)}}, strings.Repeat(" ", MaxManifestSize+1)))
	_, err := clientOf(t, reg).Referrers(soon(t), "team/app", img.Root.Digest, "")
	if failed(t, err, errdefs.ErrDataLoss); reg.Count("", "/manifests/") != 0 {
		t.Errorf("asked %v", reg.Requests())
	}
}

// TestReferrersRefusals: the tag schema is for who refuses the endpoint, and
// never for who fails. Nothing under the tag is what counts then; else why the
// endpoint is refused does.
func TestReferrersRefusals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		endpoint, tag int
		status, found int
		byTag         bool
	}{
		{404, 200, 0, 1, true}, {405, 200, 0, 1, true}, {403, 200, 0, 1, true}, {400, 200, 0, 1, true},
		{404, 404, 404, 0, true}, {405, 404, 404, 0, true}, {403, 404, 404, 0, true},
		{404, 403, 403, 0, true}, {405, 403, 405, 0, true}, {403, 405, 403, 0, true},
		{404, 500, 500, 0, true}, {403, 500, 403, 0, true},
		{500, 200, 500, 0, false}, {503, 200, 503, 0, false}, {429, 200, 429, 0, false},
	} {
		reg, img := withImage(t, remotestest.WithoutReferrers())
		reg.PutReferrer("team/app", img.Root, "application/sbom")
		reg.Fault(remotestest.Referrers(), remotestest.Status(c.endpoint, nil, ""))
		if c.tag != http.StatusOK {
			reg.Fault(remotestest.Manifests(), remotestest.Status(c.tag, nil, ""))
		}
		got, err := clientOf(t, reg).Referrers(soon(t), "team/app", img.Root.Digest, "application/sbom")
		status := 0
		if e, ok := errors.AsType[*Error](err); ok {
			status = e.Status
		}
		if byTag := reg.Count("GET", "/manifests/") == 1; status != c.status || (err != nil) != (c.status != 0) || len(got) != c.found || byTag != c.byTag {
			t.Errorf("%d, and %d by tag: got %d, %v, asked by tag: %t; want %d, status %d, %t", c.endpoint, c.tag, len(got), err, byTag, c.found, c.status, c.byTag)
		}
	}
}
