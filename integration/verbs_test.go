package integration

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-project/larder/remotes/remotestest"
)

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
	before := len(upstream.Requests())
	if a := get(t, manifestURL(l.URL, "library/app", "1")); !a.whole(img.Root.Digest) || a.cache() != "hit" {
		t.Errorf("after pull: got %v, X-Larder-Cache %q, want a hit", a, a.cache())
	}
	if n := len(upstream.Requests()) - before; n != 0 {
		t.Errorf("after pull: upstream saw %d requests, want 0", n)
	}
	var list []struct{ Name string }
	if err := json.Unmarshal([]byte(run(t, l, "ls", "--json")), &list); err != nil || len(list) != 1 || !strings.HasPrefix(list[0].Name, ref) {
		t.Errorf("ls --json: got %v, %v, want %s alone", list, err, ref)
	}
	if out := run(t, l, "show", ref); !strings.Contains(out, largest(img).Digest.Encoded()[:12]) && !strings.Contains(out, "linux/amd64") {
		t.Errorf("show %s names neither its layer nor its platform:\n%s", ref, out)
	}
	run(t, l, "pin", ref)
	if out, err := l.Run(t.Context(), "rm", ref); err == nil {
		t.Errorf("rm of a pinned image succeeded: %s", out)
	}
	run(t, l, "unpin", ref)
	run(t, l, "rm", ref)
	if out := run(t, l, "ls", "-q"); strings.TrimSpace(out) != "" {
		t.Errorf("after rm there are images:\n%s", out)
	}
	if a := get(t, manifestURL(l.URL, "library/app", "1")); !a.whole(img.Root.Digest) || a.cache() == "hit" {
		t.Errorf("after rm: got %v, X-Larder-Cache %q, want it fetched again", a, a.cache())
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
