package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// traffic is what an upstream was asked for.
type traffic struct {
	// Blobs and Others are requests: GETs of blobs, and all else.
	Blobs, Others int
	// Bytes of the bodies of blobs.
	Bytes int64
	// Running answers have not ended although they were waited for.
	Running int
}

func (t traffic) sub(earlier traffic) traffic {
	t.Blobs, t.Others, t.Bytes = t.Blobs-earlier.Blobs, t.Others-earlier.Others, t.Bytes-earlier.Bytes
	return t
}

// upstream is a registry that serves the images of a folder from the page cache, by
// sendfile, and counts what it is asked for. It is part of this program, which has
// nothing else to do while it measures.
type upstream struct {
	images   *images
	listener net.Listener
	http     *http.Server
	served   chan struct{}

	mu    sync.Mutex                  // guards all below
	count traffic                     // Running are those that do now
	first map[digest.Digest]time.Time // when the first bytes of a blob went out
}

func startUpstream(images *images) (*upstream, error) {
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("upstream: %w", err)
	}
	u := &upstream{images: images, listener: ln, served: make(chan struct{}), first: map[digest.Digest]time.Time{}}
	u.http = &http.Server{Handler: u, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	go func() {
		defer close(u.served)
		_ = u.http.Serve(ln) // ends with Close
	}()
	return u, nil
}

// Addr is its host:port, URL its base.
func (u *upstream) Addr() string { return u.listener.Addr().String() }
func (u *upstream) URL() string  { return "http://" + u.Addr() }

// Close ends it and its connections.
func (u *upstream) Close() error {
	err := u.http.Close()
	<-u.served
	return err
}

// traffic is all that it was asked for so far. A client has its answer a little before
// it is counted: answers that run are waited for.
func (u *upstream) traffic() traffic {
	now := func() traffic {
		u.mu.Lock()
		defer u.mu.Unlock()
		return u.count
	}
	ctx, cancel := context.WithTimeout(context.Background(), settleLimit)
	defer cancel()
	_ = poll(ctx, func() bool { return now().Running == 0 }) // if it runs out, Running says so
	return now()
}

// settleLimit is how long an answer of upstream's may go on when who asked for it has
// got what it wanted.
const settleLimit = time.Minute

// firstByte is when the first byte of a blob went out since forget; zero if none did.
func (u *upstream) firstByte(dgst digest.Digest) time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.first[dgst]
}

// forget forgets when first bytes went out.
func (u *upstream) forget() {
	u.mu.Lock()
	defer u.mu.Unlock()
	clear(u.first)
}

// ServeHTTP answers /v2/, manifests and blobs.
func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, ok := strings.CutPrefix(r.URL.Path, "/v2/")
	_, dgst, isBlob := strings.Cut(name, "/blobs/")
	u.mu.Lock()
	if isBlob && r.Method == http.MethodGet {
		u.count.Blobs++
	} else {
		u.count.Others++
	}
	u.count.Running++
	u.mu.Unlock()
	defer func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.count.Running--
	}()
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	switch {
	case ok && name == "":
	case isBlob:
		u.blob(w, r, digest.Digest(dgst))
	default:
		u.manifest(w, r, name)
	}
}

func (u *upstream) manifest(w http.ResponseWriter, r *http.Request, name string) {
	repo, ref, ok := strings.Cut(name, "/manifests/")
	img, known := u.images.byRepo[repo]
	if !ok || !known || !img.named(ref) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"not here"}]}`)
		return
	}
	w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
	w.Header().Set("Docker-Content-Digest", img.manifest.Digest.String())
	u.file(w, r, img.manifest.Digest)
}

func (u *upstream) blob(w http.ResponseWriter, r *http.Request, dgst digest.Digest) {
	if dgst.Validate() != nil || !u.images.has(dgst) {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", dgst.String())
	u.file(&countingWriter{ResponseWriter: w, u: u, dgst: dgst}, r, dgst)
}

func (u *upstream) file(w http.ResponseWriter, r *http.Request, dgst digest.Digest) {
	f, err := os.Open(u.images.path(dgst))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer f.Close()
	w.Header().Set("ETag", `"`+dgst.String()+`"`)
	http.ServeContent(w, r, filepath.Base(f.Name()), time.Time{}, f)
}

// countingWriter counts what goes out of a blob, whichever way.
type countingWriter struct {
	http.ResponseWriter
	u    *upstream
	dgst digest.Digest
}

func (w *countingWriter) Write(b []byte) (int, error) {
	w.begin()
	n, err := w.ResponseWriter.Write(b)
	w.add(int64(n))
	return n, err
}

// ReadFrom leaves it to the kernel. What the client did not take is not counted.
func (w *countingWriter) ReadFrom(r io.Reader) (int64, error) {
	to, ok := w.ResponseWriter.(io.ReaderFrom)
	if !ok {
		return 0, errors.New("upstream: the server's writer has no ReadFrom")
	}
	w.begin()
	n, err := to.ReadFrom(r)
	w.add(n)
	return n, err
}

func (w *countingWriter) begin() {
	w.u.mu.Lock()
	defer w.u.mu.Unlock()
	if w.u.first[w.dgst].IsZero() {
		w.u.first[w.dgst] = time.Now()
	}
}

func (w *countingWriter) add(n int64) {
	w.u.mu.Lock()
	defer w.u.mu.Unlock()
	w.u.count.Bytes += n
}
