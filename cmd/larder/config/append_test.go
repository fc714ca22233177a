package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const addedRule = "[[rules]]\necr_repository_prefix = \"team\"\nupstream_registry_url = \"registry.example\"\n"

// appendTo runs Append on a file of the given content and returns the file.
func appendTo(t *testing.T, content, text string) (file string, err error) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, []byte(content), 0o640); err != nil {
		t.Fatal(err)
	}
	return file, Append(file, []byte(text), nil)
}

func mustRead(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// onlyFile fails if something was left beside a file.
func onlyFile(t *testing.T, file string) {
	t.Helper()
	all, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(all) != 1 {
		t.Errorf("got %v, %v, want the file alone", all, err)
	}
}

func TestAppend(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ content, want string }{
		"comments stay":  {"# mine\n[freshness] # hers\nwindow = \"1h\"\n", "# mine\n[freshness] # hers\nwindow = \"1h\"\n\n" + addedRule},
		"no end of line": {"[freshness]\nwindow = \"1h\"", "[freshness]\nwindow = \"1h\"\n\n" + addedRule},
		"empty":          {"", addedRule},
		"further rule": {
			"[[rules]]\necr_repository_prefix = \"q1\"\nupstream_registry_url = \"quay.io\"\n",
			"[[rules]]\necr_repository_prefix = \"q1\"\nupstream_registry_url = \"quay.io\"\n\n" + addedRule,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file, err := appendTo(t, tc.content, addedRule)
			if err != nil {
				t.Fatal(err)
			}
			if got := mustRead(t, file); got != tc.want {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
			if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 {
				t.Errorf("mode is %v, %v", info.Mode(), err)
			}
			onlyFile(t, file)
		})
	}
}

func TestAppendKeepsFileOnFailure(t *testing.T) {
	t.Parallel()
	taken := "[[rules]]\necr_repository_prefix = \"team\"\nupstream_registry_url = \"quay.io\"\n"
	for name, tc := range map[string]struct{ content, text, want string }{
		"prefix taken":  {taken, addedRule, "stands in rules[0].ecr_repository_prefix already"},
		"unknown key":   {"", addedRule + "wat = 1\n", ":4:1: rules[0].wat: unknown key"},
		"inline rules":  {"rules = []\n", addedRule, "config.toml:"},
		"broken before": {"[freshness\n", addedRule, "config.toml:"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file, err := appendTo(t, tc.content, tc.text)
			if _, ok := errors.AsType[*Error](err); !ok || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), file+": nothing added: ") {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), "."+filepath.Base(file)+".") {
				t.Errorf("the temporary file is in %v", err)
			}
			if got := mustRead(t, file); got != tc.content {
				t.Errorf("got\n%s", got)
			}
			onlyFile(t, file)
		})
	}
}

func TestAppendNewFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := Append(file, []byte(addedRule), nil); err != nil {
		t.Fatal(err)
	}
	if got := mustRead(t, file); got != addedRule {
		t.Errorf("got\n%s", got)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != newFileMode {
		t.Errorf("mode is %v, %v", info.Mode(), err)
	}
	if err := Append(filepath.Join(t.TempDir(), "none", "config.toml"), []byte(addedRule), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a folder: %v", err)
	}
}

// TestAppendThroughLink: configuration is often linked to from elsewhere.
func TestAppendThroughLink(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "real.toml")
	link := filepath.Join(t.TempDir(), "config.toml")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Symlink(file, link)); err != nil {
		t.Fatal(err)
	}
	if err := Append(link, []byte(addedRule), nil); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(link); err != nil || to != file || mustRead(t, file) != addedRule {
		t.Errorf("link to %q, %v", to, err)
	}
}

func TestAppendRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := Append(dir, []byte(addedRule), nil); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("a folder: %v", err)
	}
	other, err := lockFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := Append(filepath.Join(dir, "config.toml"), []byte(addedRule), nil); !errdefs.IsUnavailable(err) {
		t.Errorf("two at once: %v", err)
	}
}

// TestAppendKeepsOwner takes root, and is nothing for others.
func TestAppendKeepsOwner(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Chown(file, 4711, 4712)); err != nil {
		t.Fatal(err)
	}
	if err := Append(file, []byte(addedRule), nil); err != nil {
		t.Fatal(err)
	}
	if uid, gid := owner(t, file); uid != 4711 || gid != 4712 {
		t.Errorf("belongs to %d:%d", uid, gid)
	}
}

func owner(t *testing.T, file string) (uid, gid uint32) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		t.Fatal(err)
	}
	return st.Uid, st.Gid
}
