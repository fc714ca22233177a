package mirror

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func (s *Server) serveTags(ctx context.Context, w http.ResponseWriter, r *http.Request, repo remotes.Repository, req request) error {
	n := max(req.n, 0) // 0 asks for all
	if req.n == 0 {
		n = 1 // an empty page is asked for; whether there are tags decides between it and 404
	}
	list, err := s.registry.Tags(ctx, repo, n, req.last)
	if err != nil {
		return err
	}
	if req.n == 0 {
		list.Tags, list.More = nil, false
	}
	w.Header().Set(CacheHeader, string(list.Outcome))
	if list.More && len(list.Tags) > 0 {
		query := url.Values{"last": {list.Tags[len(list.Tags)-1]}}
		if req.n > 0 {
			query.Set("n", strconv.Itoa(req.n))
		}
		if req.ns != "" {
			query.Set("ns", req.ns)
		}
		next := url.URL{Path: "/v2/" + req.name + "/tags/list", RawQuery: query.Encode()}
		w.Header().Set("Link", "<"+next.String()+`>; rel="next"`)
	}
	if list.Tags == nil {
		list.Tags = []string{}
	}
	return writeJSON(w, r, "application/json", struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{req.name, list.Tags})
}

func (s *Server) serveReferrers(ctx context.Context, w http.ResponseWriter, r *http.Request, repo remotes.Repository, req request) error {
	dgst, err := digest.Parse(req.object)
	if err != nil {
		return invalid("DIGEST_INVALID", fmt.Errorf("digest %.100q: %w", req.object, err))
	}
	list, err := s.registry.Referrers(ctx, repo, dgst, req.artifactType)
	if errdefs.IsNotFound(err) {
		list, err = remotes.ReferrerList{Outcome: remotes.Miss}, nil // the specification: an empty list, never 404
	}
	if err != nil {
		return err
	}
	if list.Manifests == nil {
		list.Manifests = []ocispec.Descriptor{}
	}
	if list.Problem != nil {
		s.options.Logger.WarnContext(ctx, "serving stale referrers", "repository", repo.String(), "digest", dgst, "err", list.Problem)
	}
	if req.artifactType != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	w.Header().Set(CacheHeader, string(list.Outcome))
	return writeJSON(w, r, ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: list.Manifests,
	})
}

func writeJSON(w http.ResponseWriter, r *http.Request, mediaType string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method == http.MethodHead {
		return nil
	}
	_, err = w.Write(body)
	return err
}
