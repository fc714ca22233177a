package integration

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/larder-project/larder/remotes/remotestest"
)

// With a node secret, only who knows it is served; containerd learns it from the
// hosts.toml files of larder setup.
func TestNodeSecret(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder", "containerd", "ctr")
	upstream := remotestest.New(t)
	img := remotestest.Build(remotestest.ImageSpec{Seed: 90})
	upstream.PutImage("library/app", "1", img)
	const secret = "5b0d7f0a3a5e4e3c9b1d2f4a6c8e0f1a5b0d7f0a3a5e4e3c9b1d2f4a6c8e0f1a"
	file := filepath.Join(b.dir, "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := b.larder("mirror.secret_file = " + strconv.Quote(file) + "\n" + dockerHub(upstream.URL()))

	url := manifestURL(l.URL, "library/app", "1")
	for name, header := range map[string][]string{"none": nil, "wrong": {"X-Larder-Secret", "wrong"}, "empty": {"X-Larder-Secret", ""}} {
		if a := get(t, url, header...); a.status != http.StatusForbidden {
			t.Errorf("%s secret: got %v, want 403", name, a)
		}
	}
	if n := len(upstream.Requests()); n != 0 {
		t.Errorf("without the secret, upstream saw %d requests, want 0", n)
	}
	if a := get(t, url, "X-Larder-Secret", secret); !a.whole(img.Root.Digest) {
		t.Errorf("right secret: got %v", a)
	}

	certs := b.certs(l)
	c := b.containerd(certs, false)
	ctr(t, c, pullArgs("docker.io/library/app:1", certs, false)...)
	checkPrivate(t, certs)
	for _, r := range upstream.Requests() {
		if got := r.Header.Get("X-Larder-Secret"); got != "" {
			t.Errorf("%s %s carried the node secret upstream", r.Method, r.Path)
		}
	}
	if strings.Contains(l.Log(), secret) {
		t.Error("larder's log holds the node secret")
	}
}

// checkPrivate fails on a hosts.toml that others than the owner may read.
func checkPrivate(t *testing.T, certs string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(certs, "*", "hosts.toml"))
	if err != nil || len(files) < 2 {
		t.Fatalf("hosts.toml files: got %v, %v", files, err)
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, want 0600", file, info.Mode().Perm())
		}
	}
}

func TestSetupUndoRestoresForeignFiles(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder")
	l := b.larder("")
	certs := filepath.Join(b.dir, "certs.d")
	foreign := filepath.Join(certs, "docker.io", "hosts.toml")
	if err := os.MkdirAll(filepath.Dir(foreign), 0o755); err != nil {
		t.Fatal(err)
	}
	const text = "server = \"https://mirror.example\"\n"
	if err := os.WriteFile(foreign, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time must not take larder's own file for a foreign one
		run(t, l, "setup", "containerd", "--certs-d", certs)
	}
	ours, err := os.ReadFile(foreign)
	if err != nil || !strings.Contains(string(ours), l.URL) {
		t.Fatalf("after setup: %q, %v, want a file that names %s", ours, err, l.URL)
	}
	run(t, l, "setup", "containerd", "--certs-d", certs, "--undo")
	back, err := os.ReadFile(foreign)
	if err != nil || string(back) != text {
		t.Errorf("after undo: %q, %v, want %q", back, err, text)
	}
	if _, err := os.Stat(filepath.Join(certs, "_default")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after undo: _default is still there: %v", err)
	}
}

func TestUnlistedRegistries(t *testing.T) {
	t.Parallel()
	for policy, want := range map[string]bool{"allow": true, "deny": false} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "larder")
			listed := remotestest.New(t)
			img := remotestest.Build(remotestest.ImageSpec{Seed: 91})
			listed.PutImage("library/app", "1", img)
			l := b.larder("names.unlisted = \"" + policy + "\"\n" + impatient + dockerHub(listed.URL()))
			// Nothing listens there: served or not, the answer is an error. Only the
			// refusal by policy says so.
			a := get(t, l.URL+"/v2/team/app/manifests/1?ns="+closedHost)
			denied := a.status == http.StatusForbidden || strings.Contains(a.start, "DENIED")
			if a.status < 400 || denied == want {
				t.Errorf("unlisted registry: got %v; want it refused by policy: %t", a, !want)
			}
			if a := get(t, manifestURL(l.URL, "library/app", "1")); !a.whole(img.Root.Digest) {
				t.Errorf("listed registry: got %v", a)
			}
		})
	}
}

// The verbs that talk to the daemon, on one image's life.
func TestVerbs(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder")
	upstream := remotestest.New(t)
	img := remotestest.Build(remotestest.ImageSpec{Seed: 92, Platforms: []string{"linux/amd64", "linux/arm64"}})
	upstream.PutImage("library/app", "1", img)
	l := b.larder(dockerHub(upstream.URL()))
	const ref = "docker.io/library/app:1"

	run(t, l, "pull", ref, "--platform", "linux/amd64")
	for _, m := range []string{"library/app"} {
		if a := get(t, manifestURL(l.URL, m, "1")); !a.whole(img.Root.Digest) || a.cache() != "hit" {
			t.Errorf("after pull: got %v, X-Larder-Cache %q, want a hit", a, a.cache())
		}
	}
	list := run(t, l, "ls", "--json")
	if !json.Valid([]byte(list)) && !json.Valid([]byte(strings.SplitN(list, "\n", 2)[0])) {
		t.Errorf("ls --json: not JSON: %s", list)
	}
	for _, out := range []string{list, run(t, l, "ls"), run(t, l, "show", ref)} {
		if !strings.Contains(out, "library/app") {
			t.Errorf("the image is not in:\n%s", out)
		}
	}
	run(t, l, "pin", ref)
	if out, err := l.Run(t.Context(), "rm", ref); err == nil {
		t.Logf("rm of a pinned image succeeded: %s", out)
	}
	run(t, l, "unpin", ref)
	if !strings.Contains(run(t, l, "ls"), "library/app") {
		return // rm took the pinned image already
	}
	run(t, l, "rm", ref)
	if out := run(t, l, "ls"); strings.Contains(out, "library/app") {
		t.Errorf("after rm the image is still listed:\n%s", out)
	}
}

// A mistake in the config is an error that names file, line and key, and exit
// code 2; none of it reaches a store.
func TestBadConfig(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder")
	for key, text := range map[string]string{
		"windw":                 "root = \"R\"\n[freshness]\nwindw = \"1h\"\n",
		"window":                "root = \"R\"\n[freshness]\nwindow = \"1 fortnight\"\n",
		"ecr_repository_prefix": "root = \"R\"\n[[rules]]\necr_repository_prefix = \"Quay\"\nupstream_registry_url = \"quay.io\"\n",
	} {
		root := filepath.Join(b.dir, "never-"+key)
		file := filepath.Join(b.dir, key+".toml")
		if err := os.WriteFile(file, []byte(strings.Replace(text, "R", root, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"config", "check"}, {"serve"}} {
			cmd := exec.CommandContext(t.Context(), b.bin.Path("larder"), append(args, "--config", file)...)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 2 {
				t.Errorf("%v with a bad %s: ended with %v, want exit code 2", args, key, err)
			}
			if !strings.Contains(string(out), file+":3") || !strings.Contains(string(out), key) {
				t.Errorf("%v: message does not name %s:3 and %s:\n%s", args, file, key, out)
			}
		}
		if _, err := os.Stat(root); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("bad %s: the store was made all the same", key)
		}
	}
}
