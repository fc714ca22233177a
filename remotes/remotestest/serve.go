package remotestest

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// kind is the endpoint that a path names.
type kind int

const (
	kindOther kind = iota
	kindBase       // /v2/
	kindToken      // /token
	kindManifest
	kindBlob
	kindTags
	kindReferrers
)

// target is a request path taken apart.
type target struct {
	kind kind
	repo string
	ref  string // tag or digest
}

// parse takes a path apart. Names are not checked: a test may ask for any.
func parse(path string) target {
	switch path {
	case "/token":
		return target{kind: kindToken}
	case "/v2", "/v2/":
		return target{kind: kindBase}
	}
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return target{}
	}
	if repo, ok := strings.CutSuffix(rest, "/tags/list"); ok {
		return target{kind: kindTags, repo: repo}
	}
	i := strings.LastIndexByte(rest, '/')
	if i < 0 {
		return target{}
	}
	dir, ref := rest[:i], rest[i+1:]
	for suffix, k := range map[string]kind{
		"/manifests": kindManifest, "/blobs": kindBlob, "/referrers": kindReferrers,
	} {
		if repo, ok := strings.CutSuffix(dir, suffix); ok {
			return target{kind: k, repo: repo, ref: ref}
		}
	}
	return target{}
}

// serve answers from the content, as a registry without faults does.
func (r *Registry) serve(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	to := parse(req.URL.Path)
	identity := r.set.users && to.kind == kindToken && req.Method == http.MethodPost
	if req.Method != http.MethodGet && req.Method != http.MethodHead && !identity {
		w.Header().Set("Allow", "GET, HEAD")
		ociError(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "the operation is unsupported")
		return
	}
	switch to.kind {
	case kindBase:
		writeJSON(w, "application/json", []byte("{}"))
	case kindToken:
		r.serveToken(w, req)
	case kindManifest:
		r.serveManifest(w, req, to)
	case kindBlob:
		r.serveBlob(w, req, to)
	case kindTags:
		r.serveTags(w, req, to)
	case kindReferrers:
		r.serveReferrers(w, req, to)
	default:
		ociError(w, http.StatusNotFound, "UNSUPPORTED", "no such endpoint")
	}
}

func (r *Registry) serveManifest(w http.ResponseWriter, req *http.Request, to target) {
	var (
		m    manifest
		dgst digest.Digest
		have bool
	)
	known := r.read(to.repo, func(from *repository) {
		if dgst, have = from.tags[to.ref]; !have {
			dgst = digest.Digest(to.ref)
		}
		m, have = from.manifests[dgst]
	})
	switch {
	case strings.Contains(to.ref, ":") && digest.Digest(to.ref).Validate() != nil:
		ociError(w, http.StatusBadRequest, "DIGEST_INVALID", fmt.Sprintf("invalid digest %q", to.ref))
	case !known:
		nameUnknown(w, to.repo)
	case !have:
		ociError(w, http.StatusNotFound, "MANIFEST_UNKNOWN", fmt.Sprintf("manifest %q unknown", to.ref))
	default:
		r.serveBytes(w, req, m.mediaType, dgst, m.data)
	}
}

func (r *Registry) serveBlob(w http.ResponseWriter, req *http.Request, to target) {
	var (
		b    []byte
		have bool
		dgst = digest.Digest(to.ref)
	)
	known := r.read(to.repo, func(from *repository) { b, have = from.blobs[dgst] })
	switch {
	case dgst.Validate() != nil:
		ociError(w, http.StatusBadRequest, "DIGEST_INVALID", fmt.Sprintf("invalid digest %q", to.ref))
	case !known:
		nameUnknown(w, to.repo)
	case !have:
		ociError(w, http.StatusNotFound, "BLOB_UNKNOWN", fmt.Sprintf("blob %q unknown", to.ref))
	default:
		r.serveBytes(w, req, "application/octet-stream", dgst, b)
	}
}

// serveBytes answers with b, or with the part of it that Range asks for.
func (r *Registry) serveBytes(w http.ResponseWriter, req *http.Request, mediaType string, dgst digest.Digest, b []byte) {
	h := w.Header()
	h.Set("Content-Type", mediaType)
	if !r.set.noDigestHeader {
		h.Set("Docker-Content-Digest", dgst.String())
		h.Set("ETag", strconv.Quote(dgst.String()))
	}
	if !r.set.noRange {
		http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(b))
		return
	}
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(http.StatusOK)
	if req.Method != http.MethodHead {
		_, _ = w.Write(b) // the client is gone; the journal tells how far it got
	}
}

// read runs f on the repository under the lock; false if there is none.
func (r *Registry) read(repo string, f func(*repository)) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	rp, ok := r.repos[repo]
	if ok {
		f(rp)
	}
	return ok
}

func nameUnknown(w http.ResponseWriter, repo string) {
	ociError(w, http.StatusNotFound, "NAME_UNKNOWN", fmt.Sprintf("repository %q unknown", repo))
}

// ociError answers with an error body of the distribution spec.
func ociError(w http.ResponseWriter, status int, code, message string) {
	body := errorBody(code, message)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client is gone; the journal tells how far it got
}

// errorBody is the JSON of the distribution spec for one error.
func errorBody(code, message string) []byte {
	type entry struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	return encode(map[string][]entry{"errors": {{Code: code, Message: message}}})
}

// writeJSON answers 200 with b.
func writeJSON(w http.ResponseWriter, mediaType string, b []byte) {
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(b) // the client is gone; the journal tells how far it got
}
