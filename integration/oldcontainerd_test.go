package integration

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// oldRelease is the containerd 1.x that is built beside the 2.x of the other tests.
const oldRelease = "1.7"

// oldestRelease is the one of 1.6 that Debian 12 has.
const oldestRelease = "1.6"

// releases are the containerds that tests run, for parts.ContainerdOptions.
func releases() map[string]string { return map[string]string{"2.x": "", "1.x": oldRelease} }

// pullWay is one of the ways to have containerd pull.
type pullWay struct {
	namespace string
	pull      func(t *testing.T, c *parts.Containerd, certs, ref string)
}

// oldPullers are the ways to pull of containerd 1.x. ctr of 1.7 goes by the transfer
// service only where asked to, and then does not read hosts.toml files.
func oldPullers() map[string]pullWay {
	return map[string]pullWay{
		"ctr": {"default", func(t *testing.T, c *parts.Containerd, certs, ref string) {
			t.Helper()
			ctr(t, c, pullArgs(ref, certs, false)...)
		}},
		"CRI": {"k8s.io", func(t *testing.T, c *parts.Containerd, _, ref string) {
			t.Helper()
			criPull(t, imageService(t, c), ref)
		}},
	}
}

// The main promises hold for the older containerd, too: what it pulled once
// outlives the upstream, by every name, and without larder it pulls by itself.
func TestOldContainerd(t *testing.T) {
	t.Parallel()
	for name, by := range oldPullers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "larder", "containerd-"+oldRelease, "ctr-"+oldRelease)
			upstream := remotestest.New(t)
			upstream.PutImage("library/app", "1", remotestest.Build(remotestest.ImageSpec{
				Seed: 120, Layers: []int64{2 << 20, 30_000}, Platforms: []string{"linux/amd64", "linux/arm64"},
			}))
			meter, err := parts.NewMeter(upstream.URL())
			if err != nil {
				t.Fatal(err)
			}
			b.cleanup(meter.Close)
			l := b.larder(ecrHosts + noCompanions + dockerHub(meter.URL()) + routeFor(upstream.Host(), meter.URL()))
			certs := b.certs(l)
			c := b.containerdWith(parts.ContainerdOptions{Release: oldRelease, CertsDir: certs})
			begun := time.Now()
			pull := func(ref string) {
				t.Helper()
				by.pull(t, c, certs, ref)
				if err := c.Forget(t.Context(), by.namespace); err != nil {
					t.Fatalf("%s: %v", ref, err)
				}
			}
			own := upstream.Host() + "/library/app:1"

			pull(own)
			if got := meter.Total(); got.Bytes < 2<<20 || got.Requests != len(upstream.Requests()) {
				t.Fatalf("cold pull: %+v went through larder, of %d requests", got, len(upstream.Requests()))
			}
			pull("docker.io/library/app:1") // another repository: asked upstream whether it has the image
			gone := upstream.Fault(remotestest.Any(), remotestest.Error(http.StatusNotFound, "NAME_UNKNOWN", "deleted"))
			if err := meter.Cut(); err != nil {
				t.Fatal(err)
			}
			asked := len(upstream.Requests())
			pull(own)
			for _, ref := range nameForms("app", "1") {
				pull(ref)
			}
			if n := len(upstream.Requests()) - asked; n != 0 {
				t.Errorf("warm pulls: upstream saw %d requests, want 0", n)
			}

			gone()
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			pull(own)
			if len(upstream.Requests()) == asked {
				t.Error("larder is down, and the registry saw no request: the pull proves nothing")
			}
			t.Logf("7 pulls by containerd %s in %s", oldRelease, time.Since(begun).Round(time.Millisecond))
		})
	}
}

// setupFinding is one of what larder setup containerd --json found.
type setupFinding struct{ Path, Problem, Fix string }

// setupFindings has larder look at containerd's config as larder setup does, and
// write its files.
func setupFindings(t *testing.T, l *parts.Larder, c *parts.Containerd, certs string) []setupFinding {
	t.Helper()
	var res struct{ Findings []setupFinding }
	out := run(t, l, "setup", "containerd", "--json", "--certs-d", certs, "--containerd-config", c.Config())
	if err := json.Unmarshal([]byte(out), &res); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return res.Findings
}

