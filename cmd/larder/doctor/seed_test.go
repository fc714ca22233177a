package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What keeps images from being linked into containerd's content is told, with what
// to do.
func TestSeed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root, content, file := filepath.Join(dir, "store"), filepath.Join(dir, "content"), filepath.Join(dir, "file")
	for _, path := range []string{root, content, filepath.Join(dir, "other", "etc")} {
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		content, root string
		status        Status
		remedy        string
	}{
		"fine":        {content, root, OK, ""},
		"not there":   {filepath.Join(dir, "none"), root, Warning, "start containerd"},
		"another's":   {filepath.Join(dir, "other"), root, Problem, "seed.content"},
		"file system": {"/dev/shm", root, Problem, "seed.enabled = false"},
		"no store":    {content, filepath.Join(dir, "none"), Unknown, "start the daemon"},
		"file":        {file, root, Unknown, ""},
	} {
		got := Seed(c.content, c.root)
		if got.Status != c.status || !strings.Contains(got.Remedy, c.remedy) || strings.HasSuffix(got.Found, ": not found") || got.Check != "seed" {
			t.Errorf("%s: got %+v, want %s with %q", name, got, c.status, c.remedy)
		}
	}
}
