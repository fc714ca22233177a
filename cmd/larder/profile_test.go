package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

// Profiles are to be had on the admin socket, which only its owner can open, and
// nowhere else.
func TestProfiles(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	socket := filepath.Join(filepath.Dir(d.config), "admin.sock")
	if fi, err := os.Stat(socket); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("admin socket: %v, %v, want mode 0600", fi, err)
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	admin := &http.Client{Transport: transport}
	mirror := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, tc := range []struct {
		client *http.Client
		method string
		url    string
		want   int
	}{
		{admin, http.MethodGet, "http://larder/debug/pprof/heap", http.StatusOK},
		{admin, http.MethodGet, "http://larder/debug/pprof/goroutine", http.StatusOK},
		{admin, http.MethodPost, "http://larder/debug/pprof/heap", http.StatusMethodNotAllowed},
		{mirror, http.MethodGet, d.mirror + "/debug/pprof/", http.StatusNotFound},
		{mirror, http.MethodGet, d.mirror + "/debug/pprof/heap", http.StatusNotFound},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tc.method, tc.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := tc.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != tc.want || len(body) == 0 {
			t.Errorf("%s %s: %s, %d bytes, %v, want status %d", tc.method, tc.url, resp.Status, len(body), err, tc.want)
		}
	}
}
