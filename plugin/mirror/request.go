package mirror

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// kind is what a request asks for.
type kind string

const (
	kindPing      kind = "ping"
	kindManifest  kind = "manifests"
	kindBlob      kind = "blobs"
	kindTags      kind = "tags"
	kindReferrers kind = "referrers"
)

// maxPage bounds the n of a tag list: more is answered in pages.
const maxPage = 10_000

// request is a URL of the distribution specification, taken apart. Its texts
// are not validated yet: remotes does that.
type request struct {
	kind   kind
	name   string // repository path as asked
	ns     string // registry host that the client means, "" if it did not say
	object string // tag or digest behind /manifests/, /blobs/, /referrers/

	n            int    // page size of a tag list, 0 if not given
	last         string // tag after which the page begins
	artifactType string // filter of referrers
}

// parseRequest takes a URL apart. It returns errdefs.ErrNotFound for a path
// that is no endpoint and errdefs.ErrInvalidArgument for bad parameters.
func parseRequest(u *url.URL) (request, error) {
	if u.Path == "/v2/" || u.Path == "/v2" {
		return request{kind: kindPing}, nil
	}
	path, ok := strings.CutPrefix(u.Path, "/v2/")
	if !ok {
		return request{}, fmt.Errorf("path %.100q: %w", u.Path, errdefs.ErrNotFound)
	}
	// Names hold slashes and may hold a segment "manifests": read from the
	// end, where neither tag nor digest holds one.
	path, object, ok := cutLast(path)
	if !ok {
		return request{}, fmt.Errorf("path %.100q: %w", u.Path, errdefs.ErrNotFound)
	}
	name, what, _ := cutLast(path)
	req := request{kind: kind(what), name: name, object: object}
	switch req.kind {
	case kindManifest, kindBlob, kindReferrers:
	case kindTags:
		if object != "list" {
			return request{}, fmt.Errorf("path %.100q: %w", u.Path, errdefs.ErrNotFound)
		}
	default:
		return request{}, fmt.Errorf("path %.100q: %w", u.Path, errdefs.ErrNotFound)
	}
	return req, req.parseQuery(u.RawQuery)
}

func cutLast(s string) (before, after string, found bool) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return "", s, false
	}
	return s[:i], s[i+1:], true
}

func (r *request) parseQuery(raw string) error {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return fmt.Errorf("query: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if len(query["ns"]) > 1 {
		return fmt.Errorf("query has %d ns parameters, want one: %w", len(query["ns"]), errdefs.ErrInvalidArgument)
	}
	r.ns, r.last, r.artifactType = query.Get("ns"), query.Get("last"), query.Get("artifactType")
	if text := query.Get("n"); text != "" {
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return fmt.Errorf("query n %.40q: want a number: %w", text, errdefs.ErrInvalidArgument)
		}
		r.n = min(int(n), maxPage)
	}
	return nil
}
