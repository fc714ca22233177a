package mirror

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes"
	"github.com/opencontainers/go-digest"
)

// Headers of larder's own.
const (
	// SecretHeader carries the node secret from containerd (hosts.toml).
	SecretHeader = "X-Larder-Secret"
	// CacheHeader carries a remotes.Outcome.
	CacheHeader = "X-Larder-Cache"
)

// apiVersion is by which clients know a registry of this API.
const apiVersion = "registry/2.0"

// Registry is what the mirror serves. remotes.Registry is one.
type Registry interface {
	Admitter
	Resolve(ctx context.Context, ref remotes.Reference) (remotes.Resolved, error)
	Manifest(ctx context.Context, ref remotes.Reference) (remotes.Manifest, error)
	Ready(ctx context.Context, ref remotes.Reference, withData bool) (m remotes.Manifest, ok bool)
	Blob(arrive, reader context.Context, repo remotes.Repository, dgst digest.Digest) (*remotes.Blob, error)
	Tags(ctx context.Context, repo remotes.Repository, n int, last string) (remotes.TagList, error)
	Referrers(ctx context.Context, repo remotes.Repository, dgst digest.Digest, artifactType string) (remotes.ReferrerList, error)
}

var _ Registry = (*remotes.Registry)(nil)

// Seeder is told which manifest containerd is about to be told of. seed.Seeder is
// one.
type Seeder interface {
	// Seed may give containerd the image in some shorter way, and returns soon.
	Seed(ctx context.Context, repo remotes.Repository, manifest digest.Digest)
}

// Prefetcher is told which manifest a client is about to be given. remotes.Registry
// is one.
type Prefetcher interface {
	// ExpectPull may have the image's other blobs brought when the client asks for
	// the first one. It returns at once. A client that reads the store itself may be
	// given a manifest without its Data.
	ExpectPull(repo remotes.Repository, m remotes.Manifest)
}

var _ Prefetcher = (*remotes.Registry)(nil)

// Options of a Server.
type Options struct {
	// Map turns a name as asked into a repository; remotes.Names.Map.
	Map func(ns, path string) (remotes.Repository, error)
	// Secret is what clients must send in SecretHeader; empty: nothing.
	Secret string
	// ID is upstream.Pool.ID, by which larder knows its own requests (in Via)
	// and refuses them: an upstream leads back to it. Empty: not checked.
	ID string
	// Wait is how long a client waits for upstream before it is refused.
	// containerd gives up after 30 s; stay well below.
	Wait time.Duration
	// MaxOpen is how many stored blobs are sent at a time, each with a file
	// descriptor of its own. More wait for a place, up to Wait. 0: any number.
	MaxOpen int
	// Seeder is told of stored manifests before they are answered to a containerd
	// on this machine. Nil: nobody is.
	Seeder Seeder
	// Prefetcher is told of manifests that are asked for by GET: by HEAD one only
	// finds out what a tag is. Nil: nobody is.
	Prefetcher Prefetcher
	// SharedStore says that the clients read the same store, and ask by GET for nothing
	// that is there: a HEAD tells them all of a manifest. The Prefetcher hears of both.
	SharedStore bool
	// Logger gets one line for each request.
	Logger *slog.Logger
}

// Server is the mirror's http.Handler.
type Server struct {
	registry Registry
	options  Options
	secret   [sha256.Size]byte // of Options.Secret, the hash
	targets  targets
	buffers  buffers
	places   chan struct{} // has a value for each stored blob that is sent; nil: no bound
}

// New makes a Server.
func New(registry Registry, options Options) *Server {
	s := &Server{registry: registry, options: options, secret: sha256.Sum256([]byte(options.Secret)), targets: newTargets()}
	if options.MaxOpen > 0 {
		s.places = make(chan struct{}, options.MaxOpen)
	}
	return s
}

