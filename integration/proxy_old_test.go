package integration

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/larder-project/larder/integration/internal/parts"
)

// TestProxyOldContainerd: larder is content store and differ, or differ alone, of
// containerd 1.7 as well, and content store of 1.6. A warm pull is one HEAD and no byte
// where it is the content store; where it is the differ it unpacks each layer, also of
// what came past larder's mirror; a container and a pod run.
func TestProxyOldContainerd(t *testing.T) {
	t.Parallel()
	for name, use := range map[string]struct {
		release  string
		services string
		use      func(o *parts.ContainerdOptions, socket string)
	}{
		"1.7, content and diff": {oldRelease, "", func(o *parts.ContainerdOptions, socket string) { o.Proxy = socket }},
		"1.7, diff":             {oldRelease, "services = [\"diff\"]", func(o *parts.ContainerdOptions, socket string) { o.Differ = socket }},
		"1.6, content":          {oldestRelease, "", func(o *parts.ContainerdOptions, socket string) { o.Content = socket }},
	} {
		for by, way := range oldPullers() {
			t.Run(name+", "+by, func(t *testing.T) {
				t.Parallel()
				o := podOptions(parts.ContainerdOptions{Release: use.release})
				p := newProxying(t, o, "log.level = \"debug\"\n"+noCompanions, use.services)
				o.CertsDir = p.certs
				use.use(&o, p.socket())
				p.containerd = p.containerdWith(o)
				p.useOldContainerd(way, o)
			})
		}
	}
}

// useOldContainerd pulls in one way, and runs what was pulled.
func (p *proxied) useOldContainerd(by pullWay, o parts.ContainerdOptions) {
	p.t.Helper()
	img, past := p.runnable(330), p.runnable(331)
	layers := len(img.Blobs) - 1
	p.push("library/run", "1", img)
	p.push("library/past", "1", past)
	ref := "docker.io/library/run:1"

	by.pull(p.t, p.containerd, p.certs, ref)
	if err := p.containerd.Forget(p.t.Context(), by.namespace); err != nil {
		p.t.Fatal(err)
	}
	before := len(p.node.Exchanges())
	by.pull(p.t, p.containerd, p.certs, ref)
	asked := p.node.Exchanges()[before:]
	if o.Differ == "" && (len(asked) != 1 || asked[0].Method != http.MethodHead || asked[0].Bytes > 0) {
		p.t.Errorf("warm pull: %+v, want one HEAD", asked)
	}
	unpacks := o.Content == ""
	if all, _ := p.unpacked(); unpacks && all != 2*layers {
		p.t.Errorf("larder has unpacked %d layers, want %d", all, 2*layers)
	}
	own := strings.TrimPrefix(p.registry.URL, "http://") + "/library/past:1"
	ctr(p.t, p.containerd, append(pullArgs(own, filepath.Join(p.dir, "none"), false), "--plain-http")...)
	if all, _ := p.unpacked(); unpacks && all != 3*layers {
		p.t.Errorf("larder has unpacked %d layers that came past its mirror, want %d", all-2*layers, layers)
	}
	if printed, err := p.containerd.RunContainer(p.t.Context(), own); err != nil || !strings.Contains(printed, "larder") {
		p.t.Errorf("a container printed %q, %v, want larder's version", printed, err)
	}
	k := p.kubelet(340)
	if err := k.Pull(p.t.Context(), "docker.io/library/app:1"); err != nil {
		p.t.Fatal(err)
	}
	pod := p.runPod(k, "old", "docker.io/library/app:1")
	if running, err := k.IsRunning(p.t.Context(), pod); !running || err != nil {
		p.t.Errorf("the pod runs: %t, %v", running, err)
	}
}

// TestProxyOldestContainerd: containerd 1.6 knows no differ that is a proxy plugin, and
// does not start with one.
func TestProxyOldestContainerd(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("containerd needs root")
	}
	b := newBench(t, "containerd-"+oldestRelease)
	c, err := parts.StartContainerd(t.Context(), b.bin, b.dir, parts.ContainerdOptions{Release: oldestRelease, Differ: filepath.Join(b.dir, "p.sock"),
		Env: []string{"GOTRACEBACK=none"}}) // the error has its last lines, and the reason should be among them
	if err == nil { // it may say that it has booted while it dies of a panic
		b.cleanup(c.Close)
		eventually(t, "containerd ends", func() bool { return errors.Is(unix.Kill(c.PID(), 0), unix.ESRCH) })
		err = errors.New(c.Log())
	}
	if !strings.Contains(err.Error(), "unknown proxy plugin type") {
		t.Errorf("%v, want that it does not start: the documentation is wrong", err)
	}
}
