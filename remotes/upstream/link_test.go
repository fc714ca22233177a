package upstream

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
)

// linked is a registry with tokens that redirects blobs to links at a CDN, each
// another one, and a client of both.
func linked(t *testing.T) (c *Client, reg, cdn *remotestest.Registry, want remotestest.Blob) {
	t.Helper()
	reg, img := withImage(t, remotestest.WithToken())
	cdn, _ = withImage(t)
	var links atomic.Int32
	reg.Fault(remotestest.Blobs(), func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		remotestest.RedirectTo(fmt.Sprintf("%s%s?sig=SECRET%d", cdn.URL(), r.URL.Path, links.Add(1)))(w, r, next)
	})
	return named(t, reg.URL(), cdn.URL()).Client(endpoint(t, reg.URL())), reg, cdn, layer(img)
}

// signatures are the links that a CDN was asked by, in their order. It was shown
// nothing else.
func signatures(t *testing.T, cdn *remotestest.Registry) (sigs []string) {
	t.Helper()
	for _, q := range cdn.Requests() {
		sigs = append(sigs, q.Query.Get("sig"))
		if q.Header.Get("Authorization") != "" || q.Header.Get("Referer") != "" {
			t.Errorf("the CDN was shown %v", q.Header)
		}
	}
	return sigs
}

// refusals are the ways of a CDN to say that a link is not good, and what they
// are as errors.
func refusals() map[int]error {
	return map[int]error{
		http.StatusUnauthorized: errdefs.ErrPermissionDenied,
		http.StatusForbidden:    errdefs.ErrPermissionDenied,
		http.StatusNotFound:     errdefs.ErrNotFound,
		http.StatusGone:         errdefs.ErrUnavailable,
	}
}

// TestRefusedLink has the CDN refuse a link on its first use: the registry is
// asked for another one, where the blob is opened, at an offset too, and where
// its body is continued.
func TestRefusedLink(t *testing.T) {
	t.Parallel()
	for status := range refusals() {
		for _, offset := range []int64{0, 1000} {
			c, reg, cdn, want := linked(t)
			cdn.Fault(remotestest.Blobs(), remotestest.Times(1, remotestest.Error(status, "AccessDenied", "request has expired")))
			data, size, err := readBlob(t, c, "team/app", want, offset)
			if err != nil || !bytes.Equal(data, want.Data[offset:]) || size != want.Descriptor.Size {
				t.Errorf("%d at %d: %d bytes of %d, %v, want the blob by a new link", status, offset, len(data), size, err)
			}
			if got := fmt.Sprint(signatures(t, cdn)); got != "[SECRET1 SECRET2]" {
				t.Errorf("%d at %d: links used: %s, want each once", status, offset, got)
			}
			if n := reg.Count("", "/token"); n != 1 {
				t.Errorf("%d at %d: %d tokens were asked for, want 1", status, offset, n)
			}
		}
		c, _, cdn, want := linked(t)
		var asked atomic.Int32
		cdn.Fault(remotestest.Blobs(), func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			switch asked.Add(1) {
			case 1, 3, 5: // each opening is refused once
				remotestest.Error(status, "AccessDenied", "request has expired")(w, r, next)
			case 2, 4:
				remotestest.CutBody(100_000)(w, r, next)
			default:
				next.ServeHTTP(w, r)
			}
		})
		data, _, err := readBlob(t, c, "team/app", want, 0)
		if err != nil || !bytes.Equal(data, want.Data) || asked.Load() != 6 {
			t.Errorf("%d, cut twice: %d bytes, %v, by %d links, want the blob by 6", status, len(data), err, asked.Load())
		}
	}
}

