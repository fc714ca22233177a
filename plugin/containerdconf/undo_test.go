package containerdconf

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// TestUndoKeepsOthers: what others wrote since stays, and what they need does.
func TestUndoKeepsOthers(t *testing.T) {
	t.Parallel()
	t.Run("main changed", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, "", "version = 3\nimports = []\n")
		n.apply()
		main := n.tree()["/config.toml"][len("-rw-r----- "):]
		n.put("config.toml", main+"oom_score = 7\n")
		changes := n.undo(true)
		if got, want := n.tree()["/config.toml"], "-rw-r----- version = 3\nimports = []\noom_score = 7\n"; got != want || changes[1].Backup == "" {
			t.Errorf("got %q, want %q; %v", got, want, changes)
		}
	})
	t.Run("drop-in of others", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, "", "version = 3\n")
		n.apply()
		n.put("conf.d/60.toml", "oom_score = 7\n")
		if changes := n.undo(true); !sameActions(changes, map[string]Action{dropInName: ActionRemoved, "config.toml": ActionLeft}) {
			t.Errorf("changes: %v", changes)
		}
		if e := n.effective(); e["oom_score"] != int64(7) || len(e.proxies()) > 0 {
			t.Errorf("effective: %v", e)
		}
	})
}

// TestEditedByHand: larder's file stays as somebody has made it, unless force is set.
func TestEditedByHand(t *testing.T) {
	t.Parallel()
	n := newNode(t, "", "version = 3\n")
	n.apply()
	n.put("conf.d/50-larder.toml", strings.Replace(n.tree()["/conf.d/50-larder.toml"][len("-rw-r--r-- "):], "[plugins]", "oom_score = 7\n[plugins]", 1))
	before := n.tree()
	if _, err := Apply(t.Context(), n.opts); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("apply: %v", err)
	}
	if _, err := Undo(t.Context(), n.opts); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("undo: %v", err)
	}
	if diff := cmp.Diff(before, n.tree()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	n.opts.Force = true
	n.undo(true)
	if left := n.tree(); len(left) != 2 {
		t.Errorf("left: %v", left)
	}
}

// TestLeavingProxy: larder's content is not taken away from containerd before all of it has been handed back, nor while
// containerd may get more of it. A containerd that has none is let go.
func TestLeavingProxy(t *testing.T) {
	t.Parallel()
	n := newNode(t, "", "version = 3\nroot = \"ROOT\"\n")
	n.apply()
	other := n.opts
	other.Mode = MirrorDiff
	refused := func(why string) {
		t.Helper()
		if _, err := Undo(t.Context(), n.opts); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "larder eject") || !strings.Contains(err.Error(), why) {
			t.Errorf("undo: got %v, want %q", err, why)
		}
		if _, err := Apply(t.Context(), other); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "larder eject") {
			t.Errorf("other mode: %v", err)
		}
		if mode, _, _ := Present(n.opts.Config); mode != Proxy {
			t.Errorf("mode is %s now", mode)
		}
	}
	n.remember("in larder")
	refused(": 1)")
	withContent(n) // an eject that was ended, say
	refused(": 1)")
	must(t, os.WriteFile(filepath.Join(ContentDir(n.root()), "blobs", "sha256", digest.FromString("in larder").Encoded()), nil, 0o444))
	db, err := bolt.Open(n.database(), 0o600, nil)
	must(t, err)
	refused("stop containerd")
	must(t, db.Close())
	if changes := n.undo(false); len(changes) != 2 {
		t.Errorf("undo: %v", changes)
	}
}

// TestLeavingProxyWithoutRoot: a file that was changed by hand may not say whose database is to be asked.
func TestLeavingProxyWithoutRoot(t *testing.T) {
	t.Parallel()
	n := newNode(t, "", "version = 3\nroot = \"ROOT\"\n")
	n.apply()
	text, err := os.ReadFile(filepath.Join(n.dir, "conf.d", dropInName))
	must(t, err)
	without := strings.Replace(string(text), rootPrefix+n.root()+"\n", "", 1)
	if without == string(text) {
		t.Fatalf("no root in %s", text)
	}
	n.put("conf.d/50-larder.toml", without)
	n.opts.Force = true
	if _, err := Undo(t.Context(), n.opts); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "--forget-images") {
		t.Errorf("undo: %v", err)
	}
}

// TestLeavingProxyWithNothing: where there is nothing to hand back, eject need not be run, and would change nothing.
func TestLeavingProxyWithNothing(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(n *node){
		"never ran": func(*node) {},
		"no images": func(n *node) { n.remember() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, "", "version = 3\nroot = \"ROOT\"\n")
			prepare(n)
			n.apply()
			if changes := n.undo(false); len(changes) != 2 {
				t.Errorf("undo: %v", changes)
			}
		})
	}
}

