package integration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// larderBehind starts a larder by way of a shell script that ends in exec "$@".
func (b *bench) larderBehind(script, extra string, env ...string) *parts.Larder {
	b.t.Helper()
	dir := filepath.Join(b.dir, "behind")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		b.t.Fatal(err)
	}
	text := "#!/bin/sh\nset -e\nset -- " + b.bin.Path("larder") + " \"$@\"\n" + script + "\nexec \"$@\"\n"
	if err := parts.WriteProgram(filepath.Join(dir, "larder"), text); err != nil {
		b.t.Fatal(err)
	}
	l, err := parts.StartLarder(b.t.Context(), parts.Bin(dir), b.dir, extra, env...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.cleanup(l.Close)
	b.logOnFailure("larder", l.Log)
	return l
}

// Ten thousand clients at night, two thousand else, want one blob that is not
// stored: upstream is asked once, and all get it.
//
//nolint:paralleltest // it uses the whole machine
func TestManyClientsOneColdBlob(t *testing.T) {
	const size, gate = 256 << 10, 64 << 10
	n := count(t, "LARDER_TEST_CLIENT_COUNT", 2000)
	b := newBench(t, "larder")
	upstream := remotestest.New(t)
	desc := upstream.PutBlob("library/app", noise(90, size))
	release := make(chan struct{})
	upstream.Fault(remotestest.And(remotestest.Blobs(), remotestest.Method(http.MethodGet)), remotestest.Gate(gate, release))
	l := b.larder("log.level = \"warn\"\nmirror.wait = \"20s\"\n" + dockerHub(upstream.URL()))
	before := residentMemory(t, l.PID())
	g := clients{URL: blobURL(l.URL, "library/app", desc.Digest), Count: n, Digest: desc.Digest.Encoded()}.start(t)
	eventually(t, "larder has all connections", func() bool { return openFiles(t, l.PID()) >= n })
	close(release)
	c := g.end()
	gets := upstream.Count(http.MethodGet, "/blobs/")
	peak := peakMemory(t, l.PID())
	t.Logf("%d clients: %d whole in %s, %d GETs upstream, larder's memory %d MiB, %d KiB a client",
		n, c.Whole, c.Took.Round(time.Millisecond), gets, peak>>20, (peak-before)>>10/int64(n))
	if c.Whole != n || gets != 1 {
		t.Errorf("%d clients: %+v, %d GETs upstream, want all whole of one", n, c, gets)
	}
	if perClient := (peak - before) / int64(n); perClient > 64<<10 {
		t.Errorf("%d bytes of memory a client, want at most 64 KiB", perClient)
	}
	eventually(t, "all connections are closed again", func() bool { return openFiles(t, l.PID()) < 50 })
}

// More clients than file descriptors: each has an answer, or a reset, at once; and
// when they are gone all is as before.
//
//nolint:paralleltest // it uses the whole machine
func TestFewFileDescriptors(t *testing.T) {
	const files = 256
	b := newBench(t, "larder")
	upstream := remotestest.New(t)
	desc := upstream.PutBlob("library/app", noise(91, 1<<20))
	l := b.larderBehind(fmt.Sprintf("ulimit -n %d", files), dockerHub(upstream.URL()))
	url := blobURL(l.URL, "library/app", desc.Digest)
	if a := get(t, url); !a.whole(desc.Digest) {
		t.Fatal(a)
	}
	const mute = 100 // larder may have 160 connections
	idle := clients{URL: url, Count: mute, Mute: true}.start(t)
	most := openFiles(t, l.PID())
	c := clients{URL: url, Count: 400, Rounds: 3, Digest: desc.Digest.Encoded(), Limit: answerLimit}.start(t).end()
	t.Logf("with %d mute clients, %d of larder's %d files: %+v", mute, most, files, c)
	if c.Wrong+c.Late+len(c.Errors) > 0 || c.Whole+c.Refused+c.Reset != 1200 || c.Whole == 0 || c.Refused == 0 {
		t.Errorf("want each whole, 503 or reset at once: %+v", c)
	}
	idle.end()
	begun := time.Now()
	eventually(t, "clients are served again", func() bool {
		a, err := fetch(t.Context(), http.MethodGet, url)
		return err == nil && a.whole(desc.Digest)
	})
	t.Logf("served again %s after they left", time.Since(begun).Round(time.Millisecond))
	c = clients{URL: url, Count: 40, Rounds: 50, Digest: desc.Digest.Encoded(), Limit: answerLimit}.start(t).end()
	t.Logf("40 clients: %d hits of 1 MiB whole, %.0f a second, p99 %s", c.Whole, float64(c.Whole)/c.Took.Seconds(), c.P99.Round(time.Millisecond))
	if c.Whole != 2000 {
		t.Errorf("within the bounds: %+v, want all whole", c)
	}
	if strings.Contains(l.Log(), "Accept error") {
		t.Errorf("net/http's accept loop:\n%s", l.Log())
	}
	fresh := upstream.PutBlob("library/app", noise(92, 1000))
	if a := get(t, blobURL(l.URL, "library/app", fresh.Digest)); !a.whole(fresh.Digest) {
		t.Errorf("what is not stored: %v", a)
	}
}

