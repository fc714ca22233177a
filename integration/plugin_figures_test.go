package integration

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/http"
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
	mirrored   bool   // it asks a distribution v3 in proxy mode, which has the image
	larder     string // more of larder's configuration
	proxy      bool   // larder's socket is containerd's content store and differ
	differ     bool   // its differ alone
	seed       bool   // larder gives containerd its files
	containerd parts.ContainerdOptions
}

// distributionMirror is the mode that a whole warm pull is compared with.
const distributionMirror = "built-in, distribution v3"

// withoutIgzip has containerd inflate by Go's own code.
func withoutIgzip() []string {
	return []string{"CONTAINERD_DISABLE_IGZIP=1", "CONTAINERD_DISABLE_PIGZ=1"}
}

func figuresModes() map[string]figuresMode {
	goInflate := parts.ContainerdOptions{Env: withoutIgzip()}
	return map[string]figuresMode{
		"built-in, registry":         {noLarder: true, containerd: goInflate},
		distributionMirror:           {noLarder: true, mirrored: true, containerd: goInflate},
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
	if got := f.meter.Count(http.MethodGet, "/blobs/").Bytes; got > f.size {
		t.Errorf("distribution has fetched %d bytes of blobs in all rounds, want %d: its pulls were not warm", got, f.size)
	}
	t.Logf("%d MB of gzip in %d layers; minimum, median and maximum of %d rounds\n%s\n%s\n%s", f.size/1e6, figuresLayers, rounds,
		figures.Table("built-in, mirror"), figures.Table("built-in, mirror, PATH"), figures.Table(distributionMirror))
}

// pluginFigures has what all modes share: the registry, and a folder with their
// stores.
type pluginFigures struct {
	registry *parts.Registry
	meter    *parts.Meter // between the registry and the mirror that is distribution's
	stores   string
	size     int64
}

func newPluginFigures(t *testing.T) *pluginFigures {
	t.Helper()
	b := newBench(t, "registry")
	registry, meter := b.registry()
	img := figuresImage(t)
	f := &pluginFigures{registry: registry, meter: meter, stores: t.TempDir()}
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
		server := f.registry.URL
		if mode.mirrored {
			server = f.mirror(b, store)
		}
		hosts := filepath.Join(o.CertsDir, "docker.io")
		if err := os.MkdirAll(hosts, 0o755); err != nil {
			b.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(hosts, "hosts.toml"), fmt.Appendf(nil, "server = %q\n", server), 0o600); err != nil {
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

// mirror starts a registry in proxy mode, which keeps what it has from one round to the
// next.
func (f *pluginFigures) mirror(b *bench, store string) string {
	b.t.Helper()
	r, err := parts.StartRegistryMirror(b.t.Context(), b.bin, store, f.meter.URL())
	if err != nil {
		b.t.Fatal(err)
	}
	b.cleanup(r.Close)
	b.logOnFailure("distribution", r.Log)
	return r.URL
}
