package integration

import (
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// SIGTERM amid a hundred pulls whose answers have begun: none is dropped.
func TestSIGTERMAmidManyPulls(t *testing.T) {
	t.Parallel()
	const pulls, size, gate = 100, 4 << 20, 2 << 20
	b := newBench(t, "larder")
	upstream := remotestest.New(t)
	desc := upstream.PutBlob("library/big", noise(96, size))
	release := make(chan struct{})
	upstream.Fault(remotestest.Blobs(), remotestest.Gate(gate, release))
	l := b.larder("log.level = \"warn\"\n" + dockerHub(upstream.URL()))
	g := clients{URL: blobURL(l.URL, "library/big", desc.Digest), Count: pulls, Digest: desc.Digest.Encoded()}.start(t)
	g.answered() // what is not read by then is hung up on, and containerd goes on
	begun := time.Now()
	if err := l.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "larder drains", func() bool {
		_, err := fetch(t.Context(), http.MethodGet, l.URL+"/v2/")
		return err != nil
	})
	close(release)
	c := g.end()
	if err := l.Process().Wait(t.Context()); err != nil {
		t.Errorf("larder after SIGTERM: %v, want exit code 0", err)
	}
	t.Logf("%d pulls at SIGTERM: %d dropped; larder ended %s later", pulls, pulls-c.Whole, time.Since(begun).Round(time.Millisecond))
	if c.Whole != pulls {
		t.Errorf("%d pulls at SIGTERM: %+v, want all whole", pulls, c)
	}
}

// A second SIGTERM ends larder at once, and what it had of a blob is kept.
func TestSecondSIGTERM(t *testing.T) {
	t.Parallel()
	const size, gate = 4 << 20, 2 << 20
	b := newBench(t, "larder")
	upstream := remotestest.New(t)
	desc := upstream.PutBlob("library/big", noise(97, size))
	remove := upstream.Fault(remotestest.Blobs(), remotestest.HangBody(gate))
	l := b.larder("shutdown.timeout = \"10m\"\n" + dockerHub(upstream.URL()))
	url := blobURL(l.URL, "library/big", desc.Digest)
	hanging := clients{URL: url, Count: 1, Digest: desc.Digest.Encoded()}.start(t)
	if err := upstream.Await(t.Context(), func(rs []remotestest.Request) bool { return len(rs) > 0 && rs[len(rs)-1].Bytes >= gate }); err != nil {
		t.Fatal(err)
	}
	readAndLeave(t, url, gate/2) // which larder has written, then
	begun := time.Now()
	if err := l.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Process().WaitLine(t.Context(), "shutting down"); err != nil {
		t.Fatal(err)
	}
	// One that comes in the same moment as the first may be taken for it.
	eventually(t, "the next SIGTERM ends larder", func() bool {
		_ = l.Signal(syscall.SIGTERM) // it may have ended
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		return errors.As(l.Process().Wait(ctx), new(*exec.ExitError))
	})
	t.Logf("ended %s after the first of several SIGTERMs, with shutdown.timeout 10m", time.Since(begun).Round(time.Millisecond))
	hanging.end()
	remove()
	if err := l.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := get(t, url); !a.whole(desc.Digest) {
		t.Errorf("after the next start: %v", a)
	}
	if requests := upstream.Requests(); !strings.HasPrefix(requests[len(requests)-1].Header.Get("Range"), "bytes=") {
		t.Error("the fill began anew")
	}
}

// A store into which anyone may write is not served from.
func TestLooseStoreIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder")
	root := filepath.Join(b.dir, "loose")
	if err := errors.Join(os.Mkdir(root, 0o700), os.Chmod(root, 0o777)); err != nil { // without the umask
		t.Fatal(err)
	}
	if out := refusedDaemon(b, root, filepath.Join(b.dir, "admin.sock")); !strings.Contains(out, "mode 0777") || !strings.Contains(out, "chmod") {
		t.Errorf("the message does not say what to do:\n%s", out)
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) != 0 {
		t.Errorf("larder made %v, %v in it", entries, err)
	}
}

