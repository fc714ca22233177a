package integration

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// networkEnv marks the process that has a network namespace of its own.
const networkEnv = "LARDER_TEST_NETWORK"

// TestNetworkFaults runs the tests below in a network namespace, where rules may
// drop and refuse what they like.
func TestNetworkFaults(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	for _, program := range []string{"nft", "ip"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%v; `make deps` installs it", err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	proc, err := parts.StartWith(parts.StartOptions{Cloneflags: unix.CLONE_NEWNET}, self, []string{networkEnv + "=1"},
		"-test.v", "-test.count=1", "-test.timeout=5m", "-test.run=^TestInsideNetwork")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proc.Kill() }) // it has ended, or the test has failed
	err = proc.Wait(t.Context())
	for line := range strings.Lines(proc.Output()) {
		if !strings.HasPrefix(line, "=== ") {
			t.Log(strings.TrimRight(line, "\n"))
		}
	}
	if err != nil || !strings.Contains(proc.Output(), "--- PASS: TestInsideNetworkLoss") {
		t.Errorf("in the namespace: %v", err)
	}
}

// netns is a namespace whose loopback has rules for the far address.
type netns struct{ t *testing.T }

// far is where the upstream is, behind a relay. What larder sends there and gets
// from there passes the rules.
const far = "127.0.0.2"

func newNetns(t *testing.T) netns {
	t.Helper()
	if os.Getenv(networkEnv) == "" {
		t.Skip("runs as part of TestNetworkFaults")
	}
	n := netns{t}
	n.run("ip", "link", "set", "lo", "up")
	n.run("nft", "add", "table", "inet", "larder")
	n.run("nft", "add", "chain", "inet", "larder", "in", "{ type filter hook input priority 0; }")
	t.Cleanup(func() { n.run("nft", "delete", "table", "inet", "larder") })
	return n
}

func (n netns) run(args ...string) string {
	n.t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		n.t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// rule adds a rule for what goes to the far address, behind a counter of
// connections that are tried.
func (n netns) rule(text string) {
	n.t.Helper()
	n.run("nft", "add rule inet larder in ip daddr "+far+" tcp flags & (syn|ack) == syn counter")
	n.run("nft", "add rule inet larder in ip daddr "+far+" "+text)
}

func (n netns) clear() { n.run("nft", "flush", "chain", "inet", "larder", "in") }

// dials counts the connections that were tried, repeated ones included.
func (n netns) dials() int {
	n.t.Helper()
	m := regexp.MustCompile(`counter packets (\d+)`).FindStringSubmatch(n.run("nft", "list", "chain", "inet", "larder", "in"))
	if m == nil {
		n.t.Fatal("no counter")
	}
	count, _ := strconv.Atoi(m[1]) // digits
	return count
}

// relay passes connections to the far address on to another, at most rate bytes a
// second of what comes back, each piece delay later; 0: as they come. cut ends
// those that there are.
func relay(t *testing.T, to string, rate int, delay time.Duration) (addr string, cut func()) {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp4", far+":0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	keep := func(c net.Conn) { mu.Lock(); defer mu.Unlock(); open = append(open, c) }
	cut = func() {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range open {
			c.Close()
		}
	}
	t.Cleanup(func() {
		l.Close()
		cut()
		all.Wait()
	})
	all.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			keep(near)
			back, err := (&net.Dialer{}).DialContext(t.Context(), "tcp4", to)
			if err != nil {
				near.Close()
				continue
			}
			keep(back)
			all.Go(func() { defer back.Close(); _, _ = io.Copy(back, near) })
			all.Go(func() { defer near.Close(); passSlowly(near, back, rate, delay) })
		}
	})
	return l.Addr().String(), cut
}

// passSlowly keeps pieces for delay, in a queue.
func passSlowly(to io.Writer, from io.Reader, rate int, delay time.Duration) {
	type piece struct {
		data []byte
		due  time.Time
	}
	queue := make(chan piece, 1000)
	go func() {
		defer close(queue)
		for {
			buf := make([]byte, 4<<10)
			n, err := from.Read(buf)
			if n > 0 {
				queue <- piece{buf[:n], time.Now().Add(delay)}
			}
			if err != nil {
				return
			}
		}
	}()
	failed := false
	for p := range queue {
		wait := time.Until(p.due)
		if rate > 0 {
			wait = max(wait, time.Duration(len(p.data))*time.Second/time.Duration(rate))
		}
		if wait > 0 && !failed {
			<-time.After(wait)
		}
		if !failed { // what is left is read, so that the reader ends
			_, err := to.Write(p.data)
			failed = err != nil
		}
	}
}

