package cache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/cache/disktest"
)

// sample is a blob that a test can make again.
type sample struct {
	data   []byte
	digest digest.Digest
}

func newSample(seed uint64, size int) sample {
	data := make([]byte, size)
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = rng.Read(data)
	return sample{data: data, digest: digest.FromBytes(data)}
}

// Open implements cache.Source.
func (b sample) Open(_ context.Context, offset int64) (cache.Stream, error) {
	return b.upTo(len(b.data)).Open(context.Background(), offset)
}

// upTo is the blob's source that fails behind the first end bytes.
func (b sample) upTo(end int) brokenSource { return brokenSource{b, end} }

type brokenSource struct {
	sample
	end int
}

var errCut = errors.New("connection lost")

// Open implements cache.Source.
func (b brokenSource) Open(_ context.Context, offset int64) (cache.Stream, error) {
	if offset > int64(b.end) {
		return cache.Stream{}, errCut
	}
	var body io.Reader = bytes.NewReader(b.data[offset:b.end])
	if b.end < len(b.data) {
		body = io.MultiReader(body, failing{})
	}
	return cache.Stream{Body: io.NopCloser(body), Size: int64(len(b.data)), Upstream: "upstream.test"}, nil
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errCut }

// quick gives a fill up at its first failure.
func quick() cache.Option {
	p := cache.DefaultFillPolicy()
	p.Attempts, p.Pause = 1, 0
	return cache.WithFillPolicy(p)
}

func quiet() cache.Option { return cache.WithLogger(slog.New(slog.DiscardHandler)) }

func fill(ctx context.Context, s *cache.Store, src cache.Source, dgst digest.Digest) error {
	f, _, err := s.Fill(ctx, dgst, -1, src)
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Wait(ctx)
}

// write brings a blob as containerd does.
func write(ctx context.Context, s *cache.Store, b sample) error {
	w, err := s.Writer(ctx, content.WithRef("layer-"+b.digest.String()), content.WithDescriptor(ocispec.Descriptor{Digest: b.digest, Size: int64(len(b.data))}))
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer w.Close()
	if err := w.Truncate(0); err != nil {
		return err
	}
	if _, err := w.Write(b.data); err != nil {
		return err
	}
	return w.Commit(ctx, int64(len(b.data)), b.digest)
}

// history is what a store was asked to do, and when it said that it was done.
type history struct {
	journal *disktest.Journal
	stored  map[digest.Digest]int // changes until the blob was reported durable
	deleted map[digest.Digest]int // changes until its deletion began
	indexes [][]byte              // as they were between two steps
}

// did notes that a blob is reported durable, and keeps a copy of the index.
func (h *history) did(s *cache.Store, dgst digest.Digest) error {
	if dgst != "" {
		h.stored[dgst] = h.journal.Len()
	}
	index, err := os.ReadFile(filepath.Join(s.Root(), "index.db"))
	h.indexes = append(h.indexes, index)
	return err
}

// pull is the life of a store that is cut short at every step: a manifest, a
// layer, a layer that breaks off and is resumed, one for a private repository,
// one that containerd writes, one that is deleted.
func pull(ctx context.Context, root string) (*history, []sample, error) {
	journal, err := disktest.NewJournal(root)
	if err != nil {
		return nil, nil, err
	}
	h := &history{journal: journal, stored: map[digest.Digest]int{}, deleted: map[digest.Digest]int{}}
	s, err := cache.Open(root, cache.WithDisk(h.journal), quick(), quiet())
	if err != nil {
		return nil, nil, err
	}
	defer s.Close()
	blobs := []sample{
		newSample(1, 600), newSample(2, 700<<10), newSample(3, 900<<10), newSample(4, 300<<10), newSample(5, 2000), newSample(6, 5000),
	}
	steps := []func() error{
		func() error { return s.Put(ctx, blobs[0].digest, blobs[0].data, cache.Facts{}) },
		func() error { return fill(ctx, s, blobs[1], blobs[1].digest) },
		func() error {
			if err := fill(ctx, s, blobs[2].upTo(500<<10), blobs[2].digest); !errors.Is(err, errCut) {
				return fmt.Errorf("a broken source ends in %w", err)
			}
			return fill(ctx, s, blobs[2], blobs[2].digest)
		},
		func() error {
			f, _, err := s.FillFor(ctx, cache.Origin{Repository: "registry.test/app", Private: true}, blobs[3].digest, -1, blobs[3])
			if err != nil {
				return err
			}
			return f.Wait(ctx)
		},
		func() error { return write(ctx, s, blobs[4]) },
		func() error { return s.Put(ctx, blobs[5].digest, blobs[5].data, cache.Facts{}) },
	}
	for i, step := range steps {
		if err := errors.Join(step(), h.did(s, blobs[i].digest)); err != nil {
			return nil, nil, fmt.Errorf("step %d: %w", i, err)
		}
	}
	h.deleted[blobs[5].digest] = h.journal.Len()
	if err := errors.Join(s.Delete(ctx, blobs[5].digest), h.did(s, "")); err != nil {
		return nil, nil, err
	}
	return h, blobs, nil
}

