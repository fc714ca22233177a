package remotestest

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// serveTags answers tags/list: in lexical order, after last, at most n, with
// a Link to the next page when there is one.
func (r *Registry) serveTags(w http.ResponseWriter, req *http.Request, to target) {
	var tags []string
	if !r.read(to.repo, func(from *repository) { tags = slices.Sorted(maps.Keys(from.tags)) }) {
		nameUnknown(w, to.repo)
		return
	}
	q := req.URL.Query()
	if last := q.Get("last"); last != "" {
		i, found := slices.BinarySearch(tags, last)
		if found {
			i++
		}
		tags = tags[i:]
	}
	if q.Has("n") {
		n, err := strconv.Atoi(q.Get("n"))
		if err != nil || n < 0 {
			ociError(w, http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", fmt.Sprintf("invalid n %q", q.Get("n")))
			return
		}
		if n < len(tags) {
			tags = tags[:n]
			if n > 0 {
				next := url.URL{Path: req.URL.Path, RawQuery: url.Values{
					"n": {strconv.Itoa(n)}, "last": {tags[n-1]},
				}.Encode()}
				w.Header().Set("Link", fmt.Sprintf("<%s>; rel=\"next\"", next.String()))
			}
		}
	}
	if tags == nil {
		tags = []string{} // "tags" is a list even when empty
	}
	writeJSON(w, "application/json", encode(struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{to.repo, tags}))
}

// serveReferrers answers an index of the manifests whose subject is the
// digest, in digest order; an empty one where there are none, as the spec asks.
func (r *Registry) serveReferrers(w http.ResponseWriter, req *http.Request, to target) {
	if r.set.noReferrers {
		ociError(w, http.StatusNotFound, "UNSUPPORTED", "no such endpoint")
		return
	}
	subject := digest.Digest(to.ref)
	if subject.Validate() != nil {
		ociError(w, http.StatusBadRequest, "DIGEST_INVALID", fmt.Sprintf("invalid digest %q", to.ref))
		return
	}
	artifactType := req.URL.Query().Get("artifactType")
	found := r.referrers(to.repo, subject, artifactType)
	if artifactType != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	writeJSON(w, ocispec.MediaTypeImageIndex, referrersIndex(found))
}

// referrers are the manifests of that artifact type, "" for any, whose subject
// is the digest, in digest order.
func (r *Registry) referrers(repo string, subject digest.Digest, artifactType string) []ocispec.Descriptor {
	found := []ocispec.Descriptor{} // "manifests" is a list even when empty
	r.read(repo, func(from *repository) {
		for _, m := range from.manifests {
			if m.subject == subject && (artifactType == "" || artifactType == m.listed.ArtifactType) {
				found = append(found, m.listed)
			}
		}
	})
	slices.SortFunc(found, func(a, b ocispec.Descriptor) int { return cmp.Compare(a.Digest, b.Digest) })
	return found
}

func referrersIndex(found []ocispec.Descriptor) []byte {
	return encode(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: found,
	})
}