// Connections to the upstream are refused, reset, or vanish: what is stored is
// served as before, what is not is refused soon, and the upstream is left alone.
//
//nolint:paralleltest // the rules are the namespace's
func TestInsideNetworkConnect(t *testing.T) {
	n := newNetns(t)
	for name, c := range map[string]struct {
		rule  string
		stays bool // a connection from before the fault
	}{
		"refused":                   {"reject with icmp type port-unreachable", false},
		"reset":                     {"meta l4proto tcp reject with tcp reset", false},
		"blackhole":                 {"drop", false},
		"blackhole of a connection": {"drop", true},
	} {
		t.Run(name, func(t *testing.T) {
			n.t = t
			const misses = 20
			b := newBench(t, "larder")
			upstream := remotestest.New(t)
			desc, cold := upstream.PutBlob("library/app", noise(1, 100_000)), upstream.PutBlob("library/app", noise(2, 1000))
			addr, cut := relay(t, upstream.Host(), 0, 0)
			l := b.larder("log.level = \"error\"\nupstream.pause = \"10m\"\n" + dockerHub("http://"+addr))
			if a := get(t, blobURL(l.URL, "library/app", desc.Digest)); !a.whole(desc.Digest) {
				t.Fatal(a)
			}
			eventually(t, "it is stored", func() bool { return published(l, desc.Digest) })
			if !c.stays {
				cut()
			}
			n.rule(c.rule)
			defer n.clear()
			var longest, hit time.Duration
			for range misses {
				a := get(t, blobURL(l.URL, "library/app", cold.Digest))
				if longest = max(longest, a.took); a.status != http.StatusServiceUnavailable || a.took > answerLimit {
					t.Errorf("what is not stored: %v after %s, want 503 soon", a, a.took)
				}
				h := get(t, blobURL(l.URL, "library/app", desc.Digest))
				if hit = max(hit, h.took); !h.whole(desc.Digest) || h.cache() != "hit" {
					t.Errorf("what is stored: %v", h)
				}
			}
			tried := n.dials()
			for range misses { // the breaker is open
				get(t, blobURL(l.URL, "library/app", cold.Digest))
			}
			open := n.dials() - tried
			t.Logf("%s: 503 after at most %s, hits after at most %s; %d connections tried for %d misses, %d for %d more",
				name, longest.Round(time.Millisecond), hit.Round(time.Millisecond), tried, misses, open, misses)
			if !c.stays && tried == 0 {
				t.Error("no connection was tried: the test proves nothing")
			}
			if open > 3 { // of a dial that goes on, the kernel repeats the first packet
				t.Errorf("%d connections tried although the breaker is open", open)
			}
		})
	}
}

// The way to the upstream loses packets, is slow and long: the blob comes, if need
// be to a client that asks again as containerd does, and no part of it twice.
//
//nolint:paralleltest // the rules are the namespace's
func TestInsideNetworkLoss(t *testing.T) {
	n := newNetns(t)
	const size = 512 << 10
	b := newBench(t, "larder")
	upstream := remotestest.New(t)
	desc, plain := upstream.PutBlob("library/app", noise(3, size)), upstream.PutBlob("library/app", noise(4, size))
	addr, _ := relay(t, upstream.Host(), 1<<20, 200*time.Millisecond)
	direct := b.larder("log.level = \"warn\"\n" + dockerHub("http://"+addr))
	whole := func(what string, d remotestest.Blob) time.Duration {
		begun := time.Now()
		for range 5 {
			a, err := fetch(t.Context(), http.MethodGet, blobURL(direct.URL, "library/app", d.Descriptor.Digest))
			if err == nil && a.whole(d.Descriptor.Digest) {
				return time.Since(begun)
			}
			t.Logf("%s: %v, %v", what, a, err)
		}
		t.Errorf("%s: five requests did not bring the blob", what)
		return time.Since(begun)
	}
	without := whole("without loss", remotestest.Blob{Descriptor: plain})
	loss := count(t, "LARDER_TEST_LOSS", 10) // in percent
	drop := fmt.Sprintf("numgen random mod 100 < %d drop", loss)
	n.rule(drop)
	n.run("nft", "add rule inet larder in ip saddr "+far+" "+drop)
	defer n.clear()
	with := whole("with loss", remotestest.Blob{Descriptor: desc})
	gets := upstream.Count(http.MethodGet, desc.Digest.Encoded())
	var sent int64
	for _, r := range upstream.Requests() {
		if strings.Contains(r.Path, desc.Digest.Encoded()) {
			sent += r.Bytes
		}
	}
	t.Logf("%d KiB at 8 Mbit/s and +200 ms: %s without loss, %s with %d%% of the packets lost; %d GETs, %d bytes",
		size>>10, without.Round(time.Millisecond), with.Round(time.Millisecond), loss, gets, sent)
	if loss <= 10 && gets != 1 {
		t.Errorf("%d GETs, want 1", gets)
	}
}

// By default larder listens on loopback, and nowhere else.
//
//nolint:paralleltest // the address is the namespace's
func TestInsideNetworkLoopbackOnly(t *testing.T) {
	n := newNetns(t)
	n.run("ip", "addr", "add", "192.0.2.1/32", "dev", "lo") // another address of the machine
	b := newBench(t, "larder")
	l := b.larder("")
	_, port, _ := strings.Cut(strings.TrimPrefix(l.URL, "http://"), ":")
	if a, err := fetch(t.Context(), http.MethodGet, fmt.Sprintf("http://192.0.2.1:%s/v2/", port)); err == nil {
		t.Errorf("another address: %v, want that the connection is refused", a)
	}
	if a := get(t, l.URL+"/v2/"); a.status != http.StatusOK {
		t.Errorf("loopback: %v", a)
	}
}
