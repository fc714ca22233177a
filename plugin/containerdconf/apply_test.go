package containerdconf

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
)

const images = `[plugins."io.containerd.cri.v1.images".registry]` + "\n  config_path = \"/etc/containerd/certs.d\"\n"

// mains are main files as they come: of distributions, old defaults, and none.
func mains() map[string]string {
	return map[string]string{
		"none":          "",
		"no imports":    "# theirs\nversion = 3\n" + images,
		"empty imports": "version = 3\nimports = [ ] # none\nroot = \"ROOT\"\n" + images,
		"looks like it": "version = 3\n[plugins.\"x\"]\nimports = []\n",
	}
}

// TestApplyAndUndo: what containerd's configuration comes to is the mode and what was there; a second run changes
// nothing; undo puts back every byte.
func TestApplyAndUndo(t *testing.T) {
	t.Parallel()
	for name, text := range mains() {
		for _, mode := range []Mode{MirrorDiff, Proxy} {
			t.Run(name+" "+string(mode), func(t *testing.T) {
				t.Parallel()
				n := newNode(t, "", text)
				n.opts.Mode = mode
				before := n.tree()
				if _, err := Plan(t.Context(), n.opts); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(before, n.tree()); diff != "" {
					t.Fatalf("Plan (-want +got):\n%s", diff)
				}
				n.apply()
				e := n.effective()
				if is := slices.Contains(e.disabled(), contentPlugin); is != (mode == Proxy) {
					t.Errorf("mode %s: containerd's own content store is disabled: %t", mode, is)
				}
				if p := e.proxies(); p[diffName].address != n.opts.Socket || (p[contentName].kind == "content") != (mode == Proxy) {
					t.Errorf("mode %s: proxy plugins %v", mode, p)
				}
				if got := texts(e.table("plugins", diffService)["default"]); !slices.Equal(got, []string{diffName, walking}) {
					t.Errorf("differs: %v", got)
				}
				if u := tables(e.table("plugins", transferPlugin)[unpackKey]); len(u) != 2 || u[0]["platform"] != platform() || u[0]["differ"] != diffName || u[1]["differ"] != "erofs" {
					t.Errorf("unpackers: %v", u)
				}
				if got := e.registry()["config_path"]; got != n.opts.CertsDir {
					t.Errorf("config_path: %v", got)
				}
				if mode, _, err := Present(n.opts.Config); err != nil || mode != n.opts.Mode {
					t.Errorf("Present: %v, %v", mode, err)
				}
				after := n.tree()
				changes := n.apply()
				if diff := cmp.Diff(after, n.tree()); diff != "" || !sameActions(changes, map[string]Action{"config.toml": ActionUnchanged, dropInName: ActionUnchanged}) {
					t.Errorf("second run: %v (-want +got):\n%s", changes, diff)
				}
				n.undo(true)
				if diff := cmp.Diff(before, n.tree()); diff != "" {
					t.Errorf("undo (-want +got):\n%s", diff)
				}
				if changes := n.undo(false); len(changes) > 0 {
					t.Errorf("second undo: %v", changes)
				}
			})
		}
	}
}

