package integration

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/larder-project/larder/integration/internal/parts"
)

// patience bounds every wait for something that should happen soon. larder itself
// gives some things up only after 30 s.
const patience = 60 * time.Second

// bench is a test's private folder and the programs to run in it.
type bench struct {
	t   *testing.T
	bin parts.Bin
	dir string
}

// newBench checks that the named programs are built and makes the folder.
func newBench(t *testing.T, programs ...string) *bench {
	t.Helper()
	bin, err := parts.FindBin()
	if err != nil {
		t.Fatal(err)
	}
	if err := bin.Need(programs...); err != nil {
		t.Fatal(err)
	}
	dir, err := parts.TempDir()
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, bin: bin, dir: dir}
	b.cleanup(func() error { return os.RemoveAll(dir) })
	return b
}

// cleanup runs end after the test and fails it when end does.
func (b *bench) cleanup(end func() error) {
	b.t.Helper()
	b.t.Cleanup(func() {
		if err := end(); err != nil {
			b.t.Errorf("cleanup: %v", err)
		}
	})
}

// larder starts a larder with extra config; env goes to the daemon.
func (b *bench) larder(extra string, env ...string) *parts.Larder {
	b.t.Helper()
	l, err := parts.StartLarder(b.t.Context(), b.bin, b.dir, extra, env...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.cleanup(l.Close)
	b.logOnFailure("larder", l.Log)
	return l
}

// registry starts a distribution registry and a meter in front of it.
func (b *bench) registry() (*parts.Registry, *parts.Meter) {
	b.t.Helper()
	r, err := parts.StartRegistry(b.t.Context(), b.bin, b.dir)
	if err != nil {
		b.t.Fatal(err)
	}
	b.cleanup(r.Close)
	m, err := parts.NewMeter(r.URL)
	if err != nil {
		b.t.Fatal(err)
	}
	b.cleanup(m.Close)
	return r, m
}

// containerd starts a containerd that finds its mirrors in certs.
func (b *bench) containerd(certs string, localPull bool) *parts.Containerd {
	b.t.Helper()
	return b.containerdWith(parts.ContainerdOptions{CertsDir: certs, LocalPull: localPull})
}

// containerdWith starts a containerd that is not as most tests want it.
func (b *bench) containerdWith(o parts.ContainerdOptions) *parts.Containerd {
	b.t.Helper()
	if os.Getuid() != 0 {
		b.t.Skip("containerd needs root")
	}
	c, err := parts.StartContainerd(b.t.Context(), b.bin, b.dir, o)
	if err != nil {
		b.t.Fatal(err)
	}
	b.cleanup(c.Close)
	b.logOnFailure("containerd", c.Log)
	return c
}

// certs has larder write its hosts.toml files and returns their folder.
func (b *bench) certs(l *parts.Larder) string {
	b.t.Helper()
	dir := filepath.Join(b.dir, "certs.d")
	if err := l.Setup(b.t.Context(), dir, l.URL); err != nil {
		b.t.Fatal(err)
	}
	return dir
}

// certsBehindMeter is certs with a meter between containerd and larder's mirror.
func (b *bench) certsBehindMeter(l *parts.Larder) (certs string, node *parts.Meter) {
	b.t.Helper()
	node, err := parts.NewMeter(l.URL)
	if err != nil {
		b.t.Fatal(err)
	}
	b.cleanup(node.Close)
	certs = filepath.Join(b.dir, "certs.d")
	if err := l.Setup(b.t.Context(), certs, node.URL()); err != nil {
		b.t.Fatal(err)
	}
	return certs, node
}

func (b *bench) logOnFailure(name string, log func() string) {
	b.t.Cleanup(func() {
		if !b.t.Failed() {
			return
		}
		lines := strings.Split(strings.TrimSpace(log()), "\n")
		b.t.Logf("%s's last lines:\n%s", name, strings.Join(lines[max(0, len(lines)-40):], "\n"))
	})
}

// run runs a verb of larder's command line that has to succeed.
func run(t *testing.T, l *parts.Larder, args ...string) string {
	t.Helper()
	out, err := l.Run(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// ctr runs ctr, which has to succeed.
func ctr(t *testing.T, c *parts.Containerd, args ...string) string {
	t.Helper()
	out, err := c.Ctr(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// eventually polls until ok is true. It is for states of other processes, which
// offer no event to wait for.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// ecrHosts is config that has the built-in rules hold on all ECR registry hosts.
const ecrHosts = "names.ecr_hosts = [\"*\"]\n"

// noCompanions is config for tests that count what upstream sees.
const noCompanions = "[companions]\nfetch = false\n"

// dockerHub is config that puts upstream behind docker.io.
func dockerHub(upstream string) string { return routeFor("docker.io", upstream) }
