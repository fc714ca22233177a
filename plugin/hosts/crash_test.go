package hosts

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
)

// TestCrashStates builds what each step leaves when the machine stops right after it, and runs again.
func TestCrashStates(t *testing.T) {
	t.Parallel()
	const theirs = "# theirs\n"
	states := map[string]func(t *testing.T, c *certsDir){
		"staging made":   func(t *testing.T, c *certsDir) { must(t, c.root.Mkdir(stagingName, dirMode)) },
		"staging half":   func(t *testing.T, c *certsDir) { put(t, c.path, stagingName+"/hosts.toml", "# lar", 0o600) },
		"temp half":      func(t *testing.T, c *certsDir) { put(t, c.path, "docker.io/"+tempName, "# lar", 0o600) },
		"foreign linked": func(t *testing.T, c *certsDir) { link(t, c, "docker.io") },
		"linked with temp": func(t *testing.T, c *certsDir) {
			link(t, c, "docker.io")
			put(t, c.path, "docker.io/"+tempName, "x", 0o600)
		},
	}
	for name, crash := range states {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := testOptions(t.TempDir())
			o.Registries = []string{"docker.io", "quay.io"}
			hostsToml := put(t, o.CertsDir, "docker.io/hosts.toml", theirs, 0o644)
			before := tree(t, o.CertsDir)
			stop := func() {
				c, err := openCertsDir(o.CertsDir, false)
				must(t, err)
				crash(t, c)
				c.close()
			}
			stop()
			if _, err := Undo(t.Context(), UndoOptions{CertsDir: o.CertsDir}); err != nil {
				t.Fatalf("undo after the crash: %v", err)
			}
			if diff := cmp.Diff(before, tree(t, o.CertsDir)); diff != "" {
				t.Errorf("undo after the crash (-want +got):\n%s", diff)
			}
			stop()
			if _, err := Apply(t.Context(), o); err != nil {
				t.Fatalf("apply after the crash: %v", err)
			}
			if m := parseMark(slurp(t, hostsToml)); !m.ours || m.edited {
				t.Errorf("apply after the crash left hosts.toml as %q", slurp(t, hostsToml))
			}
			if got := slurp(t, filepath.Join(o.CertsDir, "docker.io", backupName)); got != theirs {
				t.Errorf("kept file: got %q, want %q", got, theirs)
			}
			if _, err := Undo(t.Context(), UndoOptions{CertsDir: o.CertsDir}); err != nil {
				t.Fatalf("undo: %v", err)
			}
			if diff := cmp.Diff(before, tree(t, o.CertsDir)); diff != "" {
				t.Errorf("undo (-want +got):\n%s", diff)
			}
		})
	}
}

// TestCrashWhileRemoving stops an undo after the folder moved to staging.
func TestCrashWhileRemoving(t *testing.T) {
	t.Parallel()
	o := testOptions(t.TempDir())
	o.Registries = []string{"docker.io"}
	_, err := Apply(t.Context(), o)
	must(t, err)
	must(t, os.Rename(filepath.Join(o.CertsDir, "docker.io"), filepath.Join(o.CertsDir, stagingName)))
	_, err = Undo(t.Context(), UndoOptions{CertsDir: o.CertsDir})
	must(t, err)
	if left := tree(t, o.CertsDir); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}

func link(t *testing.T, c *certsDir, dir string) {
	t.Helper()
	must(t, c.root.Link(path.Join(dir, hostsName), path.Join(dir, backupName)))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const crashDirEnv = "LARDER_TEST_HOSTS_CRASH_DIR"

// TestKill9 kills a process that applies and undoes without end, and looks at what it left. Where the
// kill strikes differs from run to run; what must hold does not.
func TestKill9(t *testing.T) {
	if dir := os.Getenv(crashDirEnv); dir != "" {
		applyAndUndoForever(t, dir)
	}
	t.Parallel()
	const theirs = "# theirs\n"
	dir := filepath.Join(t.TempDir(), "certs.d")
	put(t, dir, "docker.io/hosts.toml", theirs, 0o640)
	before := tree(t, dir)
	for round := range 12 {
		killDuring(t, dir, round)
		kept := filepath.Join(dir, "docker.io", backupName)
		now := slurp(t, filepath.Join(dir, "docker.io", hostsName)) // always there
		if m := parseMark(now); now != theirs && (!m.ours || m.edited || slurp(t, kept) != theirs) {
			t.Fatalf("round %d: hosts.toml is neither theirs nor larder's with theirs kept: %q", round, now)
		}
		for _, host := range []string{"quay.io", DefaultHost} {
			text, err := os.ReadFile(filepath.Join(dir, host, hostsName))
			if _, derr := os.Stat(filepath.Join(dir, host)); os.IsNotExist(err) && os.IsNotExist(derr) {
				continue
			}
			if m := parseMark(string(text)); err != nil || !m.ours || m.edited {
				t.Fatalf("round %d: %s is there without a whole hosts.toml: %q, %v", round, host, text, err)
			}
		}
	}
	if _, err := Undo(t.Context(), UndoOptions{CertsDir: dir}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
		t.Errorf("undo after the kills (-want +got):\n%s", diff)
	}
}

// killDuring kills a child in its operation after the first n.
func killDuring(t *testing.T, dir string, n int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKill9$")
	cmd.Env = append(os.Environ(), crashDirEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // "signal: killed"
	}()
	lines := bufio.NewReader(out)
	for range n + 1 {
		if line, err := lines.ReadString('\n'); err != nil || line != "done\n" {
			rest, _ := io.ReadAll(lines)
			t.Fatalf("the child ended by itself: %s%s", line, rest)
		}
	}
}

// applyAndUndoForever ends by being killed. Its umask is the narrowest one, which must not show in the folders.
func applyAndUndoForever(t *testing.T, dir string) {
	syscall.Umask(0o077)
	o := testOptions(dir)
	o.Registries = []string{"docker.io", "quay.io", DefaultHost}
	for {
		_, err := Apply(context.Background(), o)
		must(t, err)
		info, err := os.Stat(filepath.Join(dir, "quay.io"))
		must(t, err)
		if info.Mode().Perm() != dirMode {
			t.Fatalf("folder has mode %v", info.Mode())
		}
		os.Stdout.WriteString("done\n")
		_, err = Undo(context.Background(), UndoOptions{CertsDir: dir})
		must(t, err)
		os.Stdout.WriteString("done\n")
	}
}

// TestReaderSeesWholeFile reads, as containerd does at each pull, while files are put in place and taken away.
func TestReaderSeesWholeFile(t *testing.T) {
	t.Parallel()
	const theirs = "# theirs\n"
	o := testOptions(t.TempDir())
	o.Registries = []string{"docker.io"}
	hostsToml := put(t, o.CertsDir, "docker.io/hosts.toml", theirs, 0o644)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel() // ends the reader when a step below fails
	var g errgroup.Group
	g.Go(func() error {
		for ctx.Err() == nil {
			text, err := os.ReadFile(hostsToml)
			if err != nil {
				return err
			}
			if m := parseMark(string(text)); string(text) != theirs && (!m.ours || m.edited) {
				return fmt.Errorf("read %q", text)
			}
		}
		return nil
	})
	for range 20 {
		_, err := Apply(t.Context(), o)
		must(t, err)
		_, err = Undo(t.Context(), UndoOptions{CertsDir: o.CertsDir})
		must(t, err)
	}
	cancel()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}
