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
	"os"
	"path/filepath"
	"strings"
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

// startLarder starts a larder in dir, with a store of its own, that has the upstream
// at base behind docker.io; extra is more of its configuration.
func (s *stage) startLarder(ctx context.Context, dir, base, extra string) (*server, error) {
	text := fmt.Sprintf("log.level = \"warn\"\n%s\n[[routes]]\nregistry = \"docker.io\"\nupstreams = [%q]\n", extra, base)
	l, err := parts.StartLarder(ctx, s.bin, dir, text)
	if err != nil {
		return nil, err
	}
	srv := &server{who: larder, addr: strings.TrimPrefix(l.URL, "http://"), proc: l.Process(), close: l.Close, root: l.Root()}
	srv.again = func(ctx context.Context) error {
		err := l.Start(ctx)
		srv.proc = l.Process()
		return err
	}
	return srv, nil
}

const distributionConfig = `version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %q}}
proxy: {remoteurl: %q}
http: {addr: %q}
`

// startDistribution starts a registry in proxy mode. program is that of v3 or of 2.8.
func (s *stage) startDistribution(ctx context.Context, who, program, dir, base string) (*server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	root := filepath.Join(dir, "registry")
	config := filepath.Join(dir, "registry.yml")
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("%s: %w", who, err)
	}
	if err := os.WriteFile(config, fmt.Appendf(nil, distributionConfig, root, base, addr), 0o600); err != nil {
		return nil, fmt.Errorf("%s: %w", who, err)
	}
	return s.startServer(ctx, &server{who: who, addr: addr, root: root}, program, []string{"OTEL_TRACES_EXPORTER=none"}, "serve", config)
}

const nginxConfig = `daemon off;
worker_processes auto;
worker_rlimit_nofile 20000;
pid %[1]s/nginx.pid;
error_log stderr error;
%[4]s
events { worker_connections 16384; }
http {
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  open_file_cache %[5]s;
  client_body_temp_path %[1]s/tmp;
  proxy_temp_path %[1]s/tmp;
  fastcgi_temp_path %[1]s/tmp;
  uwsgi_temp_path %[1]s/tmp;
  scgi_temp_path %[1]s/tmp;
  server { listen %[2]s backlog=16384; root %[3]q; }
}
`

// startNginx starts one that serves the files below root by sendfile. cached keeps
// files open, and does not look whether they have changed, for an hour.
func (s *stage) startNginx(ctx context.Context, dir, root string, cached bool) (*server, error) {
	who, cache := nginx, "off"
	if cached {
		who, cache = nginxCached, "max=10000 inactive=1h"
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	user := ""
	if os.Getuid() == 0 {
		user = "user root;" // the store's folder is its owner's alone
	}
	config := filepath.Join(dir, "nginx.conf")
	if err := os.MkdirAll(filepath.Join(dir, "tmp"), 0o700); err != nil {
		return nil, fmt.Errorf("nginx: %w", err)
	}
	if err := os.WriteFile(config, fmt.Appendf(nil, nginxConfig, dir, addr, root, user, cache), 0o600); err != nil {
		return nil, fmt.Errorf("nginx: %w", err)
	}
	return s.startServer(ctx, &server{who: who, addr: addr, files: true}, s.peers.path("nginx"), nil, "-p", dir, "-c", config)
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

// freeAddr is an address on loopback that nobody listens at, for programs that cannot
// say which port they were given.
func freeAddr() (string, error) {
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("free port: %w", err)
	}
	return ln.Addr().String(), ln.Close()
}

// poll waits for a state of another process, which offers no event to wait for. A wait
// that runs out is an error.
func poll(ctx context.Context, ok func() bool) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