// TestLinkRefusedTwice has the CDN refuse every link: no third one is asked for,
// and the error tells by whom and not the link.
func TestLinkRefusedTwice(t *testing.T) {
	t.Parallel()
	for status, kind := range refusals() {
		c, _, cdn, want := linked(t)
		cdn.Fault(remotestest.Blobs(), remotestest.Error(status, "AccessDenied", "request has expired"))
		for i := range 2 { // the first leaves nothing behind that changes the second
			cdn.ResetRequests()
			_, _, err := readBlob(t, c, "team/app", want, 0)
			e := failure(t, err, kind)
			text := fmt.Sprintf("%s answered %d %s: it refused the link that upstream redirected to, and a new one, too: ",
				cdn.Host(), status, http.StatusText(status))
			if e.Status != status || !strings.Contains(e.Error(), text) || strings.Contains(e.Error(), "SECRET") {
				t.Errorf("%d: error is %v, want %q and no signature", status, e, text)
			}
			if got, want := fmt.Sprint(signatures(t, cdn)), fmt.Sprintf("[SECRET%d SECRET%d]", 2*i+1, 2*i+2); got != want {
				t.Errorf("%d: links used: %s, want %s", status, got, want)
			}
		}
	}
}

// TestOnlyRefusedLinksAreRenewed: what the registry itself refuses, and what a
// CDN fails at, is asked for once.
func TestOnlyRefusedLinksAreRenewed(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusBadRequest, http.StatusTooManyRequests, http.StatusInternalServerError} {
		c, _, cdn, want := linked(t)
		cdn.Fault(remotestest.Blobs(), remotestest.Error(status, "X", "no"))
		if _, _, err := readBlob(t, c, "team/app", want, 0); err == nil || len(signatures(t, cdn)) != 1 {
			t.Errorf("%d: %v by %d links, want an error and 1", status, err, len(signatures(t, cdn)))
		}
	}
	for status, kind := range refusals() {
		reg, img := withImage(t)
		there := reg.URL() + "/v2/team/app/blobs/" + layer(img).Descriptor.Digest.String() + "?moved=1"
		moved := func(r *http.Request) bool { return r.URL.Query().Has("moved") }
		reg.Fault(func(r *http.Request) bool { return remotestest.Blobs()(r) && !moved(r) }, remotestest.RedirectTo(there))
		reg.Fault(moved, remotestest.Error(status, "X", "no"))
		_, _, err := readBlob(t, clientOf(t, reg), "team/app", layer(img), 0)
		if e := failure(t, err, kind); strings.Contains(e.Error(), "link") || reg.Count("", "/blobs/") != 2 {
			t.Errorf("%d of the registry itself: %v with %d requests, want no word of a link, and 2", status, e, reg.Count("", "/blobs/"))
		}
	}
}

// TestNewLinkIsRefused has the registry refuse to give a second link: that is
// the error.
func TestNewLinkIsRefused(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t)
	cdn, _ := withImage(t)
	reg.Fault(remotestest.Blobs(), remotestest.After(1, remotestest.TooManyRequests(0)))
	reg.Fault(remotestest.Blobs(), remotestest.RedirectHost(cdn.URL()))
	cdn.Fault(remotestest.Blobs(), remotestest.Error(http.StatusForbidden, "AccessDenied", "request has expired"))
	c := named(t, reg.URL(), cdn.URL()).Client(endpoint(t, reg.URL()))
	_, _, err := readBlob(t, c, "team/app", layer(img), 0)
	if e := failure(t, err, errdefs.ErrResourceExhausted); e.Status != http.StatusTooManyRequests || reg.Count("", "/blobs/") != 2 || len(cdn.Requests()) != 1 {
		t.Errorf("%v with %d and %d requests, want the registry's 429 behind 2 and 1", e, reg.Count("", "/blobs/"), len(cdn.Requests()))
	}
}

// TestRelinkAnswersOrFails has the registry redirect without end where it is asked
// for another link: a round trip returns an answer or an error, and never both.
func TestRelinkAnswersOrFails(t *testing.T) {
	t.Parallel()
	reg, img := withImage(t)
	reg.Fault(remotestest.Blobs(), func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		remotestest.RedirectTo(reg.URL()+r.URL.Path)(w, r, next)
	})
	c := named(t, reg.URL()).Client(endpoint(t, reg.URL()))
	url := reg.URL() + "/v2/team/app/blobs/" + layer(img).Descriptor.Digest.String()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.newExchange(purpose{op: "fetch", repository: "team/app", stream: true}).relink(req)
	if resp != nil {
		_ = resp.Body.Close() // it was read
	}
	if resp != nil || err == nil || !strings.Contains(err.Error(), "redirects") {
		t.Errorf("answer %v, error %v, want only that there are too many redirects", resp, err)
	}
}
