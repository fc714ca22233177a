package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache/descriptors"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxPages bounds a list that goes on and on.
const maxPages = 16

// Referrers lists the manifests that name dgst as their subject, of one
// artifact type or of any (""), all pages of them. Registries without the
// referrers endpoint are asked by the tag schema of the distribution
// specification; if they have nothing under that tag either, the error is
// errdefs.ErrNotFound: that may be an empty list, or a repository that is gone.
// A list is a manifest, and is at most MaxManifestSize long, all pages together;
// one of them has at most descriptors.Max entries.
func (c *Client) Referrers(ctx context.Context, repository string, dgst digest.Digest, artifactType string) (descs []ocispec.Descriptor, err error) {
	p := purpose{
		op: "list referrers", object: repository + "@" + dgst.String(), repository: repository,
		accept: ocispec.MediaTypeImageIndex + ", */*", limit: MaxManifestSize,
	}
	if err := c.checkDigest(p, dgst); err != nil {
		return nil, err
	}
	err = c.exchange(ctx, p, func(ctx context.Context, x *exchange) (err error) {
		descs, err = x.referrers(ctx, c.path(repository), dgst, artifactType)
		return err
	})
	if err != nil {
		return nil, err
	}
	return descs, nil
}

// referrers asks for all pages without containerd's client: that one follows no
// links, takes a refusal for an empty list, and decodes any number of entries.
// Only a link's query is taken: the place stays the same.
func (x *exchange) referrers(ctx context.Context, path string, dgst digest.Digest, artifactType string) (descs []ocispec.Descriptor, err error) {
	a := ask{method: http.MethodGet, path: path, what: "referrers/" + dgst.String()}
	if artifactType != "" {
		a.query = url.Values{"artifactType": {artifactType}}
	}
	page, err := x.firstReferrers(ctx, a, dgst)
	for n := 1; err == nil; n++ {
		for _, d := range page {
			if artifactType == "" || d.ArtifactType == artifactType {
				descs = append(descs, d)
			}
		}
		query, more := nextPage(x.link)
		if !more {
			return descs, nil
		}
		if n == maxPages {
			return nil, fmt.Errorf("list has more than %d pages: %w", maxPages, errdefs.ErrDataLoss)
		}
		a.query = query
		page, err = x.referrersPage(ctx, a)
	}
	return nil, err
}

// firstReferrers asks by the tag schema where the endpoint is refused, however
// that is said.
func (x *exchange) firstReferrers(ctx context.Context, a ask, dgst digest.Digest) (descriptors.List, error) {
	page, err := x.referrersPage(ctx, a)
	if se, ok := errors.AsType[*statusError](err); !ok || !se.isRefusal() {
		return page, err
	}
	a.what, a.query = "manifests/"+strings.Replace(dgst.String(), ":", "-", 1), nil
	page, terr := x.referrersPage(ctx, a)
	if terr != nil && !errdefs.IsNotFound(terr) && !errdefs.IsNotFound(err) {
		return nil, err // why the endpoint is refused tells more
	}
	return page, terr
}

// referrersPage decodes one page, within bounds.
func (x *exchange) referrersPage(ctx context.Context, a ask) (descriptors.List, error) {
	resp, err := x.do(ctx, a)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close() // it was read
	if err != nil {
		return nil, err
	}
	// What is left for the next one; 0 would be no bound.
	x.limit = max(1, x.limit-int64(len(data)))
	var page struct {
		Manifests descriptors.List `json:"manifests"`
	}
	if err := json.Unmarshal(data, &page); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	return page.Manifests, nil
}

// nextLink matches a Link to the next page.
var nextLink = regexp.MustCompile(`^\s*<([^>]*)>\s*;\s*rel="?next"?`)

// nextPage reads a Link header (RFC 8288) as the distribution specification
// has it: <URL>; rel="next".
func nextPage(link string) (query url.Values, more bool) {
	m := nextLink.FindStringSubmatch(link)
	if m == nil {
		return nil, false
	}
	u, err := url.Parse(m[1])
	if err != nil {
		return nil, false
	}
	return u.Query(), true
}
