package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"go.uber.org/goleak"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/cmd/larder/admin"
	"github.com/larder-project/larder/cmd/larder/config"
	"github.com/larder-project/larder/plugin/hosts"
	"github.com/larder-project/larder/plugin/mirror"
	"github.com/larder-project/larder/remotes"
	"github.com/larder-project/larder/remotes/remotestest"
)

// asLarder in the environment makes this test's program larder itself, for
// what is a matter of a process's own, such as its environment.
const asLarder = "LARDER_TEST_AS_LARDER"

func TestMain(m *testing.M) {
	if os.Getenv(asLarder) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// daemon is a running "larder serve" in this process.
type testDaemon struct {
	config   string
	registry *remotestest.Registry
	mirror   string
	stop     func() int // ends the daemon and returns its exit code
}

// startDaemon runs the daemon on a registry that stands behind docker.io. more
// is added to its configuration.
func startDaemon(t *testing.T, more ...string) *testDaemon {
	t.Helper()
	registry := remotestest.New(t)
	dir, err := os.MkdirTemp("", "larder") // short: a unix socket's path is bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &testDaemon{config: filepath.Join(dir, "config.toml"), registry: registry}
	text := fmt.Sprintf(`root = %q
[log]
level = "error"
[mirror]
address = ":0"
[admin]
address = %q
[[routes]]
registry = "docker.io"
upstreams = [%q]
`, filepath.Join(dir, "store"), filepath.Join(dir, "admin.sock"), registry.URL()) + strings.Join(more, "")
	if !strings.Contains(text, "[space]") { // however full the disk of the test is
		text += "[space]\nmax_size = \"off\"\nmin_free = \"off\"\n"
	}
	if err := os.WriteFile(d.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	d.run(t)
	return d
}

func (d *testDaemon) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	pr, pw := io.Pipe()
	var stderr bytes.Buffer
	exit := make(chan int, 1)
	go func() {
		code := run(ctx, []string{"serve", "--config", d.config}, pw, &stderr)
		pw.Close()
		exit <- code
	}()
	line, err := bufio.NewReader(pr).ReadString('\n')
	if err != nil {
		t.Fatalf("daemon did not start: %v\n%s", err, stderr.String())
	}
	go io.Copy(io.Discard, pr) //nolint:errcheck // ends with the daemon
	_, d.mirror, _ = strings.Cut(strings.TrimSpace(line), "listening on ")
	stopped := false
	d.stop = func() int {
		stopped = true
		cancel()
		return <-exit
	}
	t.Cleanup(func() {
		if !stopped {
			d.stop()
		}
	})
}

// larder runs a verb against the daemon.
func (d *testDaemon) larder(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), append(args, "--config", d.config), &out, &errs)
	return code, out.String(), errs.String()
}

func (d *testDaemon) mustLarder(t *testing.T, args ...string) string {
	t.Helper()
	code, stdout, stderr := d.larder(t, args...)
	if code != 0 {
		t.Fatalf("larder %s: exit %d\n%s", strings.Join(args, " "), code, stderr)
	}
	return stdout
}

func decodeJSON[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("not JSON: %v\n%s", err, text)
	}
	return v
}