// memory makes a folder in memory, where there is such a place: what is played
// here needs no disk, and syncs are most of the time.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "larder-test")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestPowerCutAnywhere cuts the power after each change that a pull makes on
// disk, and keeps none, some or all of what was not synced. Each time the next
// process finds whole blobs only, all that were reported durable among them,
// completes what was under way, and leaves nothing of it behind.
func TestPowerCutAnywhere(t *testing.T) {
	t.Parallel()
	h, blobs, err := pull(t.Context(), memory(t))
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	points, dir := 0, memory(t)
	for n := range h.journal.Len() + 1 {
		for _, keep := range []float64{0, 0.5, 1} {
			if err := h.cut(t, dir, n, keep, rng, blobs); err != nil {
				t.Fatalf("seed %d: cut after %d changes of which %.0f%% survive: %v", seed, n, 100*keep, err)
			}
			points++
		}
	}
	t.Logf("%d cuts, seed %d", points, seed)
}

func (h *history) cut(t *testing.T, dir string, n int, keep float64, rng *rand.Rand, blobs []sample) error {
	root, err := os.MkdirTemp(dir, "cut")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	if err := h.journal.Crash(n, keep, rng, root); err != nil {
		return err
	}
	// The index goes its own way to disk: older than the blobs, newer, or lost.
	if i := rng.IntN(len(h.indexes) + 1); i < len(h.indexes) {
		if err := os.WriteFile(filepath.Join(root, "index.db"), h.indexes[i], 0o600); err != nil {
			return err
		}
	}
	s, err := cache.Open(root, quick(), quiet())
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer s.Close()
	if err := h.checkStored(t.Context(), s, n); err != nil {
		return err
	}
	for i, b := range blobs {
		bring := func() error { return fill(t.Context(), s, b, b.digest) }
		if i == 4 {
			bring = func() error { return write(t.Context(), s, b) }
		}
		if err := errors.Join(bring(), check(s, b.digest)); err != nil {
			return fmt.Errorf("complete blob %d: %w", i, err)
		}
	}
	left, err := filepath.Glob(filepath.Join(root, "ingest", "*", "*"))
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("ingests are left: %v", left)
	}
	return err
}

// checkStored checks every blob of a store, and that none is missing of those
// that were reported durable before change n.
func (h *history) checkStored(ctx context.Context, s *cache.Store, n int) error {
	err := s.Walk(ctx, func(info content.Info) error { return check(s, info.Digest) })
	if err != nil {
		return err
	}
	for dgst, at := range h.stored {
		gone, deleted := h.deleted[dgst]
		if at > n || deleted && gone < n {
			continue
		}
		if err := check(s, dgst); err != nil {
			return fmt.Errorf("was reported durable: %w", err)
		}
	}
	return nil
}

// check reads a blob and compares its digest.
func check(s *cache.Store, dgst digest.Digest) error {
	b, err := s.Open(dgst)
	if err != nil {
		return err
	}
	defer b.Close()
	got, err := dgst.Algorithm().FromReader(b)
	if err != nil {
		return err
	}
	if got != dgst {
		return fmt.Errorf("blob %s of %d bytes has the bytes of %s", dgst, b.Size(), got)
	}
	return nil
}
