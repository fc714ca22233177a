package hosts

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testMirror = "http://127.0.0.1:5929"

// testOptions are valid options for a certs.d in dir.
func testOptions(dir string) Options {
	return Options{CertsDir: dir, MirrorURL: testMirror, Secret: "0123abcd"}
}

// put writes a file below dir, with its folders.
func put(t *testing.T, dir, name, content string, mode fs.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func slurp(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// tree maps each path below dir to its mode and content; a dir that does not exist is an empty map.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		content := ""
		switch info.Mode().Type() {
		case 0:
			content = slurp(t, path)
		case fs.ModeSymlink:
			content, err = os.Readlink(path)
		}
		all[strings.TrimPrefix(path, dir)] = info.Mode().String() + " " + content
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return all
}

// actions maps each host to what was done to its file.
func actions(changes []Change) map[string]Action {
	m := map[string]Action{}
	for _, ch := range changes {
		m[ch.Host] = ch.Action
	}
	return m
}