// TestApply: settings of others stay what they are, beside larder's.
func TestApply(t *testing.T) {
	t.Parallel()
	n := newNode(t, "", "version = 3\nimports = [\"DIR/*.toml\"]\ndisabled_plugins = [\"a\"]\n[proxy_plugins.nydus]\n  type = \"snapshot\"\n  address = \"/n.sock\"\n")
	n.put("config.toml", strings.Replace(n.tree()["/config.toml"][len("-rw-r----- "):], "DIR", filepath.Join(n.dir, "own.d"), 1))
	n.put("own.d/10.toml", `version = 3
[plugins."io.containerd.service.v1.diff-service"]
  default = ["erofs", "walking"]
  sync_fs = true
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux/arm64"
  snapshotter = "native"
  differ = "walking"
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux/arm64"
  snapshotter = "erofs"
  differ = "erofs"
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "/theirs"
`)
	before := n.effective()
	changes := n.apply()
	if !sameActions(changes, map[string]Action{"config.toml": ActionUnchanged, dropInName: ActionCreated}) || changes[1].Path != filepath.Join(n.dir, "own.d", dropInName) {
		t.Errorf("changes: %v", changes)
	}
	e := n.effective()
	want := []string{
		"disabled_plugins: [a] becomes [a io.containerd.content.v1.content]",
		`plugins.io.containerd.service.v1.diff-service.default: [erofs walking] becomes [erofs larder-diff walking]`,
		`plugins.io.containerd.transfer.v1.local.unpack_config: [map[differ:walking platform:linux/arm64 snapshotter:native] map[differ:erofs platform:linux/arm64 snapshotter:erofs]] becomes ` +
			`[map[differ:larder-diff platform:linux/arm64 snapshotter:native] map[differ:erofs platform:linux/arm64 snapshotter:erofs]]`,
		"proxy_plugins.larder-diff: <nil> becomes map[address:/run/larder/containerd.sock type:diff]",
		"proxy_plugins.larder: <nil> becomes map[address:/run/larder/containerd.sock type:content]",
	}
	got := differences(map[string]any(before), map[string]any(e), "")
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestApplyRefuses: what would break the node is refused, with what to do, and changes nothing.
func TestApplyRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		version, main string
		mode          Mode
		prepare       func(n *node)
		want          string
	}{
		"too old":              {version: "1.6.20~ds1", main: "version = 2\n", want: "needs 1.7 or later"},
		"no version":           {version: "main", main: "version = 3\n", want: "in which is no version"},
		"no program":           {main: "version = 3\n", prepare: func(n *node) { n.opts.Program = "no-such-containerd" }, want: "--containerd-program"},
		"no such program":      {main: "version = 3\n", prepare: func(n *node) { n.opts.Program = "/no/containerd" }, want: "--containerd-program"},
		"failing program":      {main: "version = 3\n", prepare: func(n *node) { n.opts.Program = "false" }, want: "it says nothing"},
		"broken main":          {main: "version = \n", want: "correct the file"},
		"imports a file":       {main: "version = 3\nimports = [\"/etc/x.toml\"]\n", want: "add \""},
		"their plugin":         {main: "version = 3\n[proxy_plugins.larder-diff]\n  type = \"diff\"\n  address = \"/x.sock\"\n", mode: MirrorDiff, want: "larder setup did not write"},
		"their content":        {main: "version = 3\n[proxy_plugins.other]\n  type = \"content\"\n  address = \"/x.sock\"\n", want: "takes one content store"},
		"no content":           {main: "version = 3\ndisabled_plugins = [\"io.containerd.content.v1.content\"]\n", want: "cannot be the second"},
		"has images":           {main: "version = 3\nroot = \"ROOT\"\n", prepare: withContent, want: "larder adopt"},
		"their drop-in":        {main: "version = 3\n", prepare: func(n *node) { n.put("conf.d/50-larder.toml", "# mine\n") }, want: "larder did not write it"},
		"read behind it":       {main: "version = 3\n", prepare: func(n *node) { n.put("conf.d/90.toml", "[proxy_plugins.larder-diff]\n  type = \"snapshot\"\n") }, want: "a file that is read behind it"},
		"backup of another":    {main: "version = 3\n", prepare: func(n *node) { n.put("config.toml.before-larder", "x\n") }, want: "is kept already"},
		"others' in conf.d":    {main: "version = 3\n", prepare: func(n *node) { n.put("conf.d/90.toml", "oom_score = 7\n") }, want: "oom_score: <nil> becomes 7"},
		"content though alone": {main: "version = 3\nroot = \"ROOT\"\n", mode: "mirror", want: "has no place"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, test.version, test.main)
			if test.mode != "" {
				n.opts.Mode = test.mode
			}
			if test.prepare != nil {
				test.prepare(n)
			}
			before := n.tree()
			_, err := Apply(t.Context(), n.opts)
			if err == nil || !strings.Contains(err.Error(), test.want) || !errdefs.IsFailedPrecondition(err) && !errdefs.IsInvalidArgument(err) {
				t.Errorf("got %v, want a refusal with %q", err, test.want)
			}
			if diff := cmp.Diff(before, n.tree()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// withContent gives containerd a blob in its own content store.
func withContent(n *node) {
	dir := filepath.Join(ContentDir(n.root()), "blobs", "sha256")
	must(n.t, os.MkdirAll(dir, 0o755))
	must(n.t, os.WriteFile(filepath.Join(dir, n.remember("blob").Encoded()), nil, 0o444))
}

// TestApplyBesideOtherFiles: what containerd takes for no blob, larder adopt leaves; it is no reason to refuse.
func TestApplyBesideOtherFiles(t *testing.T) {
	t.Parallel()
	n := newNode(t, "", "version = 3\nroot = \"ROOT\"\n")
	withContent(n)
	blobs, err := filepath.Glob(filepath.Join(ContentDir(n.root()), "blobs", "sha256", "*"))
	must(t, err)
	must(t, os.Rename(blobs[0], blobs[0]+".damaged"))
	must(t, os.WriteFile(filepath.Join(filepath.Dir(blobs[0]), "README"), nil, 0o444))
	must(t, os.WriteFile(filepath.Join(ContentDir(n.root()), "blobs", "README"), nil, 0o444))
	n.apply()
}

// TestApplyOldContainerd: before 2.4 a drop-in takes others' tables away, which is refused.
func TestApplyOldContainerd(t *testing.T) {
	t.Parallel()
	n := newNode(t, "1.7.35", "version = 2\n[plugins.\"io.containerd.service.v1.diff-service\"]\n  sync_fs = true\n")
	before := n.tree()
	_, err := Apply(t.Context(), n.opts)
	if err == nil || !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "sync_fs: true becomes false") {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff(before, n.tree()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	n.put("config.toml", "version = 2\n")
	n.apply()
	if text := n.tree()["/conf.d/50-larder.toml"]; !strings.Contains(text, "\nversion = 2\n") || strings.Contains(text, "config_path") {
		t.Errorf("drop-in: %s", text)
	}
}
