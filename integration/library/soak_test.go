package library

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/remotes"
	"github.com/larder-project/larder/remotes/remotestest"
)

const (
	soakDay     = 24 * time.Hour // that a soak stands for
	soakImages  = 150
	soakLayer   = 120_000
	soakBudget  = 6 << 20 // about a tenth of all images
	soakWorkers = 8
)

// soak is a day of a store's life in less time.
type soak struct {
	registry *remotes.Registry
	upstream *remotestest.Registry

	pulls, moves, pins, wrong atomic.Int64
	over                      atomic.Int64 // bytes beyond the budget, at most
}

// TestSoak lives through a day: images pulled by how well liked they are, tags
// that move, pins that come and go, with a budget for a tenth of it all. The disk
// is never over the budget by more than one fill's reservation, every body is
// right, and neither memory nor goroutines nor files grow. `make soak` takes ten
// minutes for it.
//
//nolint:paralleltest // it counts what the process has
func TestSoak(t *testing.T) {
	length := 8 * time.Second
	if text := os.Getenv("LARDER_SOAK"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	s := newSoak(t, length)
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	keeper := cache.NewKeeper(s.registry.Store, cache.KeeperConfig{Costs: s.registry})
	var work sync.WaitGroup
	work.Go(func() { keeper.Run(ctx) })
	work.Go(func() { s.registry.Run(ctx) })
	for n := range uint64(soakWorkers) {
		work.Go(func() { s.work(ctx, t, rand.New(rand.NewPCG(n, 1))) })
	}
	samples := s.watch(ctx, t, length/40)
	work.Wait()
	s.report(t, samples)
}

func newSoak(t *testing.T, length time.Duration) *soak {
	t.Helper()
	upstream := remotestest.New(t)
	s := &soak{upstream: upstream}
	for n := range soakImages {
		upstream.PutImage("library/app", fmt.Sprint(n), soakImage(uint64(n), 0))
	}
	begun := time.Now()
	faster := float64(soakDay) / float64(length)
	clock := func() time.Time { return begun.Add(time.Duration(float64(time.Since(begun)) * faster)) }
	s.registry = newRegistry(t, t.TempDir(), upstream.URL(), cache.WithClock(clock), cache.WithLogger(slog.New(slog.DiscardHandler)),
		cache.WithBudget(cache.Budget{MaxSize: cache.Amount{Bytes: soakBudget}}))
	return s
}

// soakImage is an image of three layers.
func soakImage(n, version uint64) remotestest.Image {
	return remotestest.Build(remotestest.ImageSpec{Seed: 1 + n + 1000*version, Layers: []int64{soakLayer, 1000, soakLayer}})
}

// work pulls images until ctx ends, the first ones much more often than the last.
func (s *soak) work(ctx context.Context, t *testing.T, rng *rand.Rand) {
	zipf := rand.NewZipf(rng, 1.2, 3, soakImages-1)
	for ctx.Err() == nil {
		n := zipf.Uint64()
		ref, err := s.registry.ParseReference(fmt.Sprintf("docker.io/library/app:%d", n))
		if err != nil {
			t.Error(err)
			return
		}
		switch rng.IntN(50) {
		case 0:
			s.upstream.PutImage("library/app", fmt.Sprint(n), soakImage(n, uint64(1+rng.IntN(3))))
			s.moves.Add(1)
			_, err = s.registry.Refresh(ctx, ref)
		case 1:
			s.pins.Add(1)
			if _, err = s.registry.Pin(ctx, cache.Pin{Name: ref.String()}); err == nil {
				err = s.registry.Unpin(ref.String(), "")
			}
			if errdefs.IsNotFound(err) { // another worker was first
				err = nil
			}
		default:
			err = s.pull(ctx, ref)
		}
		if err != nil && ctx.Err() == nil {
			t.Errorf("%s: %v", ref, err)
		}
	}
}

// pull reads all of an image as containerd does, through larder or from upstream.
func (s *soak) pull(ctx context.Context, ref remotes.Reference) error {
	s.pulls.Add(1)
	res, err := s.registry.Pull(ctx, ref, remotes.PullOptions{})
	if errdefs.IsResourceExhausted(err) {
		return nil // said so, and passed on
	}
	if err != nil {
		return err
	}
	img, err := s.registry.Image(ref)
	if errdefs.IsNotFound(err) {
		return nil // evicted since
	}
	if err != nil {
		return err
	}
	for _, n := range img.Tree.Children {
		if err := s.read(ctx, ref.Repository, n.Digest); err != nil {
			return fmt.Errorf("%s of %s: %w", n.Digest, res.Descriptor.Digest, err)
		}
	}
	return nil
}

func (s *soak) read(ctx context.Context, repo remotes.Repository, dgst digest.Digest) error {
	b, err := s.registry.Blob(ctx, ctx, repo, dgst)
	if err != nil {
		return err
	}
	defer b.Close()
	got, err := dgst.Algorithm().FromReader(io.Reader(b))
	if err == nil && got != dgst {
		s.wrong.Add(1)
	}
	return err
}

// sample is what the process has at a moment.
type sample struct {
	heap              uint64
	goroutines, files int
}

// watch samples until ctx ends.
func (s *soak) watch(ctx context.Context, t *testing.T, every time.Duration) []sample {
	t.Helper()
	var all []sample
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return all
		case <-ticker.C:
		}
		u, err := s.registry.Store.Usage()
		if err != nil {
			t.Error(err)
		}
		over := u.Taken - u.Other - soakBudget // what the index and the snapshot need is their own
		s.over.Store(max(s.over.Load(), over))
		s.upstream.ResetRequests() // what the upstream remembers is none of larder's
		runtime.GC()
		var mem runtime.MemStats
		runtime.ReadMemStats(&mem)
		files, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Error(err)
		}
		all = append(all, sample{heap: mem.HeapAlloc, goroutines: runtime.NumGoroutine(), files: len(files)})
	}
}

// report compares the second quarter of a soak with its last.
func (s *soak) report(t *testing.T, all []sample) {
	t.Helper()
	if len(all) < 8 {
		t.Fatalf("%d samples are too few", len(all))
	}
	second, last := all[len(all)/4:len(all)/2], all[len(all)*3/4:]
	heap := func(s sample) int { return int(s.heap) }
	goroutines := func(s sample) int { return s.goroutines }
	files := func(s sample) int { return s.files }
	t.Logf("%d pulls, %d moved tags, %d pins; over the budget by at most %d bytes; heap %d to %d KiB, goroutines %d to %d, files %d to %d (medians of the second and the last quarter)",
		s.pulls.Load(), s.moves.Load(), s.pins.Load(), s.over.Load(), median(second, heap)>>10, median(last, heap)>>10,
		median(second, goroutines), median(last, goroutines), median(second, files), median(last, files))
	if s.over.Load() > soakLayer+4096 || s.wrong.Load() > 0 || s.pulls.Load() < soakImages {
		t.Errorf("over the budget by %d bytes, %d wrong bodies in %d pulls", s.over.Load(), s.wrong.Load(), s.pulls.Load())
	}
	for what, grew := range map[string]bool{
		"memory":     median(last, heap) > median(second, heap)*3/2+(2<<20),
		"goroutines": median(last, goroutines) > median(second, goroutines)+3*soakWorkers,
		"files":      median(last, files) > median(second, files)+3*soakWorkers,
	} {
		if grew {
			t.Error(errors.New(what + " grew"))
		}
	}
}

func median(all []sample, of func(sample) int) int {
	var values []int
	for _, s := range all {
		values = append(values, of(s))
	}
	slices.Sort(values)
	return values[len(values)/2]
}
