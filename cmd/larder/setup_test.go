package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/plugin/hosts"
)

// setupNode is a node's folders for larder setup containerd.
type setupNode struct {
	certsDir, config, containerdConfig, secret string
}

func newSetupNode(t *testing.T) setupNode {
	t.Helper()
	dir := t.TempDir()
	n := setupNode{
		certsDir:         filepath.Join(dir, "certs.d"),
		config:           filepath.Join(dir, "larder.toml"),
		containerdConfig: filepath.Join(dir, "containerd.toml"),
		secret:           filepath.Join(dir, "secret"),
	}
	n.write(t, n.config, "[mirror]\naddress = \"127.0.0.1:5930\"\nsecret_file = \""+n.secret+"\"\n")
	n.write(t, n.containerdConfig, "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '"+n.certsDir+"'\n")
	return n
}

func (n setupNode) write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// run runs larder setup containerd with args.
func (n setupNode) run(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errOut bytes.Buffer
	cmd := newSetupCommand(&options{configPath: n.config, stdout: &out, stderr: &errOut})
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cmd.SetOut(&out)
	cmd.SetErr(&errOut)
	cmd.SetArgs(append([]string{"containerd", "--certs-d", n.certsDir, "--containerd-config", n.containerdConfig}, args...))
	err = cmd.ExecuteContext(t.Context())
	return out.String(), errOut.String(), err
}

func TestSetupContainerdAndUndo(t *testing.T) {
	t.Parallel()
	n := newSetupNode(t)
	stdout, stderr, err := n.run(t, "--registry", "registry.example:5000", "--registry", "quay.io")
	if err != nil {
		t.Fatal(err)
	}
	secret, err := hosts.ReadSecret(n.secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"docker.io", "_default", "registry.example_5000_"} {
		text, err := os.ReadFile(filepath.Join(n.certsDir, dir, "hosts.toml"))
		if err != nil || !strings.Contains(string(text), "http://127.0.0.1:5930") || !strings.Contains(string(text), secret) {
			t.Errorf("%s: got %q, error %v; want the mirror and the secret", dir, text, err)
		}
		if !strings.Contains(stdout, filepath.Join(n.certsDir, dir, "hosts.toml")) {
			t.Errorf("stdout does not name %s:\n%s", dir, stdout)
		}
	}
	if strings.Contains(stdout+stderr, secret) {
		t.Error("the secret was printed")
	}
	if strings.Contains(stderr, "warning") || !strings.Contains(stderr, "--hosts-dir "+n.certsDir) {
		t.Errorf("stderr: want no warning, and what containerd and ctr need:\n%s", stderr)
	}
	stdout, _, err = n.run(t)
	if err != nil || strings.Contains(stdout, "created") || !strings.Contains(stdout, "unchanged") {
		t.Errorf("second run: error %v, stdout:\n%s", err, stdout)
	}

	// --undo works without a usable config.
	n.write(t, n.config, "not TOML")
	if stdout, _, err = n.run(t, "--undo"); err != nil || !strings.Contains(stdout, "removed") {
		t.Errorf("undo: error %v, stdout:\n%s", err, stdout)
	}
	if _, err := os.Stat(n.certsDir); !os.IsNotExist(err) {
		t.Errorf("undo left %s: %v", n.certsDir, err)
	}
	if stdout, _, err = n.run(t, "--undo"); err != nil || !strings.Contains(stdout, "nothing of larder's") {
		t.Errorf("second undo: error %v, stdout:\n%s", err, stdout)
	}
}

func TestSetupContainerdPrintWritesNothing(t *testing.T) {
	t.Parallel()
	n := newSetupNode(t)
	stdout, stderr, err := n.run(t, "--print")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(stdout, "server = \"https://registry-1.docker.io\"") || !strings.Contains(stderr, n.secret) {
		t.Errorf("got stdout\n%s\nstderr\n%s\nwant the files, and a word on the secret that is not there yet", stdout, stderr)
	}
	for _, path := range []string{n.certsDir, n.secret} {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("--print made %s: %v", path, err)
		}
	}
	n.write(t, n.secret, "s3cret\n")
	if stdout, _, err = n.run(t, "--print"); err != nil || !strings.Contains(stdout, `["s3cret"]`) {
		t.Errorf("with a secret: error %v, stdout:\n%s", err, stdout)
	}
}