// larder setup containerd says why an older containerd would not ask larder, and
// the lines that it offers are what has that containerd ask.
func TestSetupOldContainerd(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		configured bool   // config_path is in the main file
		dropIn     string // a file that is imported
		problem    string
	}{
		"not set":        {false, "", "config_path is not set"},
		"lost in import": {true, "[plugins.\"io.containerd.grpc.v1.cri\"]\n  max_concurrent_downloads = 2\n", "takes the whole table from this file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "larder", "containerd-"+oldRelease, "ctr-"+oldRelease)
			upstream := remotestest.New(t)
			upstream.PutImage("library/app", "1", remotestest.Build(remotestest.ImageSpec{Seed: 121}))
			l := b.larder(noCompanions + routeFor(upstream.Host(), upstream.URL()))
			node, err := parts.NewMeter(l.URL)
			if err != nil {
				t.Fatal(err)
			}
			b.cleanup(node.Close)
			certs, dropIn := filepath.Join(b.dir, "certs.d"), filepath.Join(b.dir, "50-drop-in.toml")
			o := parts.ContainerdOptions{Release: oldRelease, Imports: []string{dropIn}}
			if test.configured {
				o.CertsDir = certs
			}
			if err := os.WriteFile(dropIn, []byte(test.dropIn), 0o600); err != nil {
				t.Fatal(err)
			}
			c := b.containerdWith(o)
			found := setupFindings(t, l, c, certs)
			if len(found) != 1 || !strings.Contains(found[0].Problem, test.problem) {
				t.Fatalf("got %+v, want one finding with %q", found, test.problem)
			}
			if err := l.Setup(t.Context(), certs, node.URL()); err != nil {
				t.Fatal(err)
			}
			ref := upstream.Host() + "/library/app:1"
			criPull(t, imageService(t, c), ref)
			if n := node.Total().Requests; n != 0 {
				t.Errorf("larder was asked %d times, so the finding is wrong: %+v", n, found)
			}
			if err := c.Forget(t.Context(), "k8s.io"); err != nil {
				t.Fatal(err)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			switch lines := tomlLines(found[0].Fix); found[0].Path {
			case c.Config():
				o.Extra = lines
			case dropIn:
				if err := os.WriteFile(dropIn, []byte(test.dropIn+lines), 0o600); err != nil {
					t.Fatal(err)
				}
			default:
				t.Fatalf("the finding is about %s", found[0].Path)
			}
			c = b.containerdWith(o)
			criPull(t, imageService(t, c), ref)
			if node.Total().Requests == 0 {
				t.Errorf("with the lines that setup offers larder is not asked:\n%s", found[0].Fix)
			}
			if found := setupFindings(t, l, c, certs); len(found) != 0 {
				t.Errorf("with the lines that setup offers: %+v", found)
			}
		})
	}
}

// tomlLines are the lines of a finding's fix that belong into the file.
func tomlLines(fix string) string {
	var b strings.Builder
	for line := range strings.Lines(fix) {
		if strings.HasPrefix(line, " ") { // the others are for people
			b.WriteString(line)
		}
	}
	return b.String()
}

// What setup says an older containerd refuses, that one refuses.
func TestSetupOldContainerdRefuses(t *testing.T) {
	t.Parallel()
	const registry = `[plugins."io.containerd.grpc.v1.cri".registry`
	for name, test := range map[string]struct{ extra, problem string }{
		"mirrors": {registry + ".mirrors.\"docker.io\"]\n  endpoint = [\"https://m.example\"]\n", "registry.mirrors (docker.io)"},
		"tls":     {registry + ".configs.\"a.example\".tls]\n  insecure_skip_verify = true\n", "registry.configs with tls (a.example)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "larder", "containerd-"+oldRelease)
			l := b.larder("")
			certs := b.certs(l)
			c := b.containerdWith(parts.ContainerdOptions{Release: oldRelease, CertsDir: certs, Extra: test.extra})
			found := setupFindings(t, l, c, certs)
			if len(found) != 1 || !strings.Contains(found[0].Problem, test.problem) {
				t.Errorf("got %+v, want one finding with %q", found, test.problem)
			}
			_, err := imageService(t, c).ListImages(t.Context(), &cri.ListImagesRequest{})
			if err == nil || !strings.Contains(err.Error(), "Unimplemented") {
				t.Errorf("containerd's CRI answers %v, want Unimplemented: the finding is wrong", err)
			}
		})
	}
}
