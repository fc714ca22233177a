package integration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-project/larder/integration/internal/disks"
	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes/remotestest"
)

// Where the images of crash tests are: small ones, and such as take a while, so
// that crashes meet them half-way.
const (
	quickRepo = "library/quick"
	slowRepo  = "library/slow"
)

func crashRepo(n int) string {
	if n%8 == 0 {
		return slowRepo
	}
	return quickRepo
}

// crash is a larder that ends badly again and again while clients pull, and
// that has to come back by itself each time.
type crash struct {
	t        *testing.T
	l        *parts.Larder
	upstream *remotestest.Registry
	rng      *rand.Rand
	// happen is the crash. The larder has ended when it returns, and the next
	// can be started.
	happen func()
	hurry  func() // has slow images be quick

	seed    uint64
	offered int // images made so far; their number is seed and tag

	mu     sync.Mutex // guards what follows
	acked  []int      // images that larder said are whole
	opened []int      // all others that somebody began to pull
	wrong  []string   // what no crash excuses

	starts            []time.Duration // of the larder after each crash
	sum, lost, hashed int             // over all seasons: images stored, images lost, blobs
}

// newCrash makes a larder whose store is below disk; it is not started.
func newCrash(t *testing.T, disk string) *crash {
	t.Helper()
	b := newBench(t, "larder")
	c := &crash{t: t, seed: rand.Uint64(), upstream: remotestest.New(t)}
	t.Logf("seed %d", c.seed)
	c.rng = rand.New(rand.NewPCG(c.seed, 0))
	c.hurry = c.upstream.Fault(remotestest.And(remotestest.Blobs(), remotestest.Repo(slowRepo)), remotestest.Slow(20<<20))
	l, err := parts.NewLarder(b.bin, b.dir, "log.level = \"warn\"\n"+noCompanions+dockerHub(c.upstream.URL()))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.SetRoot(filepath.Join(disk, "store")); err != nil {
		t.Fatal(err)
	}
	c.l = l
	c.happen = func() { c.noError(l.Kill()) }
	b.cleanup(l.Close)
	b.logOnFailure("larder", func() string {
		if l.Process() == nil {
			return "never started"
		}
		return l.Log()
	})
	return c
}

// crashImage is the image of a number, the same each time.
func (c *crash) crashImage(n int) remotestest.Image {
	layers := []int64{int64(1 + n*7919%100_000)}
	if crashRepo(n) == slowRepo {
		layers[0] = 1<<20 + int64(n*15_485_863%(3<<20))
	}
	return remotestest.Build(remotestest.ImageSpec{Seed: c.seed + uint64(n), Layers: layers})
}

// season is how many crashes one store sees. Each is looked at as a whole after
// each of them, and thousands of crashes would make it large.
const season = 20

// rounds has the crash happen so many times, and looks at the store each time.
func (c *crash) rounds(n int) {
	c.t.Helper()
	for round := range n {
		if round%4 == 3 {
			c.duringStart()
		} else {
			c.start()
			c.underLoad(c.rng.IntN(4), time.Duration(c.rng.Int64N(int64(100*time.Millisecond))))
		}
		c.checkFiles()
		if c.t.Failed() {
			c.t.Fatalf("in round %d of %d", round, n)
		}
		if (round+1)%season == 0 || round+1 == n {
			c.endSeason()
		}
	}
	c.report(n)
}

// endSeason looks at all that crashes left of a store, and begins a new one.
func (c *crash) endSeason() {
	c.t.Helper()
	c.start()
	c.checkAcked()
	c.checkIngests()
	c.noError(c.l.Close())
	c.noError(os.RemoveAll(c.l.Root()))
	c.upstream.DeleteRepository(quickRepo)
	c.upstream.DeleteRepository(slowRepo)
	c.sum += len(c.acked)
	c.t.Logf("season over: %d images begun, %d said to be stored, %d of those lost", c.offered, c.sum, c.lost)
	c.acked, c.opened = nil, nil
}

