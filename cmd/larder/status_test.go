package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/cmd/larder/admin"
	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/remotes"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/larder-project/larder/remotes/upstream"
)

// TestStatus reads what the verb tells of an upstream that limits, before and
// after.
func TestStatus(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "[companions]\nfetch = false\n") // they would be answers, too
	out := d.mustLarder(t, "status")
	for _, want := range []string{fmt.Sprintf("larder %s, process %d, up ", version, os.Getpid()), "mirror " + d.mirror, "store /", "no upstream was asked yet"} {
		if !strings.Contains(out, want) {
			t.Errorf("status does not say %q:\n%s", want, out)
		}
	}
	d.registry.PutImage("library/app", "1", remotestest.Build(remotestest.ImageSpec{Seed: 1, Layers: []int64{4096}}))
	d.registry.Fault(remotestest.Manifests(), func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		w.Header().Set("ratelimit-limit", "100;w=21600")
		w.Header().Set("ratelimit-remaining", "76;w=21600")
		next.ServeHTTP(w, r)
	})
	d.mustLarder(t, "pull", "app:1")
	d.larder(t, "pull", "nope")
	d.registry.Fault(remotestest.Any(), remotestest.TooManyRequests(time.Hour))
	d.larder(t, "pull", "app:2")
	code, _, stderr := d.larder(t, "pull", "app:3")
	if code != exitFailure || !strings.Contains(stderr, "upstream answered 429 and asked to be left alone until") {
		t.Errorf("pull from a limited upstream: exit %d, %s", code, stderr)
	}
	s := decodeJSON[admin.Status](t, d.mustLarder(t, "status", "--json"))
	if len(s.Upstreams) != 1 || s.PID != os.Getpid() || s.Mirror != d.mirror {
		t.Fatalf("status is %+v", s)
	}
	a := s.Upstreams[0]
	if want := (upstream.Answers{OK: 3, NotFound: 1, Limited: 1}); a.Answers != want || a.Host != d.registry.Host() || *a.Remaining != 76 || a.Bytes < 4096 {
		t.Errorf("upstream is %+v, want answers %+v", a, want)
	}
	if use := s.Sources.Upstreams[0]; use.Upstream != d.registry.URL() || use.Answers == 0 || use.PassedOver["ImageNotFound"] == 0 ||
		s.Sources.Repositories[0].Repository != "docker.io/library/app" {
		t.Errorf("sources are %+v", s.Sources)
	}
	row := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(a.Host) + ` +anonymous +5 +1 +0 +[\d.]+ KiB +76 of 100 +left alone until \d`)
	if out := d.mustLarder(t, "status"); !row.MatchString(out) {
		t.Errorf("status prints\n%s", out)
	}
	if out := d.mustLarder(t, "version", "--json"); strings.Contains(out, "upstreams") {
		t.Errorf("version prints\n%s", out)
	}
	d.stop()
	if code, _, stderr := d.larder(t, "status"); code != exitFailure || !strings.Contains(stderr, "larder serve") {
		t.Errorf("status without a daemon: exit %d, %s", code, stderr)
	}
}

// TestStatusOfStore says in both forms why a store does not store.
func TestStatusOfStore(t *testing.T) {
	t.Parallel()
	now := time.Now()
	status := admin.Status{Store: cache.Health{
		State: cache.StateDegraded, Reason: "write: read-only file system", Since: now.Add(-90 * time.Second), Passed: 7,
	}}
	var out strings.Builder
	if err := printStatus(&out, status, now); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"degraded for 1m30s: write: read-only file system", "7 blobs and manifests were passed through"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("status does not say %q:\n%s", want, out.String())
		}
	}
	d := startDaemon(t, "")
	if s := decodeJSON[admin.Status](t, d.mustLarder(t, "status", "--json")); s.Store.State != cache.StateOK || s.Store.Reason != "" || s.Store.Since.IsZero() {
		t.Errorf("store is %+v, want ok since the start", s.Store)
	}
	if out := d.mustLarder(t, "status"); strings.Contains(out, "passed through") {
		t.Errorf("status of a store that is well:\n%s", out)
	}
}

// TestStatusOfPlugins: what containerd has of larder beyond the mirror is told, and
// what is wrong with it.
func TestStatusOfPlugins(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	printPlugins(&out, admin.Status{
		Proxy: &admin.ProxyStatus{Socket: "/s", Services: []string{"diff"}, Copies: 3, Bytes: 5 << 20, MostBytes: 1 << 30},
		Seed:  &admin.SeedStatus{Content: "/c", Images: 2, Problem: "no"},
	})
	const want = "proxy /s, diff\n  3 copies of layers take 5.0 MiB of 1.0 GiB, beside the store\nseed /c, 2 images linked since the start\n  nothing is linked: no\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	content := t.TempDir()
	d := startDaemon(t, fmt.Sprintf("[companions]\nfetch = false\n[seed]\nenabled = true\ncontent = %q\n", content))
	d.registry.PutImage("library/app", "1", remotestest.Build(remotestest.ImageSpec{Seed: 1, Layers: []int64{4096}}))
	d.mustLarder(t, "pull", "app:1")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodHead, d.mirror+"/v2/library/app/manifests/1?ns=docker.io", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("User-Agent", "containerd/v2.4.2")
	status := func() *admin.SeedStatus {
		return decodeJSON[admin.Status](t, d.mustLarder(t, "status", "--json")).Seed
	}
	seedIt := func(stop func(*admin.SeedStatus) bool) *admin.SeedStatus {
		for { // the folder is looked at behind the start, and once a second: the test's own limit ends it
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if s := status(); s == nil || stop(s) {
				return s
			}
		}
	}
	if s := seedIt(func(s *admin.SeedStatus) bool { return s.Images > 0 }); s == nil || s.Problem != "" || s.Content != content {
		t.Errorf("got %+v, want one image linked", s)
	}
	if err := os.RemoveAll(content); err != nil {
		t.Fatal(err)
	}
	if s := seedIt(func(s *admin.SeedStatus) bool { return s.Problem != "" }); s == nil || !strings.Contains(s.Problem, "is not there") {
		t.Errorf("got %+v, want that the folder is not there", s)
	}
}

