package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// switchable is a node whose containerd imports a folder of drop-ins, for larder setup containerd to write into.
type switchable struct {
	*bench
	l       *parts.Larder
	options parts.ContainerdOptions
	main    string // containerd's main file
	ref     string // of an image of two layers, which runs larder version
	other   string // another such image
	host    *remotestest.Registry
}

// newSwitchable has a larder that serves these services of containerd, and an upstream with an image of two layers.
func newSwitchable(t *testing.T, release, services string) *switchable {
	t.Helper()
	program, ctl := "containerd", "ctr"
	if release != "" {
		program, ctl = program+"-"+release, ctl+"-"+release
	}
	b := newBench(t, "larder", program, ctl)
	upstream := remotestest.New(t)
	binary, err := os.ReadFile(b.bin.Path("larder"))
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"library/app", "library/other"} {
		upstream.PutImage(name, "1", remotestest.Build(remotestest.ImageSpec{
			Seed: uint64(130 + i), Layers: []int64{2 << 20},
			Files: []remotestest.File{{Path: "larder", Mode: 0o755, Data: binary}}, Cmd: []string{"/larder", "version"},
		}))
	}
	n := &switchable{bench: b, main: filepath.Join(b.dir, "containerd", "config.toml"), ref: upstream.Host() + "/library/app:1", other: upstream.Host() + "/library/other:1", host: upstream}
	n.l = b.larder("log.level = \"debug\"\n" + noCompanions + routeFor(upstream.Host(), upstream.URL()) +
		fmt.Sprintf("\n[proxy]\nenabled = true\nservices = [%s]\nsocket = %q\ncontainerd = %q\n", services, filepath.Join(b.dir, "p.sock"), filepath.Join(b.dir, "containerd", "c.sock")))
	n.options = parts.ContainerdOptions{Release: release, CertsDir: filepath.Join(b.dir, "certs.d"), Imports: []string{filepath.Join(b.dir, "conf.d", "*.toml")}}
	return n
}

// setup runs larder setup containerd for this node.
func (n *switchable) setup(args ...string) (string, error) {
	n.t.Helper()
	all := append([]string{"setup", "containerd", "--certs-d", n.options.CertsDir, "--containerd-config", n.main, "--containerd-program", n.program()}, args...)
	return n.l.Run(n.t.Context(), all...)
}

func (n *switchable) program() string {
	if n.options.Release != "" {
		return n.bin.Path("containerd-" + n.options.Release)
	}
	return n.bin.Path("containerd")
}

// contentBlocks is what containerd's own content store takes.
func (n *switchable) contentBlocks() int64 {
	n.t.Helper()
	return blocksBelow(n.t, filepath.Join(n.dir, "containerd", "root", "io.containerd.content.v1.content"))
}

// A mode that larder setup containerd writes is what containerd does from its next start on, and no more after
// --undo; containerd's own configuration says that nothing else changed.
func TestSetupModes(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]parts.ContainerdOptions{"2.x": {}, "2.x local": {LocalPull: true}, "1.x": {Release: oldRelease}} {
		for mode, services := range map[string]string{"mirror+diff": `"diff"`, "proxy": `"content", "diff"`} {
			t.Run(name+" "+mode, func(t *testing.T) {
				t.Parallel()
				n := newSwitchable(t, o.Release, services)
				n.options.LocalPull = o.LocalPull
				c := n.containerdWith(n.options)
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
				var res struct {
					Containerd struct {
						Mode    string
						Restart bool
					}
				}
				out, err := n.setup("--mode", mode, "--json")
				if err != nil {
					t.Fatal(err)
				}
				if err := json.Unmarshal([]byte(out), &res); err != nil || res.Containerd.Mode != mode || !res.Containerd.Restart {
					t.Errorf("%v in %s", err, out)
				}
				if out, err := n.setup("--mode", mode); err != nil || strings.Contains(out, "created") || strings.Contains(out, "updated") {
					t.Errorf("second run: %v, %s", err, out)
				}

				run(t, n.l, "pull", n.ref) // what larder is about to store, containerd may unpack itself
				c = n.containerdWith(n.options)
				criPull(t, imageService(t, c), n.ref)
				if n := strings.Count(n.l.Log(), "layer is unpacked"); n != 2 {
					t.Errorf("larder has unpacked %d layers, want 2", n)
				}
				if own := n.contentBlocks() > 0; own != (mode == "mirror+diff") {
					t.Errorf("containerd has content of its own: %t", own)
				}
				if mode == "proxy" { // else containerd would look for them where they are not
					if _, err := n.setup("--undo"); err == nil || !strings.Contains(err.Error(), "stop containerd, run larder eject") {
						t.Errorf("undo while containerd runs: %v", err)
					}
					if err := c.Close(); err != nil {
						t.Fatal(err)
					}
					if out, err := n.setup("--undo", "--json"); err == nil || !strings.Contains(err.Error(), "run larder eject") || !strings.Contains(out, `"mode": "proxy"`) {
						t.Errorf("undo while the content is in larder: %v, %s", err, out)
					}
					c = n.containerdWith(n.options)
					if err := c.Forget(t.Context(), "k8s.io"); err != nil {
						t.Fatal(err)
					}
				}
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}

				if _, err = n.setup("--undo"); err != nil {
					t.Fatal(err)
				}
				if _, err := n.setup(); err != nil { // the mirror stays
					t.Fatal(err)
				}
				c = n.containerdWith(n.options)
				criPull(t, imageService(t, c), n.ref)
				if mode == "proxy" && n.contentBlocks() == 0 {
					t.Error("after undo containerd has no content of its own")
				}
			})
		}
	}
}

// What would break the node is refused.
func TestSetupModeRefuses(t *testing.T) {
	t.Parallel()
	n := newSwitchable(t, "", `"content", "diff"`)
	c := n.containerdWith(n.options)
	for _, want := range []string{"mirror+diff", "proxy.socket", "larder adopt"} {
		mode := "proxy"
		switch want {
		case "mirror+diff":
			mode = want
		case "proxy.socket":
			if err := n.l.Close(); err != nil {
				t.Fatal(err)
			}
		default:
			if err := n.l.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := n.setup(); err != nil {
				t.Fatal(err)
			}
			criPull(t, imageService(t, c), n.ref)
		}
		if _, err := n.setup("--mode", mode); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("--mode %s: %v, want a refusal with %q", mode, err, want)
		}
		if found, _ := filepath.Glob(filepath.Join(n.dir, "conf.d", "*")); len(found) > 0 {
			t.Errorf("%s: refused, and %v is there", want, found)
		}
	}
}
