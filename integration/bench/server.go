package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-project/larder/integration/internal/parts"
)

const (
	// startLimit and stopLimit bound the waits for a program.
	startLimit = 60 * time.Second
	stopLimit  = 30 * time.Second
	// answerLimit bounds the wait for one answer of a server that has all it needs.
	answerLimit = 5 * time.Minute
)

// acceptManifest is what is asked for by who wants a manifest.
const acceptManifest = ocispec.MediaTypeImageManifest + ", " + ocispec.MediaTypeImageIndex

// server is a contestant that runs.
type server struct {
	who   string
	addr  string // host:port
	proc  *parts.Process
	close func() error
	// files says that it is asked for files of a store, and not for blobs of a
	// registry.
	files bool
	// root of its store; "" if it has none.
	root string
	// socket of its proxy plugins for containerd; "" if it has none.
	socket string
	// again starts it once more, when it was closed, with the store that it had.
	again func(ctx context.Context) error
}

func (s *server) blobPath(img *image, dgst digest.Digest) string {
	if s.files {
		return "/" + dgst.Algorithm().String() + "/" + dgst.Encoded()
	}
	return "/v2/" + img.repo + "/blobs/" + dgst.String() + "?ns=docker.io"
}

func (s *server) manifestPath(img *image, ref string) string {
	if s.files {
		return s.blobPath(img, img.manifest.Digest)
	}
	return "/v2/" + img.repo + "/manifests/" + ref + "?ns=docker.io"
}

// fetchWhole asks for path and hashes the answer.
func (s *server) fetchWhole(ctx context.Context, path string, want ocispec.Descriptor) error {
	return s.fetchBy(ctx, &http.Transport{DisableKeepAlives: true, DisableCompression: true}, path, want)
}

// fetchBy does it over a transport's connections.
func (s *server) fetchBy(ctx context.Context, transport *http.Transport, path string, want ocispec.Descriptor) error {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", acceptManifest+", */*")
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("%s: %w", s.who, err)
	}
	defer resp.Body.Close()
	hash := sha256.New()
	n, err := io.CopyBuffer(hash, struct{ io.Reader }{resp.Body}, make([]byte, min(want.Size+1, 256<<10)))
	if err != nil {
		return fmt.Errorf("%s: GET %s: after %d bytes: %w", s.who, path, n, err)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); resp.StatusCode != http.StatusOK || n != want.Size || got != want.Digest.Encoded() {
		return fmt.Errorf("%s: GET %s: %s, %d bytes of sha256:%s, want %d of %s", s.who, path, resp.Status, n, got, want.Size, want.Digest)
	}
	return nil
}

// fetchImage brings an image by its tag, all of it.
func (s *server) fetchImage(ctx context.Context, img *image) error {
	if err := s.fetchWhole(ctx, s.manifestPath(img, tag), img.manifest); err != nil {
		return err
	}
	for _, b := range img.blobs() {
		if err := s.fetchWhole(ctx, s.blobPath(img, b.Digest), b); err != nil {
			return err
		}
	}
	return nil
}

// startServer runs a program until its port takes connections.
func (s *stage) startServer(ctx context.Context, srv *server, program string, env []string, args ...string) (*server, error) {
	srv.close = func() error { return srv.proc.Stop(stopLimit) }
	srv.again = func(ctx context.Context) (err error) {
		if srv.proc, err = parts.Start(program, env, args...); err != nil {
			return err
		}
		if err := srv.listens(ctx); err != nil {
			return errors.Join(err, srv.proc.Kill())
		}
		return nil
	}
	return srv, srv.again(ctx)
}

// listens waits until the port takes connections.
func (s *server) listens(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	err := poll(ctx, func() bool {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp4", s.addr)
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	})
	if err != nil {
		return fmt.Errorf("%s does not listen: %w: %s", s.who, err, s.proc.Output())
	}
	return nil
}
