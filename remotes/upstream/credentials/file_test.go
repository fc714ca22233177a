package credentials

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestSecretFileIsReadAnew(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// As the kubelet mounts a Secret: files are links into a folder that a
	// link, which is swapped, points to.
	put := func(version, text string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, version, "secret.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(version, filepath.Join(dir, "..tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	put("v1", secretText("one"))
	file := filepath.Join(dir, "secret.json")
	if err := os.Symlink("..data/secret.json", file); err != nil {
		t.Fatal(err)
	}
	c, l := newTest(t, Options{Rules: []Rule{{Host: "docker.io", File: file}}})
	want(t, c, "registry-1.docker.io", "library/nginx", user("one"))
	put("v2", secretText("two"))
	want(t, c, "registry-1.docker.io", "library/nginx", user("two"))
	put("v3", planted)
	want(t, c, "registry-1.docker.io", "library/nginx", user("two"))
	if !strings.Contains(l.String(), "the old one is used") {
		t.Errorf("no word of the file that is broken:\n%s", l)
	}
	put("v4", secretText("four"))
	want(t, c, "registry-1.docker.io", "library/nginx", user("four"))
}

func TestSecretFileThatFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, f := range map[string]struct {
		text string
		kind error
		says string
	}{
		"absent":   {"", errdefs.ErrNotFound, "no such file"},
		"folder":   {"", errdefs.ErrInvalidArgument, "not a regular file"},
		"large":    {secretText(strings.Repeat("x", maxSecret)), errdefs.ErrInvalidArgument, "more than 65536 bytes"},
		"text":     {planted, errdefs.ErrInvalidArgument, "not JSON"},
		"array":    {`["` + planted + `"]`, errdefs.ErrInvalidArgument, "not JSON"},
		"no-token": {`{"username":"` + planted + `"}`, errdefs.ErrInvalidArgument, "no accessToken"},
		"no-user":  {`{"accessToken":"` + planted + `"}`, errdefs.ErrInvalidArgument, "no username"},
	} {
		path := filepath.Join(dir, name)
		switch name {
		case "absent":
		case "folder":
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		default:
			if err := os.WriteFile(path, []byte(f.text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		docker := write(t, "config.json", `{"auths":{"quay.io":{"username":"other","password":"p"}}}`)
		c, l := newTest(t, Options{Rules: []Rule{{Host: "quay.io", Prefix: "team", File: path}}, DockerConfig: docker})
		// Another source knows the host, and must not stand in.
		fails(t, c, f.kind, "quay.io", "team/app", "credential_file", path, f.says)
		if got, err := c.Credential(t.Context(), "quay.io", "free/app"); err != nil || got.Username != "other" {
			t.Errorf("%s: outside the rule got %v, %v", name, got, err)
		}
		if !strings.Contains(l.String(), "no credential yet") {
			t.Errorf("%s: no word of it at start:\n%s", name, l)
		}
	}
}

func TestOpenSecretFileIsToldOnce(t *testing.T) {
	t.Parallel()
	file := write(t, "secret.json", secretText("one"))
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	c, l := newTest(t, Options{Rules: []Rule{{Host: "quay.io", File: file}}})
	for range 3 {
		want(t, c, "quay.io", "team/app", user("one"))
	}
	if n := strings.Count(l.String(), "mode 0600"); n != 1 {
		t.Errorf("told %d times, want once:\n%s", n, l)
	}
}
