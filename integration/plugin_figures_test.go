package integration

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larder-project/larder/integration/internal/disks"
	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/plugin/unpack/unpacktest"
	"github.com/larder-project/larder/remotes/remotestest"
)

const (
	// figuresEnv is how many rounds TestPluginFigures has.
	figuresEnv = "LARDER_BENCH_PLUGIN"
	// figuresBytes is what the files of its image have together, and figuresLayers in
	// how many layers they are.
	figuresBytes  = 1_200_000_000
	figuresLayers = 6
	figuresRef    = "docker.io/library/figures:1"
)

// figuresMode is one way to have an image on a node.
type figuresMode struct {
	noLarder   bool   // containerd asks the registry
	larder     string // more of larder's configuration
	proxy      bool   // larder's socket is containerd's content store and differ
	differ     bool   // its differ alone
	seed       bool   // larder gives containerd its files
	containerd parts.ContainerdOptions
}

// withoutIgzip has containerd inflate by Go's own code.
func withoutIgzip() []string {
	return []string{"CONTAINERD_DISABLE_IGZIP=1", "CONTAINERD_DISABLE_PIGZ=1"}
}

func figuresModes() map[string]figuresMode {
	goInflate := parts.ContainerdOptions{Env: withoutIgzip()}
	return map[string]figuresMode{
		"built-in, registry":         {noLarder: true, containerd: goInflate},
		"built-in, mirror":           {containerd: goInflate},
		"built-in, mirror, PATH":     {},
		"built-in, seeded":           {seed: true, containerd: goInflate},
		"built-in, mirror, diff":     {differ: true},
		"built-in, seeded, diff":     {seed: true, differ: true},
		"proxy":                      {proxy: true},
		"proxy, copies":              {proxy: true, larder: "copies = \"8GiB\"\n"},
		"larder in containerd":       {noLarder: true, containerd: parts.ContainerdOptions{Builtin: true, Env: withoutIgzip()}},
		"larder in containerd, PATH": {noLarder: true, containerd: parts.ContainerdOptions{Builtin: true}},
	}
}

// TestPluginFigures pulls one image in each mode, by the CRI, in turns, each time
// with a containerd that has nothing, on a new file system; larder has the image. It
// says how long that takes, in seconds and as a part of what a mirror before
// containerd's own store takes. PATH are the modes in which containerd may use the
// igzip or unpigz that it finds there.
//
//nolint:paralleltest // it measures
func TestPluginFigures(t *testing.T) {
	rounds, err := strconv.Atoi(os.Getenv(figuresEnv))
	if err != nil {
		t.Skip("takes minutes: make bench-plugin")
	}
	f := newPluginFigures(t)
	var figures unpacktest.Figures
	modes := figuresModes()
	for round := range rounds + 1 {
		names := slices.Sorted(maps.Keys(modes))
		if round%2 == 1 {
			slices.Reverse(names)
		}
		for _, name := range names {
			ok := t.Run(fmt.Sprintf("%s/%d", strings.ReplaceAll(name, " ", "_"), round), func(t *testing.T) {
				seconds := f.pull(t, name, modes[name])
				if round > 0 { // the first one fills the stores
					figures.Add(name, seconds)
				}
				t.Logf("%s: %.2f s", name, seconds)
			})
			if !ok {
				t.FailNow()
			}
		}
	}
	t.Logf("%d MB of gzip in %d layers; minimum, median and maximum of %d rounds\n%s\n%s", f.size/1e6, figuresLayers, rounds,
		figures.Table("built-in, mirror"), figures.Table("built-in, mirror, PATH"))
}

// pluginFigures has what all modes share: the registry, and a folder with their
// stores.
type pluginFigures struct {
	registry *parts.Registry
	stores   string
	size     int64
}

func newPluginFigures(t *testing.T) *pluginFigures {
	t.Helper()
	b := newBench(t, "registry")
	registry, _ := b.registry()
	img := figuresImage(t)
	f := &pluginFigures{registry: registry, stores: t.TempDir()}
	for _, blob := range img.Blobs {
		f.size += blob.Descriptor.Size
	}
	if err := remotestest.Push(t.Context(), registry.URL, "library/figures", "1", img); err != nil {
		t.Fatal(err)
	}
	return f
}

