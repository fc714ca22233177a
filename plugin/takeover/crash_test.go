package takeover

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/cache/disktest"
)

// deadly is a disk whose n-th change kills the process before it is made.
type deadly struct {
	cache.Disk
	left *atomic.Int64
}

func (d deadly) strike() {
	if d.left.Add(-1) == 0 {
		_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
		select {} // until it strikes
	}
}

func (d deadly) Link(from, to string) error   { d.strike(); return d.Disk.Link(from, to) }
func (d deadly) Rename(from, to string) error { d.strike(); return d.Disk.Rename(from, to) }
func (d deadly) Remove(path string) error     { d.strike(); return d.Disk.Remove(path) }
func (d deadly) Mkdir(path string, perm fs.FileMode) error {
	d.strike()
	return d.Disk.Mkdir(path, perm)
}

func (d deadly) OpenFile(path string, flag int, perm fs.FileMode) (cache.File, error) {
	f, err := d.Disk.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err
	}
	return deadlyFile{f, d}, nil
}

type deadlyFile struct {
	cache.File
	disk deadly
}

func (f deadlyFile) Sync() error { f.disk.strike(); return f.File.Sync() }

// beKilled adopts, or ejects, in the node's folder args[1] until the change number args[2].
func beKilled(ctx context.Context, args []string) error {
	n, err := strconv.ParseInt(args[2], 10, 64)
	if err != nil {
		return err
	}
	disk := deadly{cache.OSDisk(), &atomic.Int64{}}
	disk.left.Store(n)
	return takeOver(ctx, args[1], disk, func(store *cache.Store, c *Containerd) error {
		if args[0] == "eject" {
			_, err := Eject(ctx, store, c)
			return err
		}
		_, err := Adopt(ctx, store, c, func(Progress) {})
		return err
	})
}

// child runs beKilled, and reports whether it was killed.
func (n *node) child(verb string, at int) (killed bool) {
	n.t.Helper()
	self, err := os.Executable()
	must(n.t, err)
	cmd := exec.CommandContext(n.t.Context(), self, verb, n.dir, strconv.Itoa(at))
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.Stderr = n.t.Output()
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && !exit.Exited() {
		return true
	}
	must(n.t, err)
	return false
}

// wantWhole checks that each blob is somewhere, with its bytes, and that what containerd has lost the store keeps for it.
func (n *node) wantWhole(at int) {
	n.t.Helper()
	exposed := map[digest.Digest]bool{}
	for _, dgst := range n.exposed() {
		exposed[dgst] = true
	}
	for dgst := range n.blobs {
		theirs, terr := os.ReadFile(n.theirs(dgst))
		ours, oerr := os.ReadFile(n.ours(dgst))
		if terr == nil && digest.FromBytes(theirs) != dgst || oerr == nil && digest.FromBytes(ours) != dgst {
			n.t.Errorf("killed at %d: %s is not whole", at, dgst)
		}
		if terr != nil && (oerr != nil || !exposed[dgst]) {
			n.t.Errorf("killed at %d: %s is lost to containerd: %v, %v, exposed: %t", at, dgst, terr, oerr, exposed[dgst])
		}
	}
}

// TestKilledAnywhere kills at each change of the disk, and looks at what is left; another run finishes.
func TestKilledAnywhere(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"adopt", "eject"} {
		t.Run(verb, func(t *testing.T) {
			t.Parallel()
			kills := 0
			for at := 1; ; at++ {
				n := newNode(t)
				if verb == "eject" {
					n.adopt()
				}
				killed := n.child(verb, at)
				n.wantWhole(at)
				n.child(verb, 1<<30)
				n.wantWhole(at)
				for dgst := range n.blobs {
					if isThere(n.theirs(dgst)) != (verb == "eject") {
						t.Errorf("killed at %d: the second run left %s", at, dgst)
					}
				}
				if got := len(n.exposed()); verb == "adopt" && got != len(n.blobs) || verb == "eject" && got != 0 {
					t.Errorf("killed at %d: the second run has %d blobs exposed", at, got)
				}
				if t.Failed() {
					return
				}
				if !killed {
					break
				}
				kills++
			}
			t.Logf("killed at %d places", kills)
			if kills < 2*len(newNode(t).blobs) {
				t.Errorf("killed %d times: the test shows nothing", kills)
			}
		})
	}
}

