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