// The process has no file descriptor left at all, for whatever reason: clients
// are sent away and do not hang, and no upstream is taken for dead.
func TestNoFileDescriptor(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder")
	upstream := remotestest.New(t)
	desc := upstream.PutBlob("library/app", noise(93, 100_000))
	l := b.larder(dockerHub(upstream.URL()))
	url := blobURL(l.URL, "library/app", desc.Digest)
	for name, spare := range map[string]int{"none": 0, "one, for the connection": 1} {
		away := 0
		for range 10 {
			s := starve(t, l, spare)
			begun := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), answerLimit)
			a, err := fetch(ctx, http.MethodGet, url)
			cancel()
			// An idle connection that changes its descriptor just then leaves one for it.
			isAway, isServed := err != nil || a.status == http.StatusServiceUnavailable, err == nil && a.whole(desc.Digest)
			if took := time.Since(begun); !isAway && !isServed || took > answerLimit/2 {
				t.Errorf("%s: got %v, %v after %s, want 503 or a reset at once", name, a, err, took)
			}
			if isAway {
				away++
			}
			s.end()
			if a := get(t, l.URL+"/v2/"); a.status != http.StatusOK {
				t.Errorf("%s: afterwards: %v", name, a)
			}
		}
		if away == 0 {
			t.Errorf("%s: nobody was sent away: the test proves nothing", name)
		}
	}
	if a := get(t, url); !a.whole(desc.Digest) {
		t.Errorf("afterwards: %v, want that upstream is asked", a)
	}
	if strings.Contains(l.Log(), "Accept error") {
		t.Errorf("net/http's accept loop:\n%s", l.Log())
	}
}

// A memory cgroup of 64 MiB is enough to bring and serve more than that.
//
//nolint:paralleltest // it uses the whole machine
func TestSmallMemory(t *testing.T) {
	const limit, size, pulls = 64 << 20, 80 << 20, 20
	b := newBench(t, "larder")
	group := memoryGroup(t, limit)
	upstream := remotestest.New(t)
	desc := upstream.PutBlob("library/app", noise(94, size))
	l := b.larderBehind("echo $$ > "+filepath.Join(group, "cgroup.procs"), "log.level = \"warn\"\n"+dockerHub(upstream.URL()), "GOMEMLIMIT=48MiB")
	if procs, err := os.ReadFile(filepath.Join(group, "cgroup.procs")); err != nil || strings.TrimSpace(string(procs)) != strconv.Itoa(l.PID()) {
		t.Fatalf("the cgroup has the processes %q, %v, want larder", procs, err)
	}
	url := blobURL(l.URL, "library/app", desc.Digest)
	for _, when := range []string{"cold", "warm"} {
		c := clients{URL: url, Count: pulls, Digest: desc.Digest.Encoded(), Limit: 2 * patience}.start(t).end()
		t.Logf("%s: %d clients, %d whole in %s; peak resident %d MiB", when, pulls, c.Whole, c.Took.Round(time.Millisecond), peakMemory(t, l.PID())>>20)
		if c.Whole != pulls {
			t.Errorf("%s: %+v, want all whole", when, c)
		}
	}
	img := remotestest.Build(remotestest.ImageSpec{Seed: 94})
	upstream.PutImage("library/app", "1", img)
	if a := get(t, manifestURL(l.URL, "library/app", "1")); !a.whole(img.Root.Digest) {
		t.Errorf("a manifest: %v", a)
	}
}

// memoryGroup makes a memory cgroup, of either version.
func memoryGroup(t *testing.T, limit int) string {
	t.Helper()
	root, file := "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		root, file = "/sys/fs/cgroup", "memory.max"
	}
	group, err := os.MkdirTemp(root, "larder-test-")
	if err != nil {
		t.Skipf("this machine lets nobody make memory cgroups: %v", err)
	}
	t.Cleanup(func() {
		eventually(t, "the cgroup is empty", func() bool { return os.Remove(group) == nil || errors.Is(os.Remove(group), os.ErrNotExist) })
	})
	if err := os.WriteFile(filepath.Join(group, file), []byte(strconv.Itoa(limit)), 0o600); err != nil {
		t.Skipf("no bound on memory: %v", err)
	}
	return group
}

