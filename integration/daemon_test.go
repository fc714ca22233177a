package integration

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// refusedDaemon starts a daemon beside another one that has its store or its
// socket. It has to end by itself, with an exit code; what it said is returned.
func refusedDaemon(b *bench, root, socket string) string {
	b.t.Helper()
	config := filepath.Join(b.dir, "second.toml")
	text := "root = " + strconv.Quote(root) + "\nmirror.address = \"127.0.0.1:0\"\nadmin.address = " + strconv.Quote(socket) + "\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	proc, err := parts.Start(b.bin.Path("larder"), nil, "serve", "--config", config)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = proc.Kill() }()
	ctx, cancel := context.WithTimeout(b.t.Context(), answerLimit)
	defer cancel()
	if err := proc.Wait(ctx); !errors.As(err, new(*exec.ExitError)) {
		b.t.Fatalf("second daemon: ended with %v, want an exit code; it said:\n%s", err, proc.Output())
	}
	return proc.Output()
}

func TestSecondDaemonIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder")
	upstream := remotestest.New(t)
	desc := upstream.PutBlob("library/app", noise(80, 1000))
	l := b.larder(dockerHub(upstream.URL()))
	begun := time.Now()
	out := refusedDaemon(b, l.Root(), filepath.Join(b.dir, "second.sock"))
	t.Logf("refused after %v", time.Since(begun).Round(time.Millisecond))
	if !strings.Contains(out, strconv.Itoa(l.PID())) {
		t.Errorf("second daemon's message does not name pid %d of the first:\n%s", l.PID(), out)
	}
	if a := get(t, blobURL(l.URL, "library/app", desc.Digest)); !a.whole(desc.Digest) {
		t.Errorf("first daemon afterwards: got %v", a)
	}
}

func TestSIGTERMDrains(t *testing.T) {
	t.Parallel()
	const size, gate = 4 << 20, 2 << 20
	b := newBench(t, "larder")
	upstream := remotestest.New(t)
	desc := upstream.PutBlob("library/big", noise(81, size))
	release := make(chan struct{})
	upstream.Fault(remotestest.Blobs(), remotestest.Gate(gate, release))
	l := b.larder(dockerHub(upstream.URL()))
	url := blobURL(l.URL, "library/big", desc.Digest)

	type result struct {
		a   answer
		err error
	}
	ended := make(chan result, 1)
	go func() {
		a, err := fetch(t.Context(), http.MethodGet, url)
		ended <- result{a, err}
	}()
	if err := upstream.Await(t.Context(), func(rs []remotestest.Request) bool {
		return len(rs) > 0 && rs[len(rs)-1].Bytes >= gate
	}); err != nil {
		t.Fatal(err)
	}
	if err := l.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "new connections are refused while draining", func() bool {
		conn, err := net.DialTimeout("tcp", strings.TrimPrefix(l.URL, "http://"), time.Second)
		if err == nil {
			_ = conn.Close() // left open, it would be one more client to drain
		}
		return err != nil
	})
	close(release)
	if r := <-ended; r.err != nil || !r.a.whole(desc.Digest) {
		t.Errorf("pull that ran at SIGTERM: got %v, %v, want the whole blob", r.a, r.err)
	}
	if err := l.Process().Wait(t.Context()); err != nil {
		t.Errorf("larder after SIGTERM: %v, want exit code 0", err)
	}
}

// A pull longer than the shutdown deadline is cut, and its fill goes on where it
// was after the next start.
func TestSIGTERMLeavesFillsResumable(t *testing.T) {
	t.Parallel()
	const size, gate = 4 << 20, 2 << 20
	b := newBench(t, "larder")
	upstream := remotestest.New(t)
	desc := upstream.PutBlob("library/big", noise(82, size))
	remove := upstream.Fault(remotestest.Blobs(), remotestest.HangBody(gate))
	l := b.larder("[shutdown]\ntimeout = \"200ms\"\n" + dockerHub(upstream.URL()))
	url := blobURL(l.URL, "library/big", desc.Digest)
	readAndLeave(t, url, gate/2)
	if err := l.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := l.Process().Wait(ctx); err != nil {
		t.Errorf("larder after SIGTERM: %v, want exit code 0", err)
	}
	remove()
	if err := l.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := get(t, url); !a.whole(desc.Digest) {
		t.Fatalf("after the next start: %v", a)
	}
	requests := upstream.Requests()
	if last := requests[len(requests)-1]; !strings.HasPrefix(last.Header.Get("Range"), "bytes=") {
		t.Errorf("the fill began anew: last upstream request %s %s has no Range", last.Method, last.Path)
	}
}

func TestReadinessIsNotified(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder")
	path, conn := b.serviceManager()
	l := b.larder("", "NOTIFY_SOCKET="+path)
	awaitState(t, conn, "READY=1")
	if a := get(t, l.URL+"/v2/"); a.status != http.StatusOK {
		t.Errorf("ready, but /v2/ answers %v", a)
	}
	if err := l.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	awaitState(t, conn, "STOPPING=1")
}

// Where systemd watches it, larder says again and again that it answers.
func TestWatchdogIsFed(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder")
	path, conn := b.serviceManager()
	b.larder("", "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=150000")
	for range 5 {
		awaitState(t, conn, "WATCHDOG=1")
	}
}

// serviceManager listens for what a daemon tells it, as systemd does.
func (b *bench) serviceManager() (path string, conn *net.UnixConn) {
	b.t.Helper()
	path = filepath.Join(b.dir, "notify.sock")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		b.t.Fatal(err)
	}
	return path, conn
}

// awaitState reads what a daemon tells its service manager until it says state.
func awaitState(t *testing.T, conn *net.UnixConn, state string) {
	t.Helper()
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("wait for %s: %v", state, err)
		}
		if strings.Contains("\n"+string(buf[:n])+"\n", "\n"+state+"\n") {
			return
		}
	}
}

// Two daemons with stores of their own but one admin socket: the second would
// take the first one's verbs.
func TestAdminSocketIsNotShared(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder")
	l := b.larder("")
	socket := filepath.Join(filepath.Dir(l.Config()), "admin.sock")
	if out := refusedDaemon(b, filepath.Join(b.dir, "other"), socket); !strings.Contains(out, "admin.address") {
		t.Errorf("second daemon's message does not name the key to change:\n%s", out)
	}
	run(t, l, "ls")
}

// Whoever reads the log may end before larder does, as tee or a log shipper.
func TestLogReaderLeaves(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder")
	l, err := parts.NewLarder(b.bin, b.dir, "log.level = \"debug\"\n")
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := os.Create(filepath.Join(b.dir, "stdout"))
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), b.bin.Path("larder"), "serve", "--config", l.Config())
	cmd.Stdout, cmd.Stderr = stdout, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	_ = errors.Join(w.Close(), r.Close()) // nobody reads from here on
	var url string
	eventually(t, "the daemon listens", func() bool {
		text, err := os.ReadFile(stdout.Name())
		_, url, _ = strings.Cut(strings.TrimSpace(string(text)), "listening on ")
		return err == nil && url != ""
	})
	for range 3 {
		if a := get(t, url+"/v2/"); a.status != http.StatusOK {
			t.Errorf("got %v, want 200", a)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("daemon ended with %v, want an orderly end", err)
	}
}
