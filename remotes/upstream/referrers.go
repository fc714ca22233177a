package upstream

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
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
// A list is a manifest, and is at most MaxManifestSize long, all pages together.
func (c *Client) Referrers(ctx context.Context, repository string, dgst digest.Digest, artifactType string) (descs []ocispec.Descriptor, err error) {
	p := purpose{op: "list referrers", object: repository + "@" + dgst.String(), repository: repository, limit: MaxManifestSize}
	if err := c.checkDigest(p, dgst); err != nil {
		return nil, err
	}
	err = c.exchange(ctx, p, func(ctx context.Context, x *exchange) error {
		fetcher, err := x.resolver.Fetcher(ctx, c.name(repository))
		if err != nil {
			return err
		}
		rf, ok := fetcher.(remotes.ReferrersFetcher)
		if !ok {
			return fmt.Errorf("containerd's fetcher lists no referrers: %w", errdefs.ErrNotImplemented)
		}
		var opts []remotes.FetchReferrersOpt
		if artifactType != "" {
			opts = append(opts, remotes.WithReferrerArtifactTypes(artifactType))
		}
		if descs, err = rf.FetchReferrers(ctx, dgst, opts...); err != nil {
			return err
		}
		if x.refused != nil { // containerd's client makes an empty list of it
			return x.refused
		}
		first, err := json.Marshal(descs)
		if err != nil {
			return err
		}
		x.limit = max(1, x.limit-int64(len(first)))
		more, err := x.moreReferrers(ctx, c.path(repository), dgst, artifactType)
		descs = append(descs, more...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return descs, nil
}

// moreReferrers follows the links to further pages, which containerd's client
// does not. Only a link's query is taken: the place stays the same.
func (x *exchange) moreReferrers(ctx context.Context, path string, dgst digest.Digest, artifactType string) (descs []ocispec.Descriptor, err error) {
	for range maxPages {
		query, more := nextPage(x.link)
		if !more {
			return descs, nil
		}
		resp, err := x.do(ctx, ask{method: http.MethodGet, path: path, what: "referrers/" + dgst.String(), query: query})
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
		var page ocispec.Index
		if err := json.Unmarshal(data, &page); err != nil {
			return nil, fmt.Errorf("decode: %w", err)
		}
		for _, d := range page.Manifests {
			if artifactType == "" || d.ArtifactType == artifactType {
				descs = append(descs, d)
			}
		}
	}
	return nil, fmt.Errorf("list has more than %d pages: %w", maxPages, errdefs.ErrDataLoss)
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
