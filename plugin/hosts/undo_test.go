package hosts

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
)

// TestUndoLeavesNoTrace applies and undoes over each thing that may stand in certs.d before.
func TestUndoLeavesNoTrace(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(t *testing.T, dir string){
		"no certs.d":    func(*testing.T, string) {},
		"empty certs.d": func(t *testing.T, dir string) { mkdir(t, dir) },
		"empty folder":  func(t *testing.T, dir string) { mkdir(t, filepath.Join(dir, "docker.io")) },
		"foreign file": func(t *testing.T, dir string) {
			put(t, dir, "docker.io/hosts.toml", "server = \"https://a\"\n", 0o640)
			put(t, dir, "_default/hosts.toml", "", 0o444)
		},
		"other registry": func(t *testing.T, dir string) {
			put(t, dir, "registry.example/hosts.toml", "# theirs\n", 0o644)
			put(t, dir, "_backup/docker.io/hosts.toml", "# spegel's\n", 0o644)
		},
		"certificates": func(t *testing.T, dir string) { put(t, dir, "docker.io/ca.crt", "no PEM\n", 0o644) },
		"link as hosts.toml": func(t *testing.T, dir string) {
			put(t, dir, "shared.toml", "# theirs\n", 0o644)
			mkdir(t, filepath.Join(dir, "docker.io"))
			if err := os.Symlink("../shared.toml", filepath.Join(dir, "docker.io", hostsName)); err != nil {
				t.Fatal(err)
			}
		},
		"dangling link as hosts.toml": func(t *testing.T, dir string) {
			mkdir(t, filepath.Join(dir, "docker.io"))
			if err := os.Symlink("/nonexistent/hosts.toml", filepath.Join(dir, "docker.io", hostsName)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := testOptions(filepath.Join(t.TempDir(), "certs.d"))
			prepare(t, o.CertsDir)
			before := tree(t, o.CertsDir)
			for range 2 {
				if _, err := Apply(t.Context(), o); err != nil {
					t.Fatal(err)
				}
			}
			changes, err := Undo(t.Context(), UndoOptions{CertsDir: o.CertsDir})
			if err != nil {
				t.Fatal(err)
			}
			if len(changes) != len(DefaultRegistries()) {
				t.Errorf("undo: got %d changes, want %d", len(changes), len(DefaultRegistries()))
			}
			if diff := cmp.Diff(before, tree(t, o.CertsDir)); diff != "" {
				t.Errorf("undo left a trace (-before +after):\n%s", diff)
			}
			changes, err = Undo(t.Context(), UndoOptions{CertsDir: o.CertsDir})
			if err != nil || len(changes) != 0 {
				t.Errorf("second undo: got %v, error %v; want nothing", changes, err)
			}
		})
	}
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestUndoKeepsFolderWithOtherThings(t *testing.T) {
	t.Parallel()
	o := testOptions(filepath.Join(t.TempDir(), "certs.d"))
	o.Registries = []string{"docker.io", "quay.io"}
	if _, err := Apply(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	put(t, o.CertsDir, "docker.io/ca.crt", "added later\n", 0o644)
	if _, err := Undo(t.Context(), UndoOptions{CertsDir: o.CertsDir}); err != nil {
		t.Fatal(err)
	}
	got := tree(t, o.CertsDir)
	want := map[string]string{"": "drwxr-xr-x ", "/docker.io": "drwxr-xr-x ", "/docker.io/ca.crt": "-rw-r--r-- added later\n"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUndoRestoresWhenLardersFileIsGone(t *testing.T) {
	t.Parallel()
	o := testOptions(t.TempDir())
	o.Registries = []string{"docker.io"}
	path := put(t, o.CertsDir, "docker.io/hosts.toml", "# theirs\n", 0o644)
	if _, err := Apply(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	changes, err := Undo(t.Context(), UndoOptions{CertsDir: o.CertsDir})
	if err != nil || actions(changes)["docker.io"] != ActionRestored {
		t.Fatalf("got %v, error %v; want it restored", changes, err)
	}
	if got := slurp(t, path); got != "# theirs\n" {
		t.Errorf("got %q", got)
	}
}

func TestUndoOfUnknownThingInStaging(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := put(t, dir, stagingName+"/notes.txt", "somebody's\n", 0o644)
	if _, err := Undo(t.Context(), UndoOptions{CertsDir: dir}); err == nil || errdefs.IsFailedPrecondition(err) {
		t.Errorf("got %v, want an error that stops the run", err)
	}
	if slurp(t, path) != "somebody's\n" {
		t.Error("the file changed")
	}
}
