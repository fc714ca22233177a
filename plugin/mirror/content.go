package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/larder-project/larder/remotes"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// serveReady answers with a manifest that is at hand, for which nothing has to be
// waited or read, and reports whether it was. It is what clients ask for most.
func (s *Server) serveReady(w http.ResponseWriter, r *http.Request, t *target) bool {
	if t.refErr != nil || s.registry.IsPrivate(t.repo) || isConditional(r.Header) {
		return false
	}
	m, ok := s.registry.Ready(r.Context(), t.ref, r.Method == http.MethodGet)
	if !ok {
		return false
	}
	if s.options.Seeder != nil {
		ctx, cancel := s.arriving(r)
		defer cancel()
		s.seed(ctx, r, t.repo, m)
	}
	s.expect(r.Method, t.repo, m)
	sendManifest(w, r, m)
	return true
}

// sendManifest sends what is asked for of a manifest: mostly the whole, for which
// http.ServeContent makes much ado.
func sendManifest(w http.ResponseWriter, r *http.Request, m remotes.Manifest) {
	describe(w, m.Descriptor, m.Outcome)
	if isConditional(r.Header) {
		// For HEAD only the size counts: nothing is read from the nil reader.
		http.ServeContent(w, withoutOddRange(r), "", time.Time{}, io.NewSectionReader(bytesAt(m.Data), 0, m.Descriptor.Size))
		return
	}
	// No Accept-Ranges: a map of nine keys costs twice as much as one of eight.
	w.Header()["Content-Length"] = []string{strconv.FormatInt(m.Descriptor.Size, 10)}
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodGet {
		_, _ = w.Write(m.Data) // see recorder.checkWhole
	}
}

// isConditional reports whether less than the whole may be asked for.
func isConditional(h http.Header) bool {
	for _, key := range [...]string{"Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"} {
		if _, ok := h[key]; ok {
			return true
		}
	}
	return false
}

// seed tells the Seeder of a stored manifest.
func (s *Server) seed(ctx context.Context, r *http.Request, repo remotes.Repository, m remotes.Manifest) {
	if s.options.Seeder != nil && m.Unstored == nil && isOwnContainerd(r) {
		s.options.Seeder.Seed(ctx, repo, m.Descriptor.Digest)
	}
}

// expect tells the Prefetcher of a manifest that a client has as a whole now.
func (s *Server) expect(method string, repo remotes.Repository, m remotes.Manifest) {
	if s.options.Prefetcher != nil && (method == http.MethodGet || s.options.SharedStore) {
		s.options.Prefetcher.ExpectPull(repo, m)
	}
}

func (s *Server) serveManifest(ctx context.Context, w http.ResponseWriter, r *http.Request, t *target) error {
	if t.refErr != nil {
		return invalid(objectCode(t.object), t.refErr)
	}
	ref := t.ref
	var m remotes.Manifest
	var err error
	if r.Method == http.MethodHead {
		m.Resolved, err = s.registry.Resolve(ctx, ref)
	} else {
		m, err = s.registry.Manifest(ctx, ref)
	}
	if err != nil {
		return err
	}
	s.seed(ctx, r, t.repo, m)
	s.expect(r.Method, t.repo, m)
	if m.Problem != nil {
		s.options.Logger.WarnContext(ctx, "serving a stale tag", "ref", ref.String(), "digest", m.Descriptor.Digest, "err", m.Problem)
	}
	sendManifest(w, r, m)
	return nil
}

// isOwnContainerd tells containerd on this machine from whoever else asks, and does
// not pull into its content: another program, or another node.
func isOwnContainerd(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	return err == nil && net.ParseIP(host).IsLoopback() && isContainerd(r.UserAgent())
}

// describe sets the headers that containerd needs, or it asks once more.
func describe(w http.ResponseWriter, desc ocispec.Descriptor, outcome remotes.Outcome) {
	h := w.Header()
	// One allocation for all, and keys in their canonical form.
	values := []string{desc.MediaType, desc.Digest.String(), `"` + desc.Digest.String() + `"`, string(outcome)}
	for i, key := range [...]string{"Content-Type", "Docker-Content-Digest", "Etag", CacheHeader} {
		h[key] = values[i : i+1 : i+1]
	}
}

func (s *Server) serveBlob(ctx context.Context, w http.ResponseWriter, r *http.Request, repo remotes.Repository, req request) error {
	dgst, err := digest.Parse(req.object)
	if err != nil {
		return invalid("DIGEST_INVALID", fmt.Errorf("digest %.100q: %w", req.object, err))
	}
	blob, leave, err := s.openBlob(ctx, r, repo, dgst)
	if err != nil {
		return err
	}
	defer leave()
	defer blob.Close()
	describe(w, ocispec.Descriptor{MediaType: "application/octet-stream", Digest: dgst}, blob.Outcome)
	r = withoutOddRange(r)
	if blob.Outcome == remotes.Hit {
		// If reading fails, the store hears of it from the blob itself, and too
		// little was sent: see recorder.checkWhole. containerd asks again for the
		// rest.
		http.ServeContent(w, r, "", time.Time{}, blob.ReadSeekCloser)
		return nil
	}
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

// openBlob opens a blob, a stored one when there is a place for it. leave gives
// the place back. A place is not taken while upstream is waited for: one that is
// slow would keep all others from what is stored.
func (s *Server) openBlob(ctx context.Context, r *http.Request, repo remotes.Repository, dgst digest.Digest) (_ *remotes.Blob, leave func(), _ error) {
	blob, err := s.registry.Blob(ctx, r.Context(), repo, dgst)
	if err != nil || blob.Outcome != remotes.Hit || s.places == nil {
		return blob, func() {}, err
	}
	leave = func() { <-s.places }
	select {
	case s.places <- struct{}{}:
		return blob, leave, nil
	default:
	}
	if err := blob.Close(); err != nil { // what waits holds no file
		return nil, nil, err
	}
	select {
	case s.places <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, &mistake{status: http.StatusServiceUnavailable, code: "UNAVAILABLE",
			message: "larder is sending as many blobs as it can", err: errBusy}
	}
	if blob, err = s.registry.Blob(ctx, r.Context(), repo, dgst); err != nil {
		leave()
		return nil, nil, err
	}
	return blob, leave, nil
}

// withoutOddRange drops a Range that http.ServeContent does not do well, so that
// the whole is sent: a server may ignore any Range (RFC 9110, 14.2). Several
// ranges at once would be read by a goroutine that may outlive the request; and
// for no bytes at all ("bytes=-0") the answer would be a malformed 206.
func withoutOddRange(r *http.Request) *http.Request {
	text := r.Header.Get("Range")
	suffix, isSuffix := strings.CutPrefix(strings.TrimSpace(strings.TrimPrefix(text, "bytes=")), "-")
	isEmpty := isSuffix && strings.Trim(suffix, "0 \t") == ""
	if !strings.Contains(text, ",") && !isEmpty {
		return r
	}
	r = r.Clone(r.Context())
	r.Header.Del("Range")
	return r
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
