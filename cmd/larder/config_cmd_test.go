package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-project/larder/cmd/larder/config"
)

// runConfig runs larder config with a file of the given content as --config
// and returns what it wrote.
func runConfig(t *testing.T, file string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := newConfigCommand(&options{configPath: file, stdout: &out, stderr: &errs})
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err = cmd.ExecuteContext(t.Context())
	return out.String(), errs.String(), err
}

func configFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestConfigCheck(t *testing.T) {
	t.Parallel()
	good := configFile(t, "[freshness]\nwindow = \"1h\"\n")
	bad := configFile(t, "[freshness]\nwindow = \"1d\"\n")
	none := filepath.Join(t.TempDir(), "none.toml")
	for name, tc := range map[string]struct {
		given   string
		args    []string
		want    string
		problem string
	}{
		"file by flag":            {given: good, want: good + ": ok\n"},
		"argument wins over flag": {given: bad, args: []string{good}, want: good + ": ok\n"},
		"bad":                     {given: good, args: []string{bad}, problem: bad + ":2:10: freshness.window: "},
		"missing":                 {args: []string{none}, problem: none + ": no such file or directory"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stdout, _, err := runConfig(t, tc.given, append([]string{"check"}, tc.args...)...)
			if stdout != tc.want {
				t.Errorf("got %q, want %q", stdout, tc.want)
			}
			if tc.problem == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if _, ok := errors.AsType[*config.Error](err); !ok || !strings.HasPrefix(err.Error(), tc.problem) {
				t.Errorf("got %v, want a *config.Error that begins with %q", err, tc.problem)
			}
		})
	}
}

func TestConfigCheckWarns(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("s3cret"), 0o644); err != nil {
		t.Fatal(err)
	}
	file := configFile(t, "[mirror]\nsecret_file = \""+secret+"\"\n")
	stdout, stderr, err := runConfig(t, file, "check")
	if err != nil || stdout != file+": ok\n" {
		t.Errorf("got %q, %v", stdout, err)
	}
	if !strings.Contains(stderr, "warning: mirror.secret_file: ") || strings.Contains(stderr, "s3cret") {
		t.Errorf("got %q, want a warning without the secret", stderr)
	}
}

// TestConfigCheckIsServes: what the daemon would refuse at its start the check
// finds, with the same words.
func TestConfigCheckIsServes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const rules = `
[[rules]]
ecr_repository_prefix = "hub"
upstream_registry_url = "registry-1.docker.io"
credential_file = "/one.json"
[[rules]]
ecr_repository_prefix = "hub2"
upstream_registry_url = "docker.io"
credential_file = "/two.json"
`
	for name, tc := range map[string]struct {
		text string
		want []string // each on a line of its own, behind the file's name
	}{
		"kubelet's configuration": {
			"[credentials]\nkubelet_config = \"/none/config.json\"\nkubelet_bin_dir = \"/none\"\n",
			[]string{"credentials: kubelet_config /none/config.json: no such file or directory"},
		},
		"two credentials": {rules, []string{"credentials: two rules name different credentials"}},
		"certificates": {
			"[[upstream.hosts]]\nhost = \"a.example\"\nca_file = \"/none/ca.pem\"\n[[upstream.hosts]]\nhost = \"b.example\"\nca_file = \"" + empty + "\"\n",
			[]string{"upstream host a.example: open /none/ca.pem: no such file", "upstream host b.example: " + empty + " holds no PEM certificate"},
		},
		"node secret": {"[mirror]\nsecret_file = \"" + empty + "\"\n", []string{"mirror.secret_file: "}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			home := t.TempDir()
			text := "root = \"" + home + "/root\"\nadmin.address = \"" + home + "/a\"\n"
			if !strings.Contains(tc.text, "[mirror]") {
				text += "mirror.address = \"127.0.0.1:0\"\n"
			}
			file := configFile(t, text+tc.text)
			code, stdout, check := larder(t, file, "", "config", "check")
			if code != exitUsage || stdout != "" {
				t.Errorf("exit %d, %q", code, stdout)
			}
			var problems []string
			for line := range strings.Lines(check) {
				if !strings.HasPrefix(line, "warning: ") {
					problems = append(problems, strings.TrimPrefix(line, "larder: "))
				}
			}
			if len(problems) != len(tc.want) {
				t.Fatalf("got %q, want %q", problems, tc.want)
			}
			for i, want := range tc.want {
				if !strings.HasPrefix(problems[i], file+": "+want) {
					t.Errorf("got %q, want %q", problems[i], want)
				}
			}
			code, _, serve := larder(t, file, "", "serve")
			if code != exitUsage || !strings.HasSuffix(serve, "larder: "+strings.Join(problems, "")) {
				t.Errorf("serve: exit %d\n%s\nwant\n%s", code, serve, check)
			}
		})
	}
}

// TestConfigCheckWarnsOfParts: what may come later, or has no effect, is a warning.
func TestConfigCheckWarnsOfParts(t *testing.T) {
	t.Parallel()
	file := configFile(t, "[credentials]\ndocker_config = \"/none/docker.json\"\n[[rules]]\necr_repository_prefix = \"hub\"\n"+
		"upstream_registry_url = \"docker.io\"\ncredential_file = \"/none/hub.json\"\n[[templates]]\nprefix = \"hubb\"\nmode = \"offline\"\n")
	code, stdout, stderr := larder(t, file, "", "config", "check")
	if code != 0 || stdout != file+": ok\n" {
		t.Errorf("exit %d, %q", code, stdout)
	}
	for _, want := range []string{
		"warning: template holds for nothing: its prefix is neither that of a rule nor begins with a registry host, prefix hubb\n",
		"warning: docker's credentials cannot be read yet: docker_config /none/docker.json: no such file or directory\n",
		"warning: no credential yet for the upstream of a rule, its pulls fail until there is one, upstream docker.io: credential_file /none/hub.json: no such file or directory\n",
	} {
		if !strings.Contains(stderr, want) {
			t.Errorf("no %q in\n%s", want, stderr)
		}
	}
}

func TestConfigDump(t *testing.T) {
	t.Parallel()
	secret := configFile(t, "s3cret")
	file := configFile(t, "[freshness]\nwindow = \"1h\"\n[mirror]\nsecret_file = \""+secret+"\"\n")
	stdout, _, err := runConfig(t, file, "dump")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"root = \"/var/lib/larder\"\n", "window = \"1h\"\n", "patience = \"1s\"\n", secret} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
	if strings.Contains(stdout, "s3cret") {
		t.Errorf("the secret is in\n%s", stdout)
	}
	again, _, err := runConfig(t, configFile(t, stdout), "dump")
	if err != nil || again != stdout {
		t.Errorf("the dump of a dump differs: %v\n%s", err, again)
	}
}

func TestConfigDumpJSON(t *testing.T) {
	t.Parallel()
	stdout, _, err := runConfig(t, configFile(t, "[freshness]\nwindow = \"1h\"\n"), "dump", "--json")
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Root      string
		Freshness struct{ Window, Patience string }
	}
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	if got.Root != "/var/lib/larder" || got.Freshness.Window != "1h" || got.Freshness.Patience != "1s" {
		t.Errorf("got %+v from\n%s", got, stdout)
	}
}
