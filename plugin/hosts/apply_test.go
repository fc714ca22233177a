package hosts

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/larder-project/larder/plugin/internal/ownfile"
)

func TestApplyTwiceChangesNothing(t *testing.T) {
	t.Parallel()
	o := testOptions(filepath.Join(t.TempDir(), "etc", "certs.d"))
	changes, err := Apply(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(changes) != len(DefaultRegistries()) {
		t.Errorf("got %d changes, want one for each of %v", len(changes), DefaultRegistries())
	}
	for _, ch := range changes {
		if ch.Action != ActionCreated {
			t.Errorf("%s: got %s, want %s", ch.Path, ch.Action, ActionCreated)
		}
	}
	before := tree(t, o.CertsDir)
	first, err := os.Stat(filepath.Join(o.CertsDir, "docker.io", hostsName))
	if err != nil {
		t.Fatal(err)
	}
	changes, err = Apply(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, ch := range changes {
		if ch.Action != ActionUnchanged {
			t.Errorf("%s: got %s, want %s", ch.Path, ch.Action, ActionUnchanged)
		}
	}
	if diff := cmp.Diff(before, tree(t, o.CertsDir)); diff != "" {
		t.Errorf("certs.d changed (-first +second):\n%s", diff)
	}
	second, err := os.Stat(filepath.Join(o.CertsDir, "docker.io", hostsName))
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(first, second) {
		t.Error("hosts.toml was written again though nothing changed")
	}
}

func TestApplyModes(t *testing.T) {
	t.Parallel()
	o := testOptions(filepath.Join(t.TempDir(), "certs.d"))
	if _, err := Apply(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{
		"": 0o755 | fs.ModeDir, "_default": 0o755 | fs.ModeDir, "_default/hosts.toml": 0o600,
	} {
		info, err := os.Stat(filepath.Join(o.CertsDir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s: got mode %v, want %v", name, info.Mode(), want)
		}
	}
}

func TestApplyUpdatesAllThatLarderWrote(t *testing.T) {
	t.Parallel()
	o := testOptions(t.TempDir())
	o.Registries = []string{"docker.io", "registry.example:5000"}
	if _, err := Apply(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	// A mode that lets others read the secret is put right, too.
	if err := os.Chmod(filepath.Join(o.CertsDir, "docker.io", hostsName), 0o644); err != nil {
		t.Fatal(err)
	}
	o.Registries = []string{"docker.io"}
	changes, err := Apply(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]Action{"docker.io": ActionUpdated, "registry.example:5000": ActionUnchanged}
	if diff := cmp.Diff(want, actions(changes)); diff != "" {
		t.Errorf("after chmod (-want +got):\n%s", diff)
	}
	o.Secret = "another"
	if changes, err = Apply(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	want = map[string]Action{"docker.io": ActionUpdated, "registry.example:5000": ActionUpdated}
	if diff := cmp.Diff(want, actions(changes)); diff != "" {
		t.Errorf("after a new secret (-want +got):\n%s", diff)
	}
	text := slurp(t, filepath.Join(o.CertsDir, "registry.example_5000_", hostsName))
	if !strings.Contains(text, `["another"]`) || strings.Contains(text, "0123abcd") {
		t.Errorf("the host of an earlier run keeps the old secret:\n%s", text)
	}
}

func TestApplyKeepsForeignFile(t *testing.T) {
	t.Parallel()
	o := testOptions(t.TempDir())
	o.Registries = []string{"docker.io"}
	const foreign = "server = \"https://mirror.example\"\r\n# no newline at the end"
	path := put(t, o.CertsDir, "docker.io/hosts.toml", foreign, 0o640)
	backup := filepath.Join(o.CertsDir, "docker.io", backupName)
	original, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}

	changes, err := Apply(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	want := []Change{{Host: "docker.io", Path: path, Action: ActionReplaced, Backup: backup}}
	if diff := cmp.Diff(want, changes); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	if _, err := Apply(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	o.Secret = ""
	if _, err := Apply(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	kept, err := os.Stat(backup)
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(original, kept) || kept.Mode() != 0o640 || slurp(t, backup) != foreign {
		t.Errorf("the kept file is not the one that was there: mode %v, content %q", kept.Mode(), slurp(t, backup))
	}
}

func TestApplyNeverOverwritesBackup(t *testing.T) {
	t.Parallel()
	for _, force := range []bool{false, true} {
		o := testOptions(t.TempDir())
		o.Registries, o.Force = []string{"docker.io", "quay.io"}, force
		put(t, o.CertsDir, "docker.io/hosts.toml", "# first\n", 0o644)
		if _, err := Apply(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		// A config manager puts its file back over larder's.
		put(t, o.CertsDir, "docker.io/hosts.toml", "# second\n", 0o644)
		o.Secret = "another"
		changes, err := Apply(t.Context(), o)
		if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), backupName) {
			t.Errorf("force %v: got error %v, want a refusal that names %s", force, err, backupName)
		}
		want := map[string]Action{"docker.io": ActionLeft, "quay.io": ActionUpdated}
		if diff := cmp.Diff(want, actions(changes)); diff != "" {
			t.Errorf("force %v: the refusal must not stop the others (-want +got):\n%s", force, diff)
		}
		if _, err := Undo(t.Context(), UndoOptions{CertsDir: o.CertsDir, Force: force}); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("force %v: undo: got error %v, want a refusal", force, err)
		}
		first := slurp(t, filepath.Join(o.CertsDir, "docker.io", backupName))
		second := slurp(t, filepath.Join(o.CertsDir, "docker.io", hostsName))
		if first != "# first\n" || second != "# second\n" {
			t.Errorf("force %v: a file was lost: backup %q, hosts.toml %q", force, first, second)
		}
	}
}

func TestEditedFileIsLeftAloneWithoutForce(t *testing.T) {
	t.Parallel()
	o := testOptions(t.TempDir())
	o.Registries = []string{"docker.io"}
	if _, err := Apply(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(o.CertsDir, "docker.io", hostsName)
	edited := slurp(t, path) + "# and this\n"
	put(t, o.CertsDir, "docker.io/hosts.toml", edited, 0o600)

	changes, err := Apply(t.Context(), o)
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), path) || actions(changes)["docker.io"] != ActionLeft {
		t.Errorf("apply: got %v, error %v; want it left and the error to name %s", changes, err, path)
	}
	changes, err = Undo(t.Context(), UndoOptions{CertsDir: o.CertsDir})
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), path) || actions(changes)["docker.io"] != ActionLeft {
		t.Errorf("undo: got %v, error %v; want it left and the error to name %s", changes, err, path)
	}
	if got := slurp(t, path); got != edited {
		t.Errorf("the edited file was changed to %q", got)
	}

	o.Force = true
	if changes, err = Apply(t.Context(), o); err != nil || actions(changes)["docker.io"] != ActionUpdated {
		t.Errorf("apply with force: got %v, error %v", changes, err)
	}
	put(t, o.CertsDir, "docker.io/hosts.toml", edited, 0o600)
	if changes, err = Undo(t.Context(), UndoOptions{CertsDir: o.CertsDir, Force: true}); err != nil || actions(changes)["docker.io"] != ActionRemoved {
		t.Errorf("undo with force: got %v, error %v", changes, err)
	}
	if left := tree(t, o.CertsDir); len(left) != 1 {
		t.Errorf("undo with force left %v", left)
	}
}

func TestApplyRefusesSymlinks(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	put(t, outside, "hosts.toml", "# theirs\n", 0o644)
	o := testOptions(t.TempDir())
	o.Registries = []string{"docker.io", "ghcr.io", "quay.io"}
	if err := os.Symlink(outside, filepath.Join(o.CertsDir, "docker.io")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("quay.io", filepath.Join(o.CertsDir, "ghcr.io")); err != nil {
		t.Fatal(err)
	}
	before := tree(t, outside)
	changes, err := Apply(t.Context(), o)
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("got error %v, want one about the symbolic links", err)
	}
	want := map[string]Action{"docker.io": ActionLeft, "ghcr.io": ActionLeft, "quay.io": ActionCreated}
	if diff := cmp.Diff(want, actions(changes)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := Undo(t.Context(), UndoOptions{CertsDir: o.CertsDir}); err != nil {
		t.Errorf("undo: %v", err)
	}
	if diff := cmp.Diff(before, tree(t, outside)); diff != "" {
		t.Errorf("something outside certs.d changed:\n%s", diff)
	}
}

func TestApplyIsAlone(t *testing.T) {
	t.Parallel()
	o := testOptions(t.TempDir())
	c, err := openCertsDir(o.CertsDir, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Apply(t.Context(), o); !errdefs.IsUnavailable(err) {
		t.Errorf("apply beside another run: got %v, want unavailable", err)
	}
	if _, err := Undo(t.Context(), UndoOptions{CertsDir: o.CertsDir}); !errdefs.IsUnavailable(err) {
		t.Errorf("undo beside another run: got %v, want unavailable", err)
	}
	c.close()
	if _, err := Apply(t.Context(), o); err != nil {
		t.Errorf("apply after the other run: %v", err)
	}
}

func TestApplyStopsWhenCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o := testOptions(t.TempDir())
	changes, err := Apply(ctx, o)
	if !errors.Is(err, context.Canceled) || len(changes) != 0 {
		t.Errorf("got %v, error %v; want no change and context.Canceled", changes, err)
	}
}

func TestApplyTellsWhatToDo(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		t.Log("root may write anywhere: the permission case needs another user")
	} else {
		dir := filepath.Join(t.TempDir(), "certs.d")
		if err := os.Mkdir(dir, 0o555); err != nil {
			t.Fatal(err)
		}
		_, err := Apply(t.Context(), testOptions(dir))
		if !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "as root") || !strings.Contains(err.Error(), dir) {
			t.Errorf("got %v, want permission denied, %s and what to do", err, dir)
		}
	}
	err := ownfile.Explain("/etc/x", &fs.PathError{Op: "openat", Path: "x", Err: fs.ErrPermission})
	if !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "/etc/x: run larder as root") {
		t.Errorf("got %v, want permission denied, the path and what to do", err)
	}
	file := put(t, t.TempDir(), "file", "", 0o600)
	for _, dir := range []string{file, filepath.Join(file, "certs.d")} {
		_, err := Apply(t.Context(), testOptions(dir))
		if err == nil || !strings.Contains(err.Error(), "not a folder") || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: got %v, want an error that names it as no folder", dir, err)
		}
	}
}
