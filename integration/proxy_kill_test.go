package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// TestProxyKilled ends larder by SIGKILL somewhere in a pull, and starts it again:
// the pull ends right, or does when it is made again; containerd runs on, and all
// that it has is whole.
func TestProxyKilled(t *testing.T) {
	t.Parallel()
	n := count(t, "LARDER_TEST_PROXY_KILLS", 12)
	p := newProxied(t, parts.ContainerdOptions{}, noCompanions, "")
	for i := range n {
		img := remotestest.Build(remotestest.ImageSpec{Seed: uint64(700 + i), Layers: []int64{4 << 20, 50_000}})
		if err := remotestest.Push(t.Context(), p.registry.URL, "library/app", fmt.Sprint(i), img); err != nil {
			t.Fatal(err)
		}
	}
	pid := p.containerd.PID()
	rng := rand.New(rand.NewPCG(7, uint64(n)))
	killed, again := 0, 0
	for i := range n {
		args := pullArgs(fmt.Sprintf("docker.io/library/app:%d", i), p.certs, i%2 == 0)
		done := make(chan error, 1)
		go func() {
			_, err := p.containerd.Ctr(t.Context(), args...)
			done <- err
		}()
		kill := time.NewTimer(time.Duration(rng.IntN(400)) * time.Millisecond)
		var err error
		select {
		case err = <-done:
			kill.Stop()
		case <-kill.C:
			killed++
			if kerr := p.l.Kill(); kerr != nil {
				t.Fatal(kerr)
			}
			if serr := p.l.Start(t.Context()); serr != nil {
				t.Fatal(serr)
			}
			err = <-done
		}
		if err == nil {
			continue
		}
		again++
		eventually(t, "the pull is made again", func() bool {
			_, err = p.containerd.Ctr(t.Context(), args...)
			return err == nil
		})
	}
	t.Logf("%d pulls, larder was killed in %d, %d were made again", n, killed, again)
	if killed == 0 {
		t.Error("larder was never killed: the test proves nothing")
	}
	if p.containerd.PID() != pid || !strings.Contains(ctr(t, p.containerd, "version"), "Server:") {
		t.Error("containerd did not run on")
	}
	if got := len(strings.Fields(ctr(t, p.containerd, "images", "check", "-q"))); got != n {
		t.Errorf("%d of %d images are whole", got, n)
	}
	p.checkContent()
}

// TestProxyClearsMounts: a larder that is killed while it unpacks leaves a mount of
// the snapshot, and the next one takes it away.
func TestProxyClearsMounts(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("NOT TESTED: what is left mounted; mounting needs root")
	}
	b := newBench(t, "larder")
	left := filepath.Join(b.dir, "mounts", "containerd-mount1")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(b.dir, left, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	b.larder(fmt.Sprintf("\n[proxy]\nenabled = true\nsocket = %q\n", filepath.Join(b.dir, "p.sock")))
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was left mounted: %v, want it gone", err)
		_ = unix.Unmount(left, unix.MNT_DETACH)
	}
}
