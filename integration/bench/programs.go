package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/larder-project/larder/integration/internal/parts"
)

// startLarder starts the larder of bin in dir, with a store of its own, that has the upstream
// at base behind docker.io; extra is more of its configuration.
func (s *stage) startLarder(ctx context.Context, bin parts.Bin, dir, base, extra string) (*server, error) {
	text := fmt.Sprintf("log.level = \"warn\"\n%s\n[[routes]]\nregistry = \"docker.io\"\nupstreams = [%q]\n", extra, base)
	l, err := parts.StartLarder(ctx, bin, dir, text)
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
func (sc *scene) startNginx(ctx context.Context, root string, cached bool) (*server, error) {
	who, cache := nginx, "off"
	if cached {
		who, cache = nginxCached, "max=10000 inactive=1h"
	}
	dir, err := sc.newDir()
	if err != nil {
		return nil, err
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
	return sc.startServer(ctx, &server{who: who, addr: addr, files: true}, sc.peers.path("nginx"), nil, "-p", dir, "-c", config)
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
