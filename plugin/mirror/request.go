package mirror

import (
	"fmt"
	"net/http"
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

	n            int    // page size of a tag list, -1 if not given
	last         string // tag after which the page begins
	artifactType string // filter of referrers
}

// parseRequest takes a URL apart. Errors are mistakes: 404 for a path that is no
// endpoint, 400 for bad parameters.
func parseRequest(u *url.URL) (request, error) {
	if u.Path == "/v2/" || u.Path == "/v2" {
		return request{kind: kindPing}, nil
	}
	path, ok := strings.CutPrefix(u.Path, "/v2/")
	if !ok {
		return request{}, noEndpoint(u)
	}
	// Names hold slashes and may hold a segment "manifests": read from the
	// end, where neither tag nor digest holds one.
	path, object, ok := cutLast(path)
	if !ok {
		return request{}, noEndpoint(u)
	}
	name, what, ok := cutLast(path)
	if !ok {
		return request{}, noEndpoint(u)
	}
	req := request{kind: kind(what), name: name, object: object}
	switch req.kind {
	case kindManifest, kindBlob, kindReferrers:
	case kindTags:
		if object != "list" {
			return request{}, noEndpoint(u)
		}
	default:
		return request{}, noEndpoint(u)
	}
	return req, req.parseQuery(u.RawQuery)
}

func noEndpoint(u *url.URL) error {
	return &mistake{status: http.StatusNotFound, code: "UNSUPPORTED", message: "no such endpoint",
		err: fmt.Errorf("path %.100q: %w", u.Path, errdefs.ErrNotFound)}
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
		return invalid("UNSUPPORTED", fmt.Errorf("query: %w", err))
	}
	if len(query["ns"]) > 1 {
		return invalid("NAME_INVALID", fmt.Errorf("query has %d ns parameters, want one: %w", len(query["ns"]), errdefs.ErrInvalidArgument))
	}
	r.ns, r.last, r.artifactType = query.Get("ns"), query.Get("last"), query.Get("artifactType")
	r.n = -1
	if text := query.Get("n"); text != "" {
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return invalid("PAGINATION_NUMBER_INVALID", fmt.Errorf("query n %.40q: want a number: %w", text, errdefs.ErrInvalidArgument))
		}
		r.n = min(int(n), maxPage)
	}
	return nil
}