func TestImageLife(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	img := remotestest.Build(remotestest.ImageSpec{Seed: 1, Layers: []int64{40_000, 60_000}, Platforms: []string{"linux/amd64", "linux/arm64"}})
	want := d.registry.PutImage("library/app", "1", img)

	res := decodeJSON[admin.PullResult](t, d.mustLarder(t, "pull", "--json", "--platform", "linux/amd64", "app:1"))
	if res.Ref != "docker.io/library/app:1" || res.Digest != want.Digest.String() || res.Manifests != 2 || res.Blobs != 3 || res.Fetched != res.Bytes {
		t.Errorf("pull: %+v", res)
	}
	again := decodeJSON[admin.PullResult](t, d.mustLarder(t, "pull", "--json", "--platform", "linux/amd64", "app:1"))
	if again.Fetched != 0 || again.Bytes != res.Bytes {
		t.Errorf("second pull fetched %d of %d bytes", again.Fetched, again.Bytes)
	}

	images := decodeJSON[[]remotes.Image](t, d.mustLarder(t, "ls", "--json"))
	if len(images) != 1 || images[0].Name != res.Ref || images[0].State != "fresh" || strings.Join(images[0].Platforms, " ") != "linux/amd64" {
		t.Errorf("ls: %+v", images)
	}
	if table := d.mustLarder(t, "ls"); !strings.Contains(table, "docker.io/library/app:1") || !strings.Contains(table, "fresh") {
		t.Errorf("ls prints\n%s", table)
	}
	if text := d.mustLarder(t, "show", "app:1"); !strings.Contains(text, want.Digest.String()) || !strings.Contains(text, "linux/arm64") || !strings.Contains(text, "not stored") {
		t.Errorf("show prints\n%s", text)
	}

	d.mustLarder(t, "pin", "app:1", "--reason", "needed at boot")
	if code, _, stderr := d.larder(t, "rm", "app:1"); code != exitFailure || !strings.Contains(stderr, "needed at boot") {
		t.Errorf("rm of a pinned image: exit %d, %s", code, stderr)
	}
	if out := d.mustLarder(t, "unpin", "app:1"); out != "docker.io/library/app:1: unpinned\n" {
		t.Errorf("unpin prints %q", out)
	}
	removed := decodeJSON[admin.RemoveResult](t, d.mustLarder(t, "rm", "--json", "app:1"))
	if removed.Blobs != 5 || removed.Bytes != res.Bytes {
		t.Errorf("rm: %+v, want 5 blobs of %d bytes", removed, res.Bytes)
	}
	if out := d.mustLarder(t, "ls", "-q"); out != "" {
		t.Errorf("ls after rm prints %q", out)
	}
}

// TestCompanions shows what belongs to an image, hides it in the list, and warns
// of what did not come.
func TestCompanions(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	root := d.registry.PutImage("library/app", "1", remotestest.Build(remotestest.ImageSpec{Seed: 3}))
	d.registry.PutReferrer("library/app", root, "application/spdx+json\x1b[2J", []byte("packages"))
	lost := d.registry.PutReferrer("library/app", root, "application/vnd.example.sig", []byte("signed"))
	d.registry.PutSignature("library/app", root.Digest, ".sig", []byte("cosign"))
	remove := d.registry.Fault(remotestest.Digest(lost.Digest), remotestest.Error(500, "UNKNOWN", "x"))
	code, out, stderr := d.larder(t, "pull", "app:1")
	if code != 0 || !strings.Contains(out, ", 2 companions\n") || !strings.Contains(stderr, "some of its companions were not fetched") || !strings.Contains(stderr, lost.Digest.String()) {
		t.Errorf("pull: exit %d\n%s\n%s", code, out, stderr)
	}
	text := d.mustLarder(t, "show", "app:1")
	for _, want := range []string{"referrers   2: application/spdx+json[2J, application/vnd.example.sig (1 not stored)\n", "cosign      sha256-" + root.Digest.Encoded() + ".sig\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("show prints\n%s\nwant %q", text, want)
		}
	}
	remove()
	res := decodeJSON[admin.PullResult](t, d.mustLarder(t, "pull", "--json", "app:1"))
	if res.Companions != 3 || res.Warning != "" {
		t.Errorf("pull again: %+v", res)
	}
	detail := decodeJSON[remotes.ImageDetail](t, d.mustLarder(t, "show", "--json", "app:1"))
	if len(detail.Companions) != 3 || detail.Companions[0].Subject != root.Digest || !detail.Companions[1].Tree.Stored {
		t.Errorf("show --json: %+v", detail.Companions)
	}
	if out := d.mustLarder(t, "ls", "-q"); out != "docker.io/library/app:1\n" {
		t.Errorf("ls prints %q", out)
	}
	sig := "docker.io/library/app:sha256-" + root.Digest.Encoded() + ".sig"
	if out := d.mustLarder(t, "ls", "-qa"); !strings.Contains(out, sig) {
		t.Errorf("ls -a prints %q", out)
	}
	d.mustLarder(t, "pin", sig)
	if out := d.mustLarder(t, "ls", "-q"); !strings.Contains(out, sig) {
		t.Errorf("ls hides what is pinned: %q", out)
	}
	d.mustLarder(t, "unpin", sig)
	d.mustLarder(t, "rm", "app:1")
	if out := d.mustLarder(t, "ls", "-qa"); out != "" {
		t.Errorf("ls -a after rm prints %q", out)
	}
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	first := d.registry.PutImage("library/app", "1", remotestest.Build(remotestest.ImageSpec{Seed: 1, Layers: []int64{100}}))
	d.mustLarder(t, "pull", "app:1")
	if out := d.mustLarder(t, "refresh", "app:1"); !strings.Contains(out, "unchanged, "+first.Digest.String()) {
		t.Errorf("refresh prints %q", out)
	}
	second := d.registry.PutImage("library/app", "1", remotestest.Build(remotestest.ImageSpec{Seed: 2, Layers: []int64{100}}))
	out := d.mustLarder(t, "refresh", "app:1")
	if !strings.Contains(out, "moved from "+first.Digest.String()+" to "+second.Digest.String()) {
		t.Errorf("refresh prints %q", out)
	}
	d.registry.Stop()
	// "left alone" if what asks for companions found out first.
	if code, _, stderr := d.larder(t, "refresh", "app:1"); code != exitFailure || !strings.Contains(stderr, "refused") && !strings.Contains(stderr, "left alone") {
		t.Errorf("refresh without upstream: exit %d, %s", code, stderr)
	}
	d.registry.Start()
}