// Thousands of clients that send no request, and some that read a byte a second,
// hold up nobody else.
//
//nolint:paralleltest // it measures time
func TestSlowClientsHinderNobody(t *testing.T) {
	n := count(t, "LARDER_TEST_CLIENT_COUNT", 2000)
	n = min(n, 5000)
	b := newBench(t, "larder")
	upstream := remotestest.New(t)
	desc := upstream.PutBlob("library/app", noise(95, 64<<10))
	big := upstream.PutBlob("library/app", make([]byte, 24<<20))
	l := b.larder("mirror.stall = \"2s\"\nlog.level = \"info\"\n" + dockerHub(upstream.URL()))
	url := blobURL(l.URL, "library/app", desc.Digest)
	for _, dgst := range []string{desc.Digest.String(), big.Digest.String()} {
		if a := get(t, l.URL+"/v2/library/app/blobs/"+dgst+"?ns=docker.io"); a.status != http.StatusOK || a.bodyErr != nil {
			t.Fatal(a)
		}
	}
	eventually(t, "both are stored", func() bool { return published(l, desc.Digest) && published(l, big.Digest) })
	healthy := clients{URL: url, Count: 4, Rounds: 250, Digest: desc.Digest.Encoded()}
	alone := healthy.start(t).end()
	mute := clients{URL: url, Count: n, Mute: true}.start(t)
	slow := clients{URL: blobURL(l.URL, "library/app", big.Digest), Count: 100, Slow: true}.start(t)
	among := healthy.start(t).end()
	t.Logf("hits alone: p50 %s, p99 %s; among %d mute and 100 slow clients: p50 %s, p99 %s",
		alone.P50, alone.P99, n, among.P50, among.P99)
	if alone.Whole != 1000 || among.Whole != 1000 {
		t.Errorf("healthy clients: %+v alone, %+v among slow ones", alone, among)
	}
	if most := max(2*alone.P99, 250*time.Millisecond); among.P99 > most { // the latter for a busy machine
		t.Errorf("p99 is %s among slow clients, %s alone", among.P99, alone.P99)
	}
	begun := time.Now()
	eventually(t, "slow and mute clients are cut", func() bool { return openFiles(t, l.PID()) < 50 })
	t.Logf("all are cut %s later", time.Since(begun).Round(100*time.Millisecond))
	mute.end()
	slow.end()
}

// One upstream is dead, and many ask for what it has: all others go on as if
// nothing was.
func TestDeadUpstreamHindersNobody(t *testing.T) {
	t.Parallel()
	const rounds = 300
	b := newBench(t, "larder")
	dead, fine := remotestest.New(t), remotestest.New(t)
	dead.Fault(remotestest.Any(), remotestest.Hang())
	l := b.larder(impatient + routeFor("dead.example", dead.URL()) + routeFor("docker.io", fine.URL()))
	measure := func(first int) (p50, p99 time.Duration) {
		var took []time.Duration
		for i := range rounds {
			desc := fine.PutBlob("library/app", noise(uint64(1000+first+i), 1000))
			begun := time.Now()
			if a := get(t, blobURL(l.URL, "library/app", desc.Digest)); !a.whole(desc.Digest) {
				t.Fatal(a)
			}
			took = append(took, time.Since(begun))
		}
		slices.Sort(took)
		return took[rounds/2], took[rounds*99/100]
	}
	alone50, alone99 := measure(0)
	stop := make(chan struct{})
	var neighbours sync.WaitGroup
	for i := range 30 {
		neighbours.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				a, err := fetch(t.Context(), http.MethodGet, fmt.Sprintf("%s/v2/app%d/manifests/%d?ns=dead.example", l.URL, i, n))
				if err != nil || a.status != http.StatusServiceUnavailable || a.took > answerLimit {
					t.Errorf("of the dead upstream: %v, %v", a, err)
					return
				}
			}
		})
	}
	if err := dead.Await(t.Context(), func(rs []remotestest.Request) bool { return len(rs) > 0 }); err != nil {
		t.Error(err)
	}
	among50, among99 := measure(rounds)
	close(stop)
	neighbours.Wait()
	t.Logf("misses of the good upstream: p50 %s, p99 %s alone; p50 %s, p99 %s beside a dead one, which was asked %d times",
		alone50, alone99, among50, among99, len(dead.Requests()))
	if among99 > time.Second {
		t.Errorf("p99 is %s beside a dead upstream, %s alone", among99, alone99)
	}
}

// openFiles is how many file descriptors a process has.
func openFiles(t *testing.T, pid int) int {
	t.Helper()
	return len(descriptors(t, pid))
}

func descriptors(t *testing.T, pid int) []int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	numbers := make([]int, len(entries))
	for i, e := range entries {
		if numbers[i], err = strconv.Atoi(e.Name()); err != nil {
			t.Fatal(err)
		}
	}
	return numbers
}

// residentMemory is what a process has in memory now, in bytes.
func residentMemory(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
		t.Fatal(err)
	}
	return resident * int64(os.Getpagesize())
}