// figuresImage is an image of real files.
func figuresImage(t *testing.T) remotestest.Image {
	t.Helper()
	paths, err := unpacktest.GoFiles(t.Context(), figuresBytes)
	if err != nil {
		t.Fatal(err)
	}
	var spec remotestest.ImageSpec
	for part := range slices.Chunk(paths, len(paths)/figuresLayers+1) {
		var archive bytes.Buffer
		if err := unpacktest.WriteArchive(&archive, part); err != nil {
			t.Fatal(err)
		}
		spec.Archives = append(spec.Archives, archive.Bytes())
	}
	return remotestest.Build(spec)
}

// pull says how many seconds a pull takes.
func (f *pluginFigures) pull(t *testing.T, name string, mode figuresMode) float64 {
	t.Helper()
	b := newBench(t, "larder", "containerd", "containerd-larder", "ctr")
	disk := disks.New(t, disks.Options{Kind: disks.Ext4, Size: 16 << 30})
	root := filepath.Join(b.dir, "containerd", "root")
	store := filepath.Join(f.stores, strings.ReplaceAll(name, " ", "_"))
	if mode.seed {
		store = filepath.Join(disk.Path, "larder")
	}
	for _, err := range []error{
		os.MkdirAll(filepath.Dir(root), 0o700),
		os.Mkdir(filepath.Join(disk.Path, "containerd"), 0o700),
		os.Symlink(filepath.Join(disk.Path, "containerd"), root),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	o := mode.containerd
	o.CertsDir = filepath.Join(b.dir, "certs.d")
	if o.Builtin {
		if err := errors.Join(os.MkdirAll(store, 0o700), os.Symlink(store, filepath.Join(root, "io.containerd.content.v1.larder"))); err != nil {
			t.Fatal(err)
		}
	}
	l := f.larder(b, mode, store, &o)
	c := b.containerdWith(o)
	images := imageService(t, c)
	unix.Sync() // what was written before is not to cost who comes next
	began := time.Now()
	criPull(t, images, figuresRef)
	took := time.Since(began).Seconds()
	if l != nil && strings.Contains(mode.larder, "copies") && !strings.Contains(l.Log(), "layer is read from its copy") {
		eventually(t, "copies are made", func() bool { return strings.Count(l.Log(), "copy of a layer is made") == figuresLayers })
	}
	return took
}

// larder starts the mode's larder, has it bring the image, and says how containerd
// finds it.
func (f *pluginFigures) larder(b *bench, mode figuresMode, store string, o *parts.ContainerdOptions) *parts.Larder {
	b.t.Helper()
	if mode.noLarder {
		hosts := filepath.Join(o.CertsDir, "docker.io")
		if err := os.MkdirAll(hosts, 0o755); err != nil {
			b.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(hosts, "hosts.toml"), fmt.Appendf(nil, "server = %q\n", f.registry.URL), 0o600); err != nil {
			b.t.Fatal(err)
		}
		return nil
	}
	socket := filepath.Join(b.dir, "p.sock")
	extra := "log.level = \"debug\"\n" + noCompanions + dockerHub(f.registry.URL)
	if mode.proxy || mode.differ {
		extra += fmt.Sprintf("\n[proxy]\nenabled = true\nsocket = %q\ncontainerd = %q\n%s", socket, filepath.Join(b.dir, "containerd", "c.sock"), mode.larder)
	}
	if mode.differ {
		extra += "services = [\"diff\"]\n"
		o.Differ = socket
	}
	if mode.proxy {
		o.Proxy = socket
	}
	if mode.seed {
		content := filepath.Join(filepath.Dir(store), "containerd", "io.containerd.content.v1.content")
		extra += fmt.Sprintf("\n[seed]\nenabled = true\ncontent = %q\n", content)
		if err := os.Mkdir(content, 0o700); err != nil {
			b.t.Fatal(err)
		}
	}
	l, err := parts.NewLarder(b.bin, b.dir, extra)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := errors.Join(l.SetRoot(store), l.Start(b.t.Context())); err != nil {
		b.t.Fatal(err)
	}
	b.cleanup(l.Close)
	b.logOnFailure("larder", l.Log)
	run(b.t, l, "pull", figuresRef)
	if err := l.Setup(b.t.Context(), o.CertsDir, l.URL); err != nil {
		b.t.Fatal(err)
	}
	return l
}