// TestWrongUse reads what a person gets who uses a verb wrongly.
func TestWrongUse(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"pull"}, exitUsage, "requires at least 1 arg"},
		{[]string{"pull", "--plattform", "x", "app"}, exitUsage, "unknown flag"},
		{[]string{"pull", "Not A Ref"}, exitFailure, "Not A Ref"},
		{[]string{"pull", "--platform", "linux/", "app"}, exitFailure, "platform"},
		{[]string{"pull", "nope"}, exitFailure, "404"},
		{[]string{"show"}, exitUsage, "accepts 1 arg"},
		{[]string{"show", "nope"}, exitFailure, "docker.io/library/nope:latest is not in the store"},
		{[]string{"rm", "nope"}, exitFailure, "is not in the store"},
		{[]string{"unpin", "nope"}, exitFailure, "is not pinned"},
		{[]string{"refresh", "app@sha256:" + strings.Repeat("a", 64)}, exitFailure, "a digest cannot change"},
		{[]string{"ls", "extra"}, exitUsage, `ls takes no arguments, got "extra"`},
		{[]string{"rules", "validate", "a", "b"}, exitUsage, "accepts at most 1 arg"},
		{[]string{"frobnicate"}, exitUsage, "unknown command"},
		{[]string{"pul", "x"}, exitUsage, `unknown command "pul", did you mean pin or pull?`},
		{[]string{"setup", "containerd", "--print", "--undo"}, exitUsage, "print undo"},
		{[]string{"serve"}, exitFailure, "in use by process"},
	} {
		code, _, stderr := d.larder(t, tc.args...)
		if code != tc.code || !strings.Contains(stderr, tc.want) {
			t.Errorf("larder %s: exit %d, want %d with %q:\n%s", strings.Join(tc.args, " "), code, tc.code, tc.want, stderr)
		}
	}
}

