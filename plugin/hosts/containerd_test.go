package hosts

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

const certs = "/etc/containerd/certs.d"

func TestInspectConfig(t *testing.T) {
	t.Parallel()
	const (
		v2 = "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.registry]\n"
		v3 = "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\n"
	)
	for name, test := range map[string]struct {
		config string
		want   []string // a part of each finding's problem
	}{
		"v2 good":           {v2 + `config_path = "/etc/containerd/certs.d"`, nil},
		"v3 good":           {v3 + `config_path = "/etc/containerd/certs.d/"`, nil},
		"v4 good":           {strings.Replace(v3, "3", "4", 1) + `config_path = "/etc/containerd/certs.d"`, nil},
		"empty":             {"", []string{"not set"}},
		"v3 missing":        {v3, []string{"not set"}},
		"v3 empty":          {v3 + `config_path = ""`, []string{"not set"}},
		"v3 file, v2 table": {strings.Replace(v2, "2", "3", 1) + `config_path = "/etc/containerd/certs.d"`, []string{"not set"}},
		"list":              {v3 + `config_path = "/etc/containerd/certs.d:/etc/docker/certs.d"`, []string{"is a list"}},
		"elsewhere":         {v3 + `config_path = "/etc/docker/certs.d"`, []string{"another folder"}},
		"mirrors": {v2 + "config_path = '/etc/containerd/certs.d'\n[plugins.'io.containerd.grpc.v1.cri'.registry.mirrors.'docker.io']\nendpoint = ['https://m']",
			[]string{"registry.mirrors (docker.io)"}},
		"mirrors alone": {v2 + "[plugins.'io.containerd.grpc.v1.cri'.registry.mirrors.'docker.io']\nendpoint = ['https://m']",
			[]string{"not set", "registry.mirrors (docker.io)"}},
		"tls": {v2 + "config_path = '/etc/containerd/certs.d'\n[plugins.'io.containerd.grpc.v1.cri'.registry.configs.'a:5000'.tls]\ninsecure_skip_verify = true",
			[]string{"registry.configs with tls (a:5000)"}},
		"other plugin with a registry": {"[plugins.x]\nregistry = 'a'\n", []string{"not set"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := put(t, t.TempDir(), "config.toml", test.config, 0o644)
			found, err := InspectConfig(path, certs)
			if err != nil || len(found) != len(test.want) {
				t.Fatalf("got %+v, error %v; want %v", found, err, test.want)
			}
			for i, f := range found {
				if !strings.Contains(f.Problem, test.want[i]) || f.Path != path || f.Fix == "" {
					t.Errorf("got %+v, want one with %q", f, test.want[i])
				}
			}
		})
	}
}

func TestInspectConfigOfNoFile(t *testing.T) {
	t.Parallel()
	found, err := InspectConfig(filepath.Join(t.TempDir(), "config.toml"), certs)
	if err != nil || len(found) != 1 || !strings.Contains(found[0].Fix, "version = 3") || !strings.Contains(found[0].Fix, "version = 2") {
		t.Errorf("got %+v, error %v; want one with a fix for both versions", found, err)
	}
}

func TestInspectConfigFollowsImports(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := put(t, dir, "config.toml", "version = 3\nimports = ['conf.d/*.toml', 'config.toml']\n", 0o644)
	put(t, dir, "conf.d/50-larder.toml", "[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/etc/containerd/certs.d'\n", 0o644)
	if found, err := InspectConfig(path, certs); err != nil || len(found) != 0 {
		t.Errorf("got %+v, error %v; want none", found, err)
	}
}

// A containerd before 2.4 takes a plugin's table from the last file that has one.
func TestInspectConfigLostInImport(t *testing.T) {
	t.Parallel()
	const (
		table = "[plugins.'io.containerd.grpc.v1.cri'"
		main  = "imports = ['conf.d/*.toml']\n" + table + ".registry]\nconfig_path = '/etc/containerd/certs.d'\n"
		other = table + "]\nmax_concurrent_downloads = 2\n"
	)
	for name, test := range map[string]struct {
		version       string
		first, second string // the imported files
		lost          string // the file that the finding is about
	}{
		"another setting":             {"version = 2\n", other, "", "1.toml"},
		"in the last":                 {"version = 2\n", "", other, "2.toml"},
		"a version of its own":        {"version = 2\n", "version = 2\n" + other, "", "1.toml"},
		"set again":                   {"version = 2\n", other, table + ".registry]\nconfig_path = '/etc/containerd/certs.d'\n", ""},
		"another plugin":              {"version = 2\n", "[plugins.'io.containerd.gc.v1.scheduler']\npause_threshold = 0.02\n", "", ""},
		"merged by the newest (v3)":   {"version = 3\n", strings.ReplaceAll(other, "grpc.v1.cri", "cri.v1.images"), "", ""},
		"a table that it cannot read": {"version = 2\n", "[plugins]\n'io.containerd.grpc.v1.cri' = 1\n", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			text := test.version + main
			if strings.Contains(test.version, "3") {
				text = strings.ReplaceAll(text, "grpc.v1.cri", "cri.v1.images")
			}
			path := put(t, dir, "config.toml", text, 0o644)
			put(t, dir, "conf.d/1.toml", test.first, 0o644)
			put(t, dir, "conf.d/2.toml", test.second, 0o644)
			found, err := InspectConfig(path, certs)
			switch {
			case err != nil:
				t.Error(err)
			case test.lost == "" && len(found) != 0:
				t.Errorf("got %+v, want none", found)
			case test.lost != "" && (len(found) != 1 || found[0].Path != filepath.Join(dir, "conf.d", test.lost) || !strings.Contains(found[0].Problem, path)):
				t.Errorf("got %+v, want one about %s that names %s", found, test.lost, path)
			}
		})
	}
}

func TestInspectConfigOfBadFile(t *testing.T) {
	t.Parallel()
	for _, config := range []string{
		"version = ", "version = 'three'",
		"version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = ['a']\n",
	} {
		path := put(t, t.TempDir(), "config.toml", config, 0o644)
		if _, err := InspectConfig(path, certs); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: got %v, want invalid argument that names the file", config, err)
		}
	}
}

// TestFixFixes puts the lines that a finding offers into the config and looks again.
func TestFixFixes(t *testing.T) {
	t.Parallel()
	for _, config := range []string{"version = 2\n", "version = 3\n", "version = 4\n"} {
		path := put(t, t.TempDir(), "config.toml", config, 0o644)
		found, err := InspectConfig(path, certs)
		if err != nil || len(found) != 1 {
			t.Fatalf("%q: got %+v, error %v; want one finding", config, found, err)
		}
		for line := range strings.Lines(found[0].Fix) {
			if strings.HasPrefix(line, " ") {
				config += line
			}
		}
		put(t, filepath.Dir(path), "config.toml", config, 0o644)
		if found, err = InspectConfig(path, certs); err != nil || len(found) != 0 {
			t.Errorf("%q: got %+v, error %v; want it fixed", config, found, err)
		}
	}
}