// start is the start after a crash, without help. The upstream is away: what
// larder said that it has, it must have.
func (c *crash) start() {
	c.t.Helper()
	c.upstream.Stop()
	defer c.upstream.Start()
	begun := time.Now()
	c.noError(c.l.Start(c.t.Context()))
	c.starts = append(c.starts, time.Since(begun))
	c.checkNewest()
}

// duringStart has the crash happen while larder opens its store.
func (c *crash) duringStart() {
	c.t.Helper()
	ended := make(chan struct{})
	ctx, cancel := context.WithCancel(c.t.Context())
	go func() {
		defer close(ended)
		_ = c.l.Start(ctx) // whether it came up depends on the moment
	}()
	c.pass(time.Duration(c.rng.Int64N(int64(40 * time.Millisecond))))
	cancel()
	<-ended
	c.happen()
}

// underLoad has it happen while clients pull: when so many images more were
// stored, and some time has passed.
func (c *crash) underLoad(least int, after time.Duration) {
	c.t.Helper()
	goal := c.stored() + least
	c.load(func() {
		eventually(c.t, "images are stored", func() bool { return c.stored() >= goal })
		c.pass(after)
		c.happen()
	})
}

// stored is how many images of this season larder said that it has.
func (c *crash) stored() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.acked)
}

// load has clients pull until the crash returns.
func (c *crash) load(crash func()) {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.t.Context())
	var clients sync.WaitGroup
	for i := range 6 {
		clients.Go(func() {
			for ctx.Err() == nil {
				n := c.offer()
				if i%2 == 0 {
					c.pullVerb(ctx, n)
				} else {
					c.pullHTTP(ctx, n)
				}
			}
		})
	}
	crash()
	cancel()
	clients.Wait()
}

// offer makes a new image known upstream.
func (c *crash) offer() int {
	c.mu.Lock()
	c.offered++
	n := c.offered
	c.opened = append(c.opened, n)
	c.mu.Unlock()
	c.upstream.PutImage(crashRepo(n), strconv.Itoa(n), c.crashImage(n))
	return n
}

// pullVerb pulls an image by larder's own verb, which ends well once all of it
// is stored: this is the word that a crash must not break.
func (c *crash) pullVerb(ctx context.Context, n int) {
	if _, err := c.l.Run(ctx, "pull", fmt.Sprintf("docker.io/%s:%d", crashRepo(n), n)); err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.acked = append(c.acked, n)
}

// pullHTTP pulls an image as containerd does. What ends cleanly must be right.
func (c *crash) pullHTTP(ctx context.Context, n int) {
	for _, desc := range c.crashImage(n).Descriptors() {
		url := blobURL(c.l.URL, crashRepo(n), desc.Digest)
		if desc.MediaType == ocispec.MediaTypeImageManifest {
			url = manifestURL(c.l.URL, crashRepo(n), strconv.Itoa(n))
		}
		a, err := fetch(ctx, http.MethodGet, url)
		if err == nil && a.status == http.StatusOK && a.bodyErr == nil && a.digest != desc.Digest {
			c.mu.Lock()
			c.wrong = append(c.wrong, fmt.Sprintf("%s of image %d: %v", desc.Digest, n, a))
			c.mu.Unlock()
		}
	}
}

// checkNewest pulls the images that larder said last that it has.
func (c *crash) checkNewest() {
	c.t.Helper()
	for _, n := range c.acked[max(0, len(c.acked)-5):] {
		c.checkImage(n)
	}
}

// checkAcked pulls all of them, with the upstream away.
func (c *crash) checkAcked() {
	c.t.Helper()
	c.upstream.Stop()
	defer c.upstream.Start()
	for _, n := range c.acked {
		c.checkImage(n)
	}
}

