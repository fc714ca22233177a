package containerdconf

import (
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/pelletier/go-toml/v2"
	bolt "go.etcd.io/bbolt"
	"go.uber.org/goleak"
)

// TestMain is a containerd, too, when it is called by such a name.
func TestMain(m *testing.M) {
	if version, ok := strings.CutPrefix(filepath.Base(os.Args[0]), "containerd-"); ok {
		os.Exit(beContainerd(version, os.Args[1:]))
	}
	// The race detector keeps a process that ends for a second, and each test runs many.
	_ = os.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0")
	goleak.VerifyTestMain(m)
}

// beContainerd prints what a containerd would, as far as this package asks one. What real ones print is shown in the
// folder integration.
func beContainerd(version string, args []string) int {
	if len(args) == 1 {
		fmt.Println("containerd github.com/containerd/containerd/v2", version, "abcdef") //nolint:forbidigo // it is a program here
		return 0
	}
	merged := map[string]any{
		"root": "/var/lib/containerd", "disabled_plugins": []any{},
		"plugins": map[string]any{
			imagesPlugin:   map[string]any{"snapshotter": "overlayfs", "registry": map[string]any{"config_path": ""}},
			diffService:    map[string]any{"default": []any{"walking"}, "sync_fs": false},
			transferPlugin: map[string]any{"max_concurrent_downloads": 3},
		},
	}
	defaults := clone(merged).(map[string]any)["plugins"].(map[string]any)
	for pending := args[1:2]; len(pending) > 0; pending = pending[1:] {
		data, err := os.ReadFile(pending[0])
		var doc map[string]any
		if err == nil {
			err = toml.Unmarshal(data, &doc)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "containerd:", err)
			return 1
		}
		for _, pattern := range texts(doc["imports"]) {
			matches, _ := filepath.Glob(pattern)
			pending = append(pending, matches...)
		}
		if plugins, ok := doc["plugins"].(map[string]any); ok && strings.HasPrefix(version, "1.") {
			for name := range plugins { // whole tables
				merged["plugins"].(map[string]any)[name] = clone(defaults[name])
			}
		}
		disabled := append(merged["disabled_plugins"].([]any), anys(doc["disabled_plugins"])...)
		mergeTables(merged, doc)
		merged["disabled_plugins"] = disabled
	}
	merged["version"] = 9 // its own, whatever the files say
	text, err := toml.Marshal(merged)
	if err != nil {
		fmt.Fprintln(os.Stderr, "containerd:", err)
		return 1
	}
	fmt.Print(string(text)) //nolint:forbidigo // it is a program here
	return 0
}

func anys(v any) []any { l, _ := v.([]any); return l }

func mergeTables(to, from map[string]any) {
	for k, v := range from {
		t, isTable := v.(map[string]any)
		old, wasTable := to[k].(map[string]any)
		if isTable && wasTable {
			mergeTables(old, t)
			continue
		}
		to[k] = v
	}
}

// node is a folder of containerd's configuration.
type node struct {
	t    *testing.T
	dir  string
	opts Options
}

// newNode has a main file with this text, "" for none. ROOT in it becomes containerd's root.
func newNode(t *testing.T, version, main string) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{t: t, dir: filepath.Join(dir, "etc")}
	must(t, os.Mkdir(n.dir, 0o755))
	program := filepath.Join(dir, "containerd-"+cmp.Or(version, "2.4.2"))
	self, err := os.Executable()
	must(t, err)
	must(t, os.Symlink(self, program))
	n.opts = Options{
		Config: filepath.Join(n.dir, "config.toml"), Program: program, Mode: Proxy,
		Socket: "/run/larder/containerd.sock", CertsDir: "/etc/containerd/certs.d",
	}
	if main != "" {
		n.put("config.toml", strings.ReplaceAll(main, "ROOT", filepath.Join(dir, "root")))
	}
	return n
}

func (n *node) root() string { return filepath.Join(filepath.Dir(n.dir), "root") }

func (n *node) database() string {
	return filepath.Join(n.root(), "io.containerd.metadata.v1.bolt", "meta.db")
}

// remember has blobs in containerd's database, and returns the digest of the last.
func (n *node) remember(blobs ...string) (dgst digest.Digest) {
	n.t.Helper()
	must(n.t, os.MkdirAll(filepath.Dir(n.database()), 0o755))
	db, err := bolt.Open(n.database(), 0o600, nil)
	must(n.t, err)
	must(n.t, db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte("v1"))
		for _, name := range []string{"default", "content", "blob"} {
			must(n.t, err)
			b, err = b.CreateBucketIfNotExists([]byte(name))
		}
		for _, blob := range blobs {
			must(n.t, err)
			dgst = digest.FromString(blob)
			_, err = b.CreateBucketIfNotExists([]byte(dgst))
		}
		return err
	}))
	must(n.t, db.Close())
	return dgst
}

// put writes a file with its folders.
func (n *node) put(name, text string) {
	n.t.Helper()
	path := filepath.Join(n.dir, name)
	must(n.t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(n.t, os.WriteFile(path, []byte(text), 0o640))
}

func (n *node) apply() []Change {
	n.t.Helper()
	changes, err := Apply(n.t.Context(), n.opts)
	must(n.t, err)
	return changes
}

func (n *node) undo(forget bool) []Change {
	n.t.Helper()
	n.opts.Forget = forget
	changes, err := Undo(n.t.Context(), n.opts)
	must(n.t, err)
	return changes
}

// tree maps each path in the folder to its mode and content.
func (n *node) tree() map[string]string {
	n.t.Helper()
	all := map[string]string{}
	must(n.t, filepath.WalkDir(n.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		var data []byte
		if !d.IsDir() {
			data, err = os.ReadFile(path)
		}
		all[strings.TrimPrefix(path, n.dir)] = fi.Mode().String() + " " + string(data)
		return err
	}))
	return all
}

func (n *node) effective() effective {
	n.t.Helper()
	e, err := program{n.opts.Program}.dump(n.t.Context(), n.opts.Config)
	must(n.t, err)
	return e
}

func actions(changes []Change) map[string]Action {
	m := map[string]Action{}
	for _, ch := range changes {
		m[filepath.Base(ch.Path)] = ch.Action
	}
	return m
}

func sameActions(changes []Change, want map[string]Action) bool {
	return maps.Equal(actions(changes), want)
}

func platform() string { return "linux/" + runtime.GOARCH }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