func TestSetupContainerdJSON(t *testing.T) {
	t.Parallel()
	n := newSetupNode(t)
	n.write(t, n.containerdConfig, "version = 2\n")
	stdout, stderr, err := n.run(t, "--json")
	if err != nil {
		t.Fatal(err)
	}
	var res setupResult
	if err := json.Unmarshal([]byte(stdout), &res); err != nil {
		t.Fatalf("%v in %s", err, stdout)
	}
	if len(res.Changes) != len(hosts.DefaultRegistries()) || !res.SecretCreated || len(res.Findings) != 1 || stderr != "" {
		t.Errorf("got %+v and stderr %q, want all changes, a new secret and one finding", res, stderr)
	}
	if stdout, _, err = n.run(t, "--json", "--print"); err != nil || json.Unmarshal([]byte(stdout), &res) != nil || len(res.Files) == 0 {
		t.Errorf("with --print: error %v, stdout %s", err, stdout)
	}
}

func TestSetupContainerdWarns(t *testing.T) {
	t.Parallel()
	n := newSetupNode(t)
	n.write(t, n.containerdConfig, "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = '"+n.certsDir+":/etc/docker/certs.d'\n")
	_, stderr, err := n.run(t)
	if err != nil || !strings.Contains(stderr, "is a list") || !strings.Contains(stderr, `[plugins."io.containerd.grpc.v1.cri".registry]`) {
		t.Errorf("error %v, stderr:\n%s\nwant a warning with the fix for version 2", err, stderr)
	}
	n.write(t, n.containerdConfig, "version =")
	if _, stderr, err = n.run(t); err != nil || !strings.Contains(stderr, "warning: "+n.containerdConfig) {
		t.Errorf("unreadable config: error %v, stderr:\n%s\nwant a warning", err, stderr)
	}
}

func TestSetupContainerdReportsWhatItLeft(t *testing.T) {
	t.Parallel()
	n := newSetupNode(t)
	if _, _, err := n.run(t); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(n.certsDir, "quay.io", "hosts.toml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n.write(t, path, string(text)+"# mine\n")
	stdout, _, err := n.run(t, "--undo")
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(stdout, "left") || !strings.Contains(stdout, "removed") {
		t.Errorf("got error %v, stdout\n%s\nwant a refusal of one file and the others removed", err, stdout)
	}
	if _, _, err := n.run(t, "--undo", "--force"); err != nil {
		t.Errorf("with --force: %v", err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("--force left the file: %v", err)
	}
}

func TestSetupContainerdWrongUse(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		config string
		args   []string
	}{
		"argument":            {"", []string{"docker.io"}},
		"print and undo":      {"", []string{"--print", "--undo"}},
		"registry and undo":   {"", []string{"--registry", "quay.io", "--undo"}},
		"unknown flag":        {"", []string{"--purge"}},
		"bad registry":        {"", []string{"--registry", "../etc"}},
		"port chosen later":   {"[mirror]\naddress = \"127.0.0.1:0\"\n", nil},
		"broken config":       {"[mirror", nil},
		"secret is no secret": {"[mirror]\nsecret_file = \"/dev/null\"\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newSetupNode(t)
			if test.config != "" {
				n.write(t, n.config, test.config)
			}
			if _, _, err := n.run(t, test.args...); err == nil {
				t.Error("got no error")
			}
			if _, err := os.Stat(n.certsDir); !os.IsNotExist(err) {
				t.Errorf("certs.d was made: %v", err)
			}
		})
	}
}

// Modes that cannot be had are refused before anything is written.
func TestSetupContainerdModeRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args  []string
		extra string // of larder's configuration
		want  string
		usage bool
	}{
		"unknown":       {args: []string{"--mode", "prox"}, want: "want mirror, mirror+diff, proxy", usage: true},
		"with undo":     {args: []string{"--mode", "proxy", "--undo"}, want: "none of the others can be", usage: true},
		"not enabled":   {args: []string{"--mode", "proxy"}, want: `services = ["content", "diff"]`},
		"other service": {args: []string{"--mode", "mirror+diff"}, extra: "[proxy]\nenabled = true\n", want: `services = ["diff"]`},
		"nobody there":  {args: []string{"--mode", "proxy"}, extra: "[proxy]\nenabled = true\nsocket = \"/no/such.sock\"\n", want: "does not answer at proxy.socket /no/such.sock"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newSetupNode(t)
			n.write(t, n.config, "mirror.address = \"127.0.0.1:5930\"\n"+test.extra)
			_, _, err := n.run(t, test.args...)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
			var usage *usageError
			if errors.As(err, &usage) != test.usage {
				t.Errorf("%v: is a usage error: %t", err, !test.usage)
			}
			if _, err := os.Stat(n.certsDir); err == nil {
				t.Error("hosts.toml files were written")
			}
		})
	}
}

func TestSetupContainerdCompletesModes(t *testing.T) {
	t.Parallel()
	if got, _ := completeModes(nil, nil, "mirror"); len(got) != 2 || got[1] != "mirror+diff" {
		t.Errorf("got %v", got)
	}
}