// TestStatusTable has what a registry says, and what is over.
func TestStatusTable(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.Local)
	n := func(v int64) *int64 { return &v }
	var out bytes.Buffer
	err := printStatus(&out, admin.Status{Version: "1", PID: 7, Started: now.Add(-90 * time.Minute), Mirror: "m", Root: "/r", Upstreams: []upstream.Account{
		{Host: "a", Account: "u", Remaining: n(3), WindowEnd: now.Add(time.Hour), Answers: upstream.Answers{OK: 1, NotFound: 2, Refused: 3, Limited: 4, Failed: 5}, Bytes: 2048},
		{Host: "b", Account: "u", Remaining: n(3), Limit: n(9), WindowEnd: now.Add(24 * time.Hour)},
		{Host: "c", Account: "u", Remaining: n(3), Limit: n(9), WindowEnd: now.Add(-time.Second), AloneUntil: now.Add(-time.Second)},
		{Host: "d", Account: "u", AloneUntil: now.Add(time.Minute)},
	}, Sources: &remotes.Sources{Upstreams: []remotes.UpstreamUse{
		{Upstream: "https://a/hub", Answers: 3, PassedOver: map[string]int64{"UpstreamUnavailable": 2, "ImageNotFound": 1}},
		{Upstream: "https://b", Answers: 1},
	}}}, now)
	want := `larder 1, process 7, up 1h30m0s
mirror m
store /r

UPSTREAM   ACCOUNT   ASKED   LIMITED   FAILED   RECEIVED   LEFT     UNTIL
a          u         15      4         5        2.0 KiB    3        13:00:00
b          u         0       0         0        0 B        3 of 9   2026-03-05 12:00:00
c          u         0       0         0        0 B        -        -
d          u         0       0         0        0 B        -        left alone until 12:01:00

SOURCE          ANSWERED   PASSED OVER
https://a/hub   3          1 ImageNotFound, 2 UpstreamUnavailable
https://b       1          -
`
	if err != nil || out.String() != want {
		t.Errorf("got\n%s%v\nwant\n%s", out.String(), err, want)
	}
}

// TestUpstreamHost: settings for Docker Hub reach the host that is asked.
func TestUpstreamHost(t *testing.T) {
	t.Parallel()
	var opts upstream.Options
	cfg := config.Default().Upstream
	cfg.Hosts = []config.UpstreamHost{
		{Host: "docker.io", MaxConnections: 4, Realms: []config.Host{"Auth.docker.io"}},
		{Host: "Registry.Corp:5000", CAFile: "/ca", ClientCertFile: "/c", ClientKeyFile: "/k", MaxSpeed: 5, Parallel: 3},
	}
	setLimits(&opts, cfg)
	hub, corp := opts.Hosts["registry-1.docker.io"], opts.Hosts["registry.corp:5000"]
	if hub.MaxConnections != 4 || opts.Realms["registry-1.docker.io"][0] != "auth.docker.io" || opts.MaxConnections != 32 || opts.Parallel != 8 || opts.Reserve != 5 || opts.Waits == nil {
		t.Errorf("got %+v", opts)
	}
	if want := (upstream.Host{CAFile: "/ca", ClientCertFile: "/c", ClientKeyFile: "/k", MaxSpeed: 5, Parallel: 3}); corp != want {
		t.Errorf("got %+v, want %+v", corp, want)
	}
}

// TestIPv6Registry pulls an image of a registry at [::1], which needs a CA of
// its own, by name, by rule and through the mirror.
func TestIPv6Registry(t *testing.T) {
	t.Parallel()
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp6", "[::1]:0")
	if err != nil {
		t.Skipf("this machine has no IPv6 loopback: %v", err)
	}
	d := startDaemon(t)
	d.stop()
	img := remotestest.Build(remotestest.ImageSpec{Seed: 1, Layers: []int64{4096}})
	d.registry.PutImage("team/app", "1", img)
	to, err := url.Parse(d.registry.URL())
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(to))
	s.Listener.Close()
	s.Listener = ln
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	s.StartTLS() // its certificate is for ::1, too
	t.Cleanup(s.Close)
	ca := filepath.Join(filepath.Dir(d.config), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	host := ln.Addr().String()
	f, err := os.OpenFile(d.config, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(f, "[[rules]]\necr_repository_prefix = \"six\"\nupstream_registry_url = %q\n[[upstream.hosts]]\nhost = %q\nca_file = %q\n", host, host, ca)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	d.run(t)
	d.mustLarder(t, "pull", host+"/team/app:1")
	if out := d.mustLarder(t, "ls", "-q"); out != host+"/team/app:1\n" {
		t.Errorf("ls prints %q", out)
	}
	asked := len(d.registry.Requests())
	for _, path := range []string{"team/app/manifests/1?ns=" + url.QueryEscape(host), "six/team/app/manifests/1"} {
		if status, digest := headOf(t, d.mirror+"/v2/"+path); status != http.StatusOK || digest != img.Root.Digest.String() {
			t.Errorf("%s: %d, %s", path, status, digest)
		}
	}
	if n := len(d.registry.Requests()); n != asked {
		t.Errorf("the registry was asked %d more times: not one entry", n-asked)
	}
}

func headOf(t *testing.T, url string) (status int, digest string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode, resp.Header.Get("Docker-Content-Digest")
}
