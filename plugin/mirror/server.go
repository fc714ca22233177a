package mirror

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Headers of larder's own.
const (
	// SecretHeader carries the node secret from containerd (hosts.toml).
	SecretHeader = "X-Larder-Secret"
	// CacheHeader carries a remotes.Outcome.
	CacheHeader = "X-Larder-Cache"
)

// Registry is what the mirror serves. remotes.Registry is one.
type Registry interface {
	Resolve(ctx context.Context, ref remotes.Reference) (remotes.Resolved, error)
	Manifest(ctx context.Context, ref remotes.Reference) (remotes.Manifest, error)
	Blob(arrive, reader context.Context, repo remotes.Repository, dgst digest.Digest) (*remotes.Blob, error)
	Tags(ctx context.Context, repo remotes.Repository, n int, last string) (remotes.TagList, error)
	Referrers(ctx context.Context, repo remotes.Repository, dgst digest.Digest, artifactType string) ([]ocispec.Descriptor, error)
}

// Options of a Server.
type Options struct {
	// Map turns a name as asked into a repository; remotes.Names.Map.
	Map func(ns, path string) (remotes.Repository, error)
	// Secret is what clients must send in SecretHeader; empty: nothing.
	Secret string
	// Wait is how long a client waits for upstream before it is refused.
	// containerd gives up after 30 s; design asks for less than 5.
	Wait time.Duration
	// Logger gets one line for each request.
	Logger *slog.Logger
}

// Server is the mirror's http.Handler.
type Server struct {
	registry Registry
	options  Options
}

// New makes a Server.
func New(registry Registry, options Options) *Server {
	return &Server{registry: registry, options: options}
}

// ServeHTTP answers one request and logs it.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	rec := &recorder{ResponseWriter: w}
	req, err := s.serve(rec, r)
	if err != nil && !rec.wroteHeader {
		refuse(req, err).write(rec)
	}
	s.log(r, req, rec, err, time.Since(start))
	if err != nil && rec.status < 400 {
		// Behind a good status, cutting the connection is the only way left
		// to tell the client.
		panic(http.ErrAbortHandler)
	}
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) (request, error) {
	h := w.Header()
	h.Set("Docker-Distribution-Api-Version", "registry/2.0")
	h.Set("X-Content-Type-Options", "nosniff")
	if !s.knowsSecret(r) {
		return request{}, fmt.Errorf("header %s is missing or wrong: %w", SecretHeader, errdefs.ErrPermissionDenied)
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		refusal{status: http.StatusMethodNotAllowed, code: "UNSUPPORTED", message: "larder is read-only"}.write(w)
		return request{}, nil
	}
	req, err := parseRequest(r.URL)
	if err != nil {
		return req, err
	}
	if req.kind == kindPing {
		h.Set("Content-Type", "application/json")
		_, err := io.WriteString(w, "{}")
		return req, err
	}
	repo, err := s.options.Map(req.ns, req.name)
	if err != nil {
		return req, err
	}
	if req.ns != "" {
		h.Set("OCI-Namespace", repo.Host)
	}
	switch req.kind {
	case kindManifest:
		return req, s.serveManifest(w, r, repo, req)
	case kindBlob:
		return req, s.serveBlob(w, r, repo, req)
	case kindTags:
		return req, s.serveTags(w, r, repo, req)
	default:
		return req, s.serveReferrers(w, r, repo, req)
	}
}

// knowsSecret compares hashes, so that neither content nor length of the
// secret shows in the time it takes.
func (s *Server) knowsSecret(r *http.Request) bool {
	if s.options.Secret == "" {
		return true
	}
	got, want := sha256.Sum256([]byte(r.Header.Get(SecretHeader))), sha256.Sum256([]byte(s.options.Secret))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// arriving bounds the wait for upstream.
func (s *Server) arriving(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(r.Context(), s.options.Wait,
		fmt.Errorf("upstream has not answered in %s: %w", s.options.Wait, context.DeadlineExceeded))
}

func (s *Server) serveManifest(w http.ResponseWriter, r *http.Request, repo remotes.Repository, req request) error {
	ref, err := repo.WithObject(req.object)
	if err != nil {
		return err
	}
	ctx, cancel := s.arriving(r)
	defer cancel()
	var m remotes.Manifest
	if r.Method == http.MethodHead {
		m.Resolved, err = s.registry.Resolve(ctx, ref)
	} else {
		m, err = s.registry.Manifest(ctx, ref)
	}
	if err != nil {
		return err
	}
	describe(w, m.Descriptor, m.Outcome)
	if m.Problem != nil {
		s.options.Logger.WarnContext(ctx, "serving a stale tag", "ref", ref.String(), "digest", m.Descriptor.Digest, "err", m.Problem)
	}
	// For HEAD only the size counts: nothing is read from the nil reader.
	content := io.NewSectionReader(bytesAt(m.Data), 0, m.Descriptor.Size)
	http.ServeContent(w, r, "", time.Time{}, content)
	return nil
}

// describe sets the headers that containerd needs, or it asks once more.
func describe(w http.ResponseWriter, desc ocispec.Descriptor, outcome remotes.Outcome) {
	h := w.Header()
	h.Set("Content-Type", desc.MediaType)
	h.Set("Docker-Content-Digest", desc.Digest.String())
	h.Set("ETag", `"`+desc.Digest.String()+`"`)
	h.Set(CacheHeader, string(outcome))
}

func (s *Server) serveBlob(w http.ResponseWriter, r *http.Request, repo remotes.Repository, req request) error {
	dgst, err := digest.Parse(req.object)
	if err != nil {
		return fmt.Errorf("digest %.100q: %w: %w", req.object, err, errdefs.ErrInvalidArgument)
	}
	ctx, cancel := s.arriving(r)
	defer cancel()
	blob, err := s.registry.Blob(ctx, r.Context(), repo, dgst)
	if err != nil {
		return err
	}
	defer blob.Close()
	describe(w, ocispec.Descriptor{MediaType: "application/octet-stream", Digest: dgst}, blob.Outcome)
	body := &failureReader{ReadSeeker: blob}
	if blob.Size >= 0 {
		http.ServeContent(w, r, "", time.Time{}, body)
		return body.err
	}
	// Upstream did not tell the size: no Content-Length, no ranges.
	if r.Method == http.MethodHead {
		return nil
	}
	if _, err := io.Copy(w, body); err != nil {
		return errors.Join(body.err, err)
	}
	return nil
}

// failureReader remembers why reading failed: http.ServeContent does not say.
type failureReader struct {
	io.ReadSeeker
	err error
}

func (f *failureReader) Read(p []byte) (int, error) {
	n, err := f.ReadSeeker.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
	return n, err
}

// bytesAt is a byte slice as io.ReaderAt.
type bytesAt []byte

func (b bytesAt) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= int64(len(b)) {
		return 0, io.EOF
	}
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
