package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/larder-project/larder/integration/internal/parts"
)

// nginxConfig is Debian's, as far as it bears on this: sendfile on, tcp_nopush on,
// a worker for each processor. Connections stay open as long as they do to larder.
const nginxConfig = `daemon off;
worker_processes auto;
pid %[1]s/nginx.pid;
error_log stderr;
%[4]s
events { worker_connections 4096; }
http {
	access_log %[3]s;
	sendfile on;
	tcp_nopush on;
	keepalive_requests 1000000000;
	default_type application/vnd.oci.image.manifest.v1+json;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	server {
		listen %[2]s;
		root %[1]s/files;
	}
}
`

// startNginx serves the stage's files, and returns where.
func (s *stage) startNginx(ctx context.Context, program string, logs bool) (_ server, err error) {
	dir := filepath.Join(s.dir, "nginx")
	for path, data := range s.files {
		path = filepath.Join(dir, "files", path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // its workers have another user
			return server{}, err
		}
		if err := os.WriteFile(path, data, 0o644); err != nil { //nolint:gosec // as above
			return server{}, err
		}
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return server{}, err
	}
	access, user := "off", ""
	if logs {
		access = filepath.Join(dir, "access.log")
	}
	if os.Getuid() == 0 {
		user = "user root;" // the folder is root's alone
	}
	config := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, nginxConfig, dir, address, access, user), 0o600); err != nil {
		return server{}, err
	}
	proc, err := parts.Start(program, nil, "-c", config, "-e", "stderr")
	if err != nil {
		return server{}, err
	}
	s.closers = append(s.closers, func() error { return proc.Stop(10 * time.Second) })
	for {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err == nil {
			return server{address, proc.PID()}, c.Close()
		}
		wait, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		ended := proc.Wait(wait)
		cancel()
		if ctx.Err() != nil || !errors.Is(ended, context.DeadlineExceeded) {
			return server{}, fmt.Errorf("nginx: %w: %s", err, proc.Output())
		}
	}
}

// freeAddress is an address that nobody listens on.
func freeAddress(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