// SIGHUP never ends larder. It says what is wrong with the configuration file, and
// goes on with the one that it read at its start.
func TestSIGHUP(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder")
	upstream := remotestest.New(t)
	desc := upstream.PutBlob("library/app", noise(98, 1000))
	l := b.larder(dockerHub(upstream.URL()))
	good, err := os.ReadFile(l.Config())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ text, says string }{
		{string(good), "the configuration file is good"},
		{string(good) + "[mirror]\nno_such_key = 1\n", "the configuration file has problems"},
		{"", "the configuration file is good"},
	} {
		if err := os.WriteFile(l.Config(), []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		before := strings.Count(l.Log(), "SIGHUP")
		if err := l.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		eventually(t, "larder says something", func() bool { return strings.Count(l.Log(), "SIGHUP") > before })
		lines := strings.Split(strings.TrimSpace(l.Log()[strings.LastIndex(l.Log(), "SIGHUP"):]), "\n")
		if !strings.Contains(lines[0], c.says) {
			t.Errorf("larder said %q, want %q", lines[0], c.says)
		}
		if a := get(t, blobURL(l.URL, "library/app", desc.Digest)); !a.whole(desc.Digest) {
			t.Errorf("after SIGHUP: %v", a)
		}
	}
}

// larder is stopped for a while, as by a frozen cgroup: clients have left when it
// goes on, and upstream sees no burst for their sake.
func TestStoppedThenContinued(t *testing.T) {
	t.Parallel()
	const pulls = 50
	b := newBench(t, "larder")
	upstream := remotestest.New(t)
	desc := upstream.PutBlob("library/app", noise(99, 100_000))
	l := b.larder(dockerHub(upstream.URL()))
	if err := l.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	url := blobURL(l.URL, "library/app", desc.Digest)
	c := clients{URL: url, Count: pulls, Digest: desc.Digest.Encoded(), Limit: time.Second}.start(t).end()
	if err := l.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if c.Late != pulls {
		t.Errorf("while larder is stopped: %+v, want that all wait in vain", c)
	}
	if a := get(t, url); !a.whole(desc.Digest) {
		t.Errorf("when it goes on: %v", a)
	}
	n := upstream.Count("", "/blobs/")
	t.Logf("%d clients left while larder was stopped; upstream then saw %d requests", pulls, n)
	if n != 1 {
		t.Errorf("upstream saw %d requests, want 1", n)
	}
}

// larder starts before the network and before containerd: it listens at once, has
// what is stored, and refuses the rest soon.
func TestStartsWithoutNetwork(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder")
	upstream := remotestest.New(t)
	img := remotestest.Build(remotestest.ImageSpec{Seed: 99})
	upstream.PutImage("library/app", "1", img)
	l, err := parts.StartLarder(t.Context(), b.bin, b.dir, impatient+"[freshness]\nwindow = \"1ns\"\nretry = \"10ms\"\n"+dockerHub(upstream.URL()))
	if err != nil {
		t.Fatal(err)
	}
	b.cleanup(l.Close)
	if a := get(t, manifestURL(l.URL, "library/app", "1")); !a.whole(img.Root.Digest) {
		t.Fatal(a)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	upstream.Stop()
	begun := time.Now()
	if err := l.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	listening := time.Since(begun)
	stale := get(t, manifestURL(l.URL, "library/app", "1"))
	missing := get(t, manifestURL(l.URL, "library/app", "2"))
	t.Logf("listening after %s; stored tag %s after %s; missing tag %d after %s", listening.Round(time.Millisecond),
		stale.cache(), stale.took.Round(time.Millisecond), missing.status, missing.took.Round(time.Millisecond))
	if !stale.whole(img.Root.Digest) || stale.cache() != "stale" {
		t.Errorf("stored tag: %v", stale)
	}
	if missing.status != http.StatusServiceUnavailable || missing.took > answerLimit {
		t.Errorf("missing tag: %v after %s, want 503 soon", missing, missing.took)
	}
	upstream.Start()
	eventually(t, "the network comes", func() bool { return get(t, manifestURL(l.URL, "library/app", "1")).cache() != "stale" })
}
