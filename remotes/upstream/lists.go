package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Tags lists tags of a repository as upstream orders them: at most n (0: as
// many as upstream likes), after the tag last ("": from the start). more
// reports that upstream has further ones.
func (c *Client) Tags(ctx context.Context, repository string, n int, last string) (tags []string, more bool, err error) {
	err = c.exchange(ctx, "list tags", repository, func(ctx context.Context, x *exchange) error {
		query := url.Values{}
		if n > 0 {
			query.Set("n", strconv.Itoa(n))
		}
		if last != "" {
			query.Set("last", last)
		}
		resp, err := x.get(ctx, c, repository, "tags/list", query)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		var list struct {
			Tags []string `json:"tags"`
		}
		if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
			return fmt.Errorf("decode: %w: %w", err, errdefs.ErrDataLoss)
		}
		tags, more = list.Tags, resp.Header.Get("Link") != ""
		return nil
	})
	return tags, more, err
}

// Referrers lists the manifests that name dgst as their subject, of one
// artifact type or of any (""). Registries without the referrers endpoint are
// asked by the tag schema of the distribution specification.
func (c *Client) Referrers(ctx context.Context, repository string, dgst digest.Digest, artifactType string) (descs []ocispec.Descriptor, err error) {
	err = c.exchange(ctx, "list referrers", repository+"@"+dgst.String(), func(ctx context.Context, x *exchange) error {
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
		descs, err = rf.FetchReferrers(ctx, dgst, opts...)
		return err
	})
	return descs, err
}

// get asks for what containerd's client has no call for, with its tokens.
func (x *exchange) get(ctx context.Context, c *Client, repository, what string, query url.Values) (*http.Response, error) {
	if c.endpoint.Prefix != "" {
		repository = c.endpoint.Prefix + "/" + repository
	}
	u := url.URL{Scheme: x.host.Scheme, Host: x.host.Host, Path: x.host.Path + "/" + repository + "/" + what, RawQuery: query.Encode()}
	ctx = docker.WithScope(ctx, "repository:"+repository+":pull")
	for challenged := false; ; challenged = true {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return nil, err
		}
		if err := x.host.Authorizer.Authorize(ctx, req); err != nil {
			return nil, err
		}
		resp, err := x.host.Client.Do(req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusUnauthorized {
			return resp, nil
		}
		_, cerr := io.Copy(io.Discard, resp.Body)
		cerr = errors.Join(cerr, resp.Body.Close())
		if challenged {
			return nil, errors.Join(&statusError{status: resp.StatusCode}, cerr)
		}
		if err := x.host.Authorizer.AddResponses(ctx, []*http.Response{resp}); err != nil {
			return nil, errors.Join(&statusError{status: resp.StatusCode}, err, cerr)
		}
	}
}