// ServeHTTP answers one request and logs it.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	rec := &recorder{ResponseWriter: w, head: r.Method == http.MethodHead, buffers: &s.buffers}
	req, err := s.serve(rec, r)
	if err == nil {
		err = rec.checkWhole()
	}
	if err != nil && !rec.wroteHeader {
		refuse(req, err).write(rec)
	}
	level, entry := entryOf(r, req, rec, err, time.Since(start))
	s.log(r.Context(), level, entry)
	if err != nil && rec.status < 400 {
		// Behind a good status, cutting the connection is the only way left
		// to tell the client.
		panic(http.ErrAbortHandler)
	}
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) (request, error) {
	h := w.Header()
	always := []string{apiVersion, "nosniff"}
	h["Docker-Distribution-Api-Version"], h["X-Content-Type-Options"] = always[:1:1], always[1:]
	if isOver(r.Context()) {
		h.Set("Connection", "close")
		return request{}, &mistake{status: http.StatusServiceUnavailable, code: "UNAVAILABLE",
			message: "larder has as many connections as it can serve", err: errBusy}
	}
	if err := s.admit(r); err != nil {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
		}
		return request{}, err
	}
	if via := r.Header.Values("Via"); len(via) > 0 {
		r = r.WithContext(remotes.WithVia(r.Context(), via))
	}
	t, err := s.locate(r.URL)
	req, repo := t.request, t.repo
	if err != nil {
		return req, err
	}
	if req.kind == kindPing {
		return req, writeJSON(w, r, "application/json", struct{}{})
	}
	if req.ns != "" {
		h["Oci-Namespace"] = []string{repo.Host}
	}
	if req.kind == kindManifest && s.serveReady(w, r, t) {
		return req, nil
	}
	arriving, cancel := s.arriving(r)
	defer cancel()
	ctx, err := s.identify(arriving, r, repo, req)
	if err != nil {
		return req, err
	}
	switch req.kind {
	case kindManifest:
		return req, s.serveManifest(ctx, w, r, t)
	case kindBlob:
		return req, s.serveBlob(ctx, w, r, repo, req)
	case kindTags:
		return req, s.serveTags(ctx, w, r, repo, req)
	default:
		return req, s.serveReferrers(ctx, w, r, repo, req)
	}
}

var errBusy = fmt.Errorf("too many clients at once: %w", errdefs.ErrUnavailable)

// admit says who may ask, and how, before anything is looked at.
func (s *Server) admit(r *http.Request) error {
	switch {
	case !s.isSecret(r.Header.Get(SecretHeader)):
		return &mistake{status: http.StatusForbidden, code: "DENIED",
			message: "the node secret is missing or wrong; \"larder setup containerd\" writes it to containerd's hosts.toml",
			err:     fmt.Errorf("header %s: %w", SecretHeader, errdefs.ErrPermissionDenied)}
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return &mistake{status: http.StatusMethodNotAllowed, code: "UNSUPPORTED", message: "larder is read-only",
			err: fmt.Errorf("method %.20q: %w", r.Method, errdefs.ErrNotImplemented)}
	case s.isOwn(r.Header.Values("Via")):
		return &mistake{status: http.StatusLoopDetected, code: "UNSUPPORTED",
			message: "an upstream of larder leads back to larder: see [[routes]] and [[rules]]",
			err:     fmt.Errorf("request came from %s: %w", s.options.ID, errdefs.ErrFailedPrecondition)}
	}
	return nil
}

// isOwn looks for larder itself among those who passed a request on.
func (s *Server) isOwn(via []string) bool {
	if s.options.ID == "" || len(via) == 0 {
		return false
	}
	for _, hop := range strings.Split(strings.Join(via, ","), ",") {
		// Protocol version, name, and perhaps a comment (RFC 9110, 7.6.3).
		if fields := strings.Fields(hop); len(fields) > 1 && fields[1] == s.options.ID {
			return true
		}
	}
	return false
}

// isSecret compares hashes, so that neither content nor length of the
// secret shows in the time it takes.
func (s *Server) isSecret(text string) bool {
	if s.options.Secret == "" {
		return true
	}
	got := sha256.Sum256([]byte(text))
	return subtle.ConstantTimeCompare(got[:], s.secret[:]) == 1
}

// arriving bounds the wait for upstream, and for being admitted.
func (s *Server) arriving(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(r.Context(), s.options.Wait,
		fmt.Errorf("upstream has not answered in %s: %w", s.options.Wait, context.DeadlineExceeded))
}
