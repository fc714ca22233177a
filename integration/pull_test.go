package integration

import (
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// The three ways to name one image of Docker Hub.
func nameForms(repo, tag string) map[string]string {
	return map[string]string{
		"registry host": "docker.io/library/" + repo + ":" + tag,
		"ecr":           "123456789012.dkr.ecr.eu-central-1.amazonaws.com/docker-hub/library/" + repo + ":" + tag,
		"localhost":     "localhost/docker-hub/library/" + repo + ":" + tag,
	}
}

// The main promise: what was pulled once can be pulled again when the upstream
// has deleted it, and when the upstream is gone, by every name and pull path.
func TestPullOutlivesUpstream(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder", "containerd", "ctr", "registry")
	registry, meter := b.registry()
	binary, err := os.ReadFile(b.bin.Path("larder"))
	if err != nil {
		t.Fatal(err)
	}
	img := remotestest.Build(remotestest.ImageSpec{
		Seed: 10, Layers: []int64{3 << 20, 100_000}, Platforms: []string{"linux/amd64", "linux/arm64"},
		Files: []remotestest.File{{Path: "larder", Mode: 0o755, Data: binary}}, Cmd: []string{"/larder", "version"},
	})
	if err := remotestest.Push(t.Context(), registry.URL, "library/app", "1", img); err != nil {
		t.Fatal(err)
	}
	l := b.larder(ecrHosts + noCompanions + dockerHub(meter.URL()))
	certs := b.certs(l)
	c := b.containerd(certs, false)

	cold := nameForms("app", "1")["registry host"]
	ctr(t, c, pullArgs(cold, certs, false)...)
	if got := meter.Total(); got.Requests == 0 || got.Bytes < 3<<20 {
		t.Fatalf("cold pull: %+v passed the meter, so it did not go through it", got)
	}
	used := meter.Total()
	pullAll(t, c, certs, "warm")
	if got := meter.Total().Sub(used); got.Requests != 0 {
		t.Errorf("warm pulls inside the window: upstream saw %d requests, want 0", got.Requests)
	}

	if err := parts.DeleteImage(t.Context(), registry.URL, "library/app", "1"); err != nil {
		t.Fatal(err)
	}
	if a := get(t, registry.URL+"/v2/library/app/manifests/1"); a.status != http.StatusNotFound {
		t.Fatalf("deleted image: upstream says %v", a)
	}
	pullAll(t, c, certs, "deleted upstream")

	if err := meter.Cut(); err != nil {
		t.Fatal(err)
	}
	pullAll(t, c, certs, "upstream down")
	out, err := c.RunContainer(t.Context(), strings.TrimSpace(ctr(t, c, "images", "ls", "-q")))
	if err != nil || !strings.Contains(out, "larder") {
		t.Errorf("a container of the image: printed %q, %v, want larder's version", out, err)
	}
}

// pullAll pulls the image app:1 by each name and pull path, each time into an
// empty containerd.
func pullAll(t *testing.T, c *parts.Containerd, certs, when string) {
	t.Helper()
	for form, ref := range nameForms("app", "1") {
		for _, local := range []bool{false, true} {
			if err := c.Forget(t.Context(), "default"); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Ctr(t.Context(), pullArgs(ref, certs, local)...); err != nil {
				t.Errorf("%s, %s name, local %t: %v", when, form, local, err)
				continue
			}
			if names := ctr(t, c, "images", "ls", "-q"); strings.TrimSpace(names) != ref {
				t.Errorf("%s: containerd has images %q, want %s", when, names, ref)
			}
		}
	}
}

// Past its window a tag is checked upstream; a deleted or dead upstream then
// must not take the image away.
func TestStalePullWithoutUpstream(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder", "containerd", "ctr", "registry")
	registry, meter := b.registry()
	img := remotestest.Build(remotestest.ImageSpec{Seed: 11, Layers: []int64{50_000}})
	if err := remotestest.Push(t.Context(), registry.URL, "library/app", "1", img); err != nil {
		t.Fatal(err)
	}
	l := b.larder(ecrHosts + "[freshness]\nwindow = \"1ns\"\n" + dockerHub(meter.URL()))
	certs := b.certs(l)
	c := b.containerd(certs, false)
	ctr(t, c, pullArgs("docker.io/library/app:1", certs, false)...)
	if err := parts.DeleteImage(t.Context(), registry.URL, "library/app", "1"); err != nil {
		t.Fatal(err)
	}
	before := meter.Total()
	pullAll(t, c, certs, "stale, deleted upstream")
	if meter.Total().Sub(before).Requests == 0 {
		t.Error("no check went upstream, so the tag was not stale and this test proves nothing")
	}
	if err := meter.Cut(); err != nil {
		t.Fatal(err)
	}
	pullAll(t, c, certs, "stale, upstream down")
	if a := get(t, manifestURL(l.URL, "library/app", "1")); a.status != http.StatusOK || a.cache() != "stale" {
		t.Errorf("stale tag: got %v with X-Larder-Cache %q, want 200 stale", a, a.cache())
	}
}

// A Docker schema 2 image must reach containerd with its own media types.
func TestPullDockerSchema2(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder", "containerd", "ctr", "registry")
	registry, meter := b.registry()
	img := remotestest.Build(remotestest.ImageSpec{Seed: 12, Layers: []int64{20_000}, Docker: true, Platforms: []string{"linux/amd64", "linux/s390x"}})
	if err := remotestest.Push(t.Context(), registry.URL, "library/app", "1", img); err != nil {
		t.Fatal(err)
	}
	l := b.larder(dockerHub(meter.URL()))
	certs := b.certs(l)
	c := b.containerd(certs, false)
	ctr(t, c, append(pullArgs("docker.io/library/app:1", certs, true), "--all-platforms")...)
	if got := ctr(t, c, "images", "ls"); !strings.Contains(got, remotestest.MediaTypeDockerList) {
		t.Errorf("containerd's image list has no %s:\n%s", remotestest.MediaTypeDockerList, got)
	}
}

// larder is never in the way: without it, containerd goes to the registry.
func TestPullWithoutDaemon(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder", "containerd", "ctr")
	upstream := remotestest.New(t)
	upstream.PutImage("library/app", "1", remotestest.Build(remotestest.ImageSpec{Seed: 13}))
	l := b.larder(routeFor(upstream.Host(), upstream.URL()))
	certs := b.certs(l)
	c := b.containerd(certs, false)
	ref := upstream.Host() + "/library/app:1"
	ctr(t, c, pullArgs(ref, certs, false)...)
	if err := c.Forget(t.Context(), "default"); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	before := len(upstream.Requests())
	ctr(t, c, pullArgs(ref, certs, false)...)
	if len(upstream.Requests()) == before {
		t.Error("the registry saw no request, so the pull proves nothing")
	}
}