// TestPowerCutAnywhere cuts the power behind each change. The index is not on that disk; the database says as much.
func TestPowerCutAnywhere(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	n := newNode(t)
	must(t, os.Mkdir(n.root(), 0o700)) // which a store makes past its disk
	journal, err := disktest.NewJournal(n.dir)
	must(t, err)
	must(t, takeOver(t.Context(), n.dir, journal, func(store *cache.Store, c *Containerd) error {
		if _, err := Adopt(t.Context(), store, c, func(Progress) {}); err != nil {
			return err
		}
		_, err := Eject(t.Context(), store, c)
		return err
	}))
	for at := range journal.Len() + 1 {
		for _, keep := range []float64{0, 0.5} {
			left := &node{t: t, dir: filepath.Join(t.TempDir(), "left"), blobs: n.blobs, image: n.image}
			must(t, os.Mkdir(left.dir, 0o755))
			must(t, journal.Crash(at, keep, rng, left.dir))
			for dgst := range n.blobs {
				theirs, terr := os.ReadFile(left.theirs(dgst))
				ours, oerr := os.ReadFile(left.ours(dgst))
				if digest.FromBytes(theirs) != dgst && digest.FromBytes(ours) != dgst {
					t.Fatalf("cut at %d, %.1f kept: %s is lost: %v, %v", at, keep, dgst, terr, oerr)
				}
				if at == journal.Len() && digest.FromBytes(theirs) != dgst {
					t.Errorf("cut behind eject, %.1f kept: containerd does not have %s: %v", keep, dgst, terr)
				}
			}
			if res := left.adopt(); len(res.Damaged) != 0 || len(left.exposed()) != len(n.blobs) {
				t.Fatalf("cut at %d, %.1f kept: %+v", at, keep, res)
			}
		}
	}
}

// TestPowerCutAfterKill: names that a run gave which was killed are on disk before containerd's go.
func TestPowerCutAfterKill(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 1))
	n := newNode(t)
	store, err := cache.Open(n.root())
	must(t, err)
	must(t, store.Close())
	journal, err := disktest.NewJournal(n.dir)
	must(t, err)
	for dgst := range n.blobs {
		must(t, journal.Link(n.theirs(dgst), n.ours(dgst)))
	}
	must(t, takeOver(t.Context(), n.dir, journal, func(store *cache.Store, c *Containerd) error {
		_, err := Adopt(t.Context(), store, c, func(Progress) {})
		return err
	}))
	for at := range journal.Len() + 1 {
		left := &node{t: t, dir: filepath.Join(t.TempDir(), "left")}
		must(t, os.Mkdir(left.dir, 0o755))
		must(t, journal.Crash(at, 0, rng, left.dir))
		for dgst := range n.blobs {
			if !isThere(left.theirs(dgst)) && !isThere(left.ours(dgst)) {
				t.Fatalf("cut at %d: %s is lost", at, dgst)
			}
		}
	}
}

// TestPowerCutBehindEject: where containerd has had no content folder, that is on disk, too, when Eject returns.
func TestPowerCutBehindEject(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.adopt()
	must(t, os.RemoveAll(filepath.Join(n.containerd(), contentDir)))
	journal, err := disktest.NewJournal(n.dir)
	must(t, err)
	must(t, takeOver(t.Context(), n.dir, journal, func(store *cache.Store, c *Containerd) error {
		_, err := Eject(t.Context(), store, c)
		return err
	}))
	left := &node{t: t, dir: filepath.Join(t.TempDir(), "left")}
	must(t, os.Mkdir(left.dir, 0o755))
	must(t, journal.Crash(journal.Len(), 0, rand.New(rand.NewPCG(1, 1)), left.dir))
	for dgst := range n.blobs {
		if !isThere(left.theirs(dgst)) {
			t.Errorf("containerd does not have %s", dgst)
		}
	}
}
