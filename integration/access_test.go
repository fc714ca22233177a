package integration

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
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
