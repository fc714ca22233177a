package integration

import (
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// A larder that answers 500 to everything, as one that is broken, costs containerd
// a moment: it pulls from the registry.
func TestContainerdPassesBrokenLarder(t *testing.T) {
	t.Parallel()
	for name, release := range releases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			passBrokenLarder(t, release)
		})
	}
}

func passBrokenLarder(t *testing.T, release string) {
	t.Helper()
	b := newBench(t, "larder", "containerd", "ctr", "containerd-"+oldRelease, "ctr-"+oldRelease)
	upstream, broken := remotestest.New(t), remotestest.New(t)
	broken.Fault(remotestest.Any(), remotestest.Error(http.StatusInternalServerError, "UNKNOWN", "broken"))
	upstream.PutImage("library/app", "1", remotestest.Build(remotestest.ImageSpec{Seed: 110}))
	l := b.larder(routeFor(upstream.Host(), upstream.URL()))
	certs := b.certs(l)
	if err := l.Setup(t.Context(), certs, broken.URL()); err != nil {
		t.Fatal(err)
	}
	c := b.containerdWith(parts.ContainerdOptions{Release: release, CertsDir: certs})
	begun := time.Now()
	ctr(t, c, pullArgs(upstream.Host()+"/library/app:1", certs, false)...)
	t.Logf("pulled in %s beside a broken larder, which was asked %d times", time.Since(begun).Round(time.Millisecond), len(broken.Requests()))
	if len(broken.Requests()) == 0 {
		t.Error("the broken larder was not asked: the test proves nothing")
	}
}

// A larder that is stopped costs containerd 30 seconds a request, which is its own
// limit, and then it pulls from the registry. When larder goes on, nobody's
// requests are left for it to do.
func TestContainerdPassesStoppedLarder(t *testing.T) {
	t.Parallel()
	if os.Getenv("LARDER_TEST_NIGHTLY") == "" {
		t.Skip("takes minutes: `make nightly` runs it")
	}
	b := newBench(t, "larder", "containerd", "ctr")
	upstream := remotestest.New(t)
	upstream.PutImage("library/app", "1", remotestest.Build(remotestest.ImageSpec{Seed: 111}))
	l := b.larder(routeFor(upstream.Host(), upstream.URL()))
	certs := b.certs(l)
	c := b.containerd(certs, false)
	if err := l.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	ctr(t, c, pullArgs(upstream.Host()+"/library/app:1", certs, false)...)
	took := time.Since(begun)
	before := len(upstream.Requests())
	if err := l.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if a := get(t, l.URL+"/v2/"); a.status != http.StatusOK {
		t.Errorf("when larder goes on: %v", a)
	}
	burst := len(upstream.Requests()) - before
	t.Logf("pulled in %s (4 requests) past a stopped larder; %d requests of larder's when it went on", took.Round(time.Second), burst)
	if took > 4*31*time.Second || burst > 4 {
		t.Errorf("took %s, and then %d requests", took, burst)
	}
}

// containerd 1.x has no limit of its own for an answer to begin, so that a larder
// that is stopped holds its pulls up. One ends by itself after five minutes, without
// a question to the registry (which `make nightly` waits for); when larder is ended,
// it goes to the registry at once.
func TestStoppedLarderHoldsOldContainerd(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder", "containerd-"+oldRelease)
	upstream := remotestest.New(t)
	upstream.PutImage("library/app", "1", remotestest.Build(remotestest.ImageSpec{Seed: 112}))
	l := b.larder(routeFor(upstream.Host(), upstream.URL()))
	certs, node := b.certsBehindMeter(l)
	c := b.containerdWith(parts.ContainerdOptions{Release: oldRelease, CertsDir: certs})
	images := imageService(t, c)
	if err := l.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	begin := func() <-chan error {
		pulled, before := make(chan error, 1), node.Total().Requests
		go func() {
			spec := &cri.ImageSpec{Image: upstream.Host() + "/library/app:1"}
			_, err := images.PullImage(t.Context(), &cri.PullImageRequest{Image: spec})
			pulled <- err
		}()
		eventually(t, "containerd asks larder", func() bool { return node.Total().Requests > before })
		return pulled
	}
	if os.Getenv("LARDER_TEST_NIGHTLY") != "" {
		begun := time.Now()
		err := <-begin()
		t.Logf("a pull past a stopped larder ended after %s: %v", time.Since(begun).Round(time.Second), err)
		if n := len(upstream.Requests()); err == nil || n != 0 {
			t.Errorf("got %v, and the registry saw %d requests: it passes a stopped larder now, and the documentation is wrong", err, n)
		}
	}
	pulled := begin()
	if err := node.Cut(); err != nil { // what containerd sees of a larder that is killed
		t.Fatal(err)
	}
	begun := time.Now()
	if err := <-pulled; err != nil {
		t.Errorf("when larder is gone: %v", err)
	}
	if len(upstream.Requests()) == 0 {
		t.Error("the registry saw no request: the pull proves nothing")
	}
	t.Logf("pulled %s behind the end of the stopped larder", time.Since(begun).Round(time.Millisecond))
	if err := l.Kill(); err != nil {
		t.Error(err)
	}
}