func (c *crash) checkImage(n int) {
	c.t.Helper()
	img, whole := c.crashImage(n), true
	if a := get(c.t, manifestURL(c.l.URL, crashRepo(n), strconv.Itoa(n))); !a.whole(img.Root.Digest) {
		whole = false
		c.t.Errorf("larder said that it has image %d; its manifest by tag: %v", n, a)
	}
	for _, b := range img.Blobs {
		if a := get(c.t, blobURL(c.l.URL, crashRepo(n), b.Descriptor.Digest)); !a.whole(b.Descriptor.Digest) || a.cache() != "hit" {
			whole = false
			c.t.Errorf("larder said that it has image %d; its blob %s: %v, %s", n, b.Descriptor.Digest, a, a.cache())
		}
	}
	if !whole {
		c.lost++
	}
}

// checkFiles looks at the store itself, before the next start can mend it.
func (c *crash) checkFiles() {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.wrong {
		c.t.Errorf("wrong bytes ended cleanly: %s", w)
	}
	if _, err := os.Stat(filepath.Join(c.l.Root(), "blobs")); err == nil {
		c.hashed += verifyStore(c.t, c.l)
	}
}

// checkIngests pulls everything that a crash came into, and then nothing is left
// half done.
func (c *crash) checkIngests() {
	c.t.Helper()
	c.hurry()
	var clients sync.WaitGroup
	for part := range 4 {
		clients.Go(func() {
			for i := part; i < len(c.opened); i += 4 {
				c.checkPulled(c.opened[i])
			}
		})
	}
	clients.Wait()
	wantNoIngests(c.t, c.l)
	verifyStore(c.t, c.l)
}

func (c *crash) checkPulled(n int) {
	for _, b := range c.crashImage(n).Blobs {
		url := blobURL(c.l.URL, crashRepo(n), b.Descriptor.Digest)
		if a, err := fetch(c.t.Context(), http.MethodGet, url); err != nil || !a.whole(b.Descriptor.Digest) {
			c.t.Errorf("image %d afterwards: %v, %v", n, a, err)
		}
	}
}

func (c *crash) report(crashes int) {
	c.t.Helper()
	slices.Sort(c.starts)
	at := func(p int) time.Duration { return c.starts[(len(c.starts)-1)*p/100].Round(time.Millisecond) }
	c.t.Logf("%d crashes; %d images begun, %d said to be stored, %d of those lost; %d files of blobs hashed; start: median %v, 99th percentile %v, longest %v",
		crashes, c.offered, c.sum, c.lost, c.hashed, at(50), at(99), at(100))
	if c.sum < crashes/2 {
		c.t.Errorf("%d images were stored: too few to show anything", c.sum)
	}
}

// atCall has larder killed at its n-th system call of a kind (counted by
// thread), under load.
func (c *crash) atCall(n int, names ...string) {
	c.t.Helper()
	var what []string
	for _, name := range names {
		what = append(what, fmt.Sprintf("%s:signal=SIGKILL:when=%d", name, n))
	}
	inject := disks.Inject(c.t, c.l.PID(), what...)
	defer inject.Stop()
	c.load(func() {
		ctx, cancel := context.WithTimeout(c.t.Context(), patience)
		defer cancel()
		err := c.l.Process().Wait(ctx)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			c.t.Errorf("at call %d: larder ended with %v, want to be killed", n, err)
		}
	})
}

// pass lets time pass: the moment of a crash is what is random here.
func (c *crash) pass(d time.Duration) {
	select {
	case <-time.After(d):
	case <-c.t.Context().Done():
	}
}

func (c *crash) noError(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// wantNoIngests waits until nothing is unfinished in a store.
func wantNoIngests(t *testing.T, l *parts.Larder) {
	t.Helper()
	eventually(t, "no ingest is left", func() bool {
		entries, err := os.ReadDir(filepath.Join(l.Root(), "ingest"))
		return err == nil && len(entries) == 0
	})
}
