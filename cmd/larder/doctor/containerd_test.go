package doctor

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/larder-project/larder/plugin/hosts"
)

func TestContainerdConfig(t *testing.T) {
	t.Parallel()
	const certs = "/etc/containerd/certs.d"
	const registry = "version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = "
	for name, c := range map[string]struct {
		text   string
		status Status
		found  string
	}{
		"one root":       {registry + `"` + certs + `"`, OK, "both pull paths"},
		"a list":         {registry + `"` + certs + `:/etc/docker/certs.d"`, Problem, "is a list"},
		"another folder": {registry + `"/elsewhere"`, Problem, "another folder"},
		"not set":        {"version = 3", Problem, "not set"},
		"no TOML":        {"version = = 3", Problem, "containerd's config"},
	} {
		file := write(t, filepath.Join(t.TempDir(), "config.toml"), c.text)
		expect(t, name, containerdConfig(file, certs), c.status, c.found)
	}
	expect(t, "no file", containerdConfig(filepath.Join(t.TempDir(), "config.toml"), certs), Problem, "no such file")
}

// The files are those that setup writes, and then what may become of them.
func TestHostsFiles(t *testing.T) {
	t.Parallel()
	o := hosts.Options{CertsDir: filepath.Join(t.TempDir(), "certs.d"), MirrorURL: "http://127.0.0.1:5929", Secret: "s3cret-s3cret"}
	expect(t, "before setup", hostsFiles(o), Problem, "containerd does not ask larder")
	if _, err := hosts.Apply(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	expect(t, "after setup", hostsFiles(o), OK, "go to http://127.0.0.1:5929 first")

	other := o
	other.Secret = "another-s3cret"
	expect(t, "after a change of the secret", hostsFiles(other), Problem, "docker.io")
	for _, r := range hostsFiles(other) {
		if contains(r.Found+r.Remedy, "s3cret") {
			t.Errorf("a secret is told: %+v", r)
		}
	}
	if err := os.RemoveAll(filepath.Join(o.CertsDir, "quay.io")); err != nil {
		t.Fatal(err)
	}
	expect(t, "one was removed", hostsFiles(o), Warning, "quay.io in")
	write(t, filepath.Join(o.CertsDir, "ghcr.io", "hosts.toml"), "server = \"https://ghcr.io\"\n")
	hub := filepath.Join(o.CertsDir, "docker.io", "hosts.toml")
	text, err := os.ReadFile(hub)
	if err != nil {
		t.Fatal(err)
	}
	write(t, hub, string(text)+"# mine\n")
	write(t, filepath.Join(o.CertsDir, "registry.example", "hosts.toml"), "")
	got := hostsFiles(o)
	for _, found := range []string{"quay.io in", "ghcr.io in", "docker.io in", "registry.example has a folder"} {
		if !slices.ContainsFunc(got, func(r Result) bool { return r.Status == Warning && contains(r.Found, found) }) {
			t.Errorf("no warning says %q: %+v", found, got)
		}
	}
}

func TestRuntimeVersion(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]Status{
		"v2.4.2": OK, "1.6.20~ds1": OK, "1.5.18": Problem, "v0.9.0": Problem, "v2.0.0-rc.1": OK, "unknown": Unknown, "v2.x": Unknown,
	} {
		if r := runtimeVersion("containerd", version); r.Status != want {
			t.Errorf("containerd %s: got %+v, want %s", version, r, want)
		}
	}
	if r := runtimeVersion("cri-o", "1.31.0"); r.Status != Warning {
		t.Errorf("cri-o: got %+v, want a warning", r)
	}
	absent := filepath.Join(t.TempDir(), "absent.sock")
	expect(t, "no runtime", Runtime(t.Context(), absent, false), Unknown, absent)
	expect(t, "no runtime, and larder is to ask it", Runtime(t.Context(), absent, true), Problem, "space.cri")
}