// TestCrashAnywhere makes what each step leaves when the machine stops right behind it, and goes on from there in both
// directions.
func TestCrashAnywhere(t *testing.T) {
	t.Parallel()
	const text = "version = 3\nimports = []\n"
	for name, crash := range map[string]func(n *node, main mainFile, dropIn string){
		"kept":         func(n *node, m mainFile, _ string) { must(n.t, keep(m.path)) },
		"main half":    func(n *node, m mainFile, _ string) { must(n.t, keep(m.path)); n.put(".config.toml.larder-new", "vers") },
		"main written": func(n *node, m mainFile, _ string) { must(n.t, keep(m.path)); must(n.t, write(m.path, m.wanted)) },
		"folder made": func(n *node, m mainFile, _ string) {
			must(n.t, keep(m.path))
			must(n.t, write(m.path, m.wanted))
			must(n.t, os.Mkdir(filepath.Dir(m.dropIn), 0o755))
		},
		"drop-in half": func(n *node, m mainFile, d string) {
			must(n.t, keep(m.path))
			must(n.t, write(m.path, m.wanted))
			n.put("conf.d/.50-larder.toml.larder-new", d[:20])
		},
		"undone drop-in": func(n *node, m mainFile, _ string) { n.apply(); must(n.t, remove(m.dropIn)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, forth := range []bool{false, true} {
				n := newNode(t, "", text)
				p, err := newPlan(t.Context(), n.opts)
				must(t, err)
				crash(n, p.main, p.wanted)
				if forth {
					n.apply()
					if e := n.effective(); e.proxies()[diffName].address == "" {
						t.Errorf("apply behind the crash: %v", e)
					}
				}
				n.undo(true)
				got := n.tree()
				if want := "-rw-r----- " + text; got["/config.toml"] != want || got["/config.toml.before-larder"] != "" {
					t.Errorf("undo: got %v", got)
				}
				if _, there := got["/conf.d/50-larder.toml"]; there {
					t.Errorf("undo: got %v", got)
				}
			}
		})
	}
}

// TestPutBack: a run that failed behind its first step leaves nothing of it.
func TestPutBack(t *testing.T) {
	t.Parallel()
	n := newNode(t, "", "version = 3\n")
	before := n.tree()
	p, err := newPlan(t.Context(), n.opts)
	must(t, err)
	must(t, p.keepMain())
	must(t, p.putBack())
	if diff := cmp.Diff(before, n.tree()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

const killEnv = "LARDER_TEST_CONTAINERDCONF_KILL"

// TestKill9 kills a process that applies and undoes without end, and looks at what it left. Where the kill strikes
// differs from run to run; what must hold does not.
func TestKill9(t *testing.T) {
	if dir := os.Getenv(killEnv); dir != "" {
		applyAndUndoForever(t, dir)
	}
	t.Parallel()
	const text = "version = 3\nimports = []\n"
	n := newNode(t, "", text)
	before := n.tree()
	for round := range 12 {
		n.killDuring(round)
		main, err := os.ReadFile(n.opts.Config)
		if before, has := withoutLine(string(main)); err != nil || before != text {
			t.Fatalf("round %d: the main file is %q, %t, %v", round, main, has, err)
		}
		drop, err := os.ReadFile(filepath.Join(n.dir, folderName, dropInName))
		if ours, edited := fileMark.Parse(string(drop)); err == nil && (!ours || edited) {
			t.Fatalf("round %d: the drop-in is %q", round, drop)
		}
	}
	n.undo(true)
	left := n.tree()
	delete(left, "/conf.d") // whose maker is known by the drop-in alone
	if diff := cmp.Diff(before, left); diff != "" {
		t.Errorf("undo behind the kills (-want +got):\n%s", diff)
	}
}

// killDuring kills a child in its operation behind the first few.
func (n *node) killDuring(few int) {
	n.t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKill9$")
	cmd.Env = append(os.Environ(), killEnv+"="+filepath.Dir(n.dir))
	out, err := cmd.StdoutPipe()
	must(n.t, err)
	must(n.t, cmd.Start())
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // "signal: killed"
	}()
	lines := bufio.NewReader(out)
	for range few%3 + 1 {
		if line, err := lines.ReadString('\n'); err != nil || line != "done\n" {
			n.t.Fatalf("the child ended by itself: %s, %v", line, err)
		}
	}
}

// applyAndUndoForever ends by being killed.
func applyAndUndoForever(t *testing.T, dir string) {
	n := &node{t: t, dir: filepath.Join(dir, "etc")}
	n.opts = Options{
		Config: filepath.Join(n.dir, "config.toml"), Program: filepath.Join(dir, "containerd-2.4.2"), Mode: MirrorDiff,
		Socket: "/s.sock", CertsDir: "/certs.d",
	}
	for {
		n.apply()
		os.Stdout.WriteString("done\n")
		n.undo(false)
		os.Stdout.WriteString("done\n")
	}
}