func TestNoDaemon(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	if code := d.stop(); code != 0 {
		t.Errorf("daemon: exit %d", code)
	}
	code, _, stderr := d.larder(t, "ls")
	if code != exitFailure || !strings.Contains(stderr, "larder serve") {
		t.Errorf("ls without a daemon: exit %d, %s", code, stderr)
	}
	d.run(t) // on the same store and the same socket path
	d.mustLarder(t, "ls")
}

func TestHelpHasExamples(t *testing.T) {
	t.Parallel()
	var check func(cmd *cobra.Command)
	check = func(cmd *cobra.Command) {
		if cmd.Example == "" {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			if sub.Name() != "help" && sub.Name() != "completion" {
				check(sub)
			}
		}
	}
	check(newRootCommand(&options{stdout: io.Discard, stderr: io.Discard}))
}

// TestPinOfAbsentImage: a pin of what is not stored must show, or a slip of
// the pen is never found.
func TestPinOfAbsentImage(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.mustLarder(t, "pin", "ngnix")
	images := decodeJSON[[]remotes.Image](t, d.mustLarder(t, "ls", "--json"))
	if len(images) != 1 || images[0].Name != "docker.io/library/ngnix:latest" || images[0].State != "absent" {
		t.Errorf("ls: %+v", images)
	}
	if table := d.mustLarder(t, "ls"); !strings.Contains(table, "absent") {
		t.Errorf("ls prints\n%s", table)
	}
}

// TestVersionNamesDaemon tells which daemon answers.
func TestVersionNamesDaemon(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	if out := d.mustLarder(t, "version"); !strings.Contains(out, "mirror "+d.mirror) {
		t.Errorf("version prints %q", out)
	}
	d.stop()
	if out := d.mustLarder(t, "version"); strings.Contains(out, "daemon") {
		t.Errorf("version without a daemon prints %q", out)
	}
}

// TestListsOfRegistriesAgree: what larder maps, what it writes hosts.toml
// files for, and what the documentation says.
func TestListsOfRegistriesAgree(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../docs/names.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range remotes.BuiltinRules() {
		host, err := remotes.ParseHost(r.UpstreamRegistryURL)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(hosts.DefaultRegistries(), host) {
			t.Errorf("setup writes no hosts.toml for %s", host)
		}
		if row := fmt.Sprintf("| `%s` | `%s` |", r.ECRRepositoryPrefix, r.UpstreamRegistryURL); !strings.Contains(string(doc), row) {
			t.Errorf("docs/names.md has no row %s", row)
		}
	}
	if hosts.SecretHeader != mirror.SecretHeader {
		t.Errorf("setup writes header %s, the mirror reads %s", hosts.SecretHeader, mirror.SecretHeader)
	}
}

// TestDefaultsAgree: the configuration's defaults are those of the packages
// that a Go program uses without a configuration.
func TestDefaultsAgree(t *testing.T) {
	t.Parallel()
	cfg := config.Default()
	fresh, err := freshnessOf(cfg.Freshness)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(remotes.DefaultFreshness(), fresh, cmp.AllowUnexported(remotes.Pattern{})); diff != "" {
		t.Errorf("freshness (-package +configuration):\n%s", diff)
	}
	if diff := cmp.Diff(remotes.DefaultAccess(), accessOf(cfg.Private)); diff != "" {
		t.Errorf("access (-remotes +config):\n%s", diff)
	}
	if diff := cmp.Diff(remotes.DefaultCompanions(), companionsOf(cfg.Companions)); diff != "" {
		t.Errorf("companions (-package +configuration):\n%s", diff)
	}
	if diff := cmp.Diff(remotes.DefaultPrefetch(), prefetchOf(cfg.Prefetch)); diff != "" {
		t.Errorf("prefetch (-package +configuration):\n%s", diff)
	}
	if diff := cmp.Diff(cache.DefaultFillPolicy(), fillPolicyOf(cfg.Fill)); diff != "" {
		t.Errorf("fill (-package +configuration):\n%s", diff)
	}
}
