package cache_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/cache/disktest"
)

// model is what a store must have, in a few maps.
type model struct {
	blobs map[digest.Digest]bool // that are there
	tags  map[string]digest.Digest
	pins  map[string]bool
}

func newModel() model {
	return model{blobs: map[digest.Digest]bool{}, tags: map[string]digest.Digest{}, pins: map[string]bool{}}
}

func (m model) clone() model {
	return model{blobs: maps.Clone(m.blobs), tags: maps.Clone(m.tags), pins: maps.Clone(m.pins)}
}

// observe reads what a store has, and the bytes of every blob.
func observe(ctx context.Context, s *cache.Store) (model, error) {
	m := newModel()
	tags, err := s.Tags()
	if err != nil {
		return m, err
	}
	for _, tag := range tags {
		m.tags[tag.Name] = tag.Target.Digest
	}
	pins, err := s.Pins()
	if err != nil {
		return m, err
	}
	for _, pin := range pins {
		m.pins[pin.Name] = true
	}
	return m, s.Walk(ctx, func(info content.Info) error {
		m.blobs[info.Digest] = true
		return check(s, info.Digest)
	})
}

// differs says how what a store has is not what it must have. before is what
// it had before the last step, if that may have been cut short.
func (m model) differs(got, before model, crashed bool) error {
	for dgst := range got.blobs {
		// What was deleted may come back in a crash: Delete syncs nothing.
		if !m.blobs[dgst] && !crashed {
			return fmt.Errorf("blob %s comes from nowhere", dgst)
		}
	}
	for dgst := range m.blobs {
		if before.blobs[dgst] && !got.blobs[dgst] {
			return fmt.Errorf("blob %s is lost", dgst)
		}
	}
	if !maps.Equal(got.tags, m.tags) && !maps.Equal(got.tags, before.tags) {
		return fmt.Errorf("tags are %v, want %v or %v", got.tags, m.tags, before.tags)
	}
	if !maps.Equal(got.pins, m.pins) && !maps.Equal(got.pins, before.pins) {
		return fmt.Errorf("pins are %v, want %v or %v", got.pins, m.pins, before.pins)
	}
	return nil
}

// world is a store, its model, and the blobs that they play with.
type world struct {
	rng     *rand.Rand
	dir     string
	samples []sample
	journal *disktest.Journal
	store   *cache.Store
	model   model
}

// open opens the store in root under a journal.
func (w *world) open(root string) (err error) {
	if w.journal, err = disktest.NewJournal(root); err != nil {
		return err
	}
	w.store, err = cache.Open(root, cache.WithDisk(w.journal), quick(), quiet())
	return err
}

// step does one random thing to the store and to the model.
func (w *world) step(ctx context.Context) (what string, err error) {
	b := w.samples[w.rng.IntN(len(w.samples))]
	name := fmt.Sprintf("registry.test/app:%d", w.rng.IntN(4))
	switch w.rng.IntN(8) {
	case 0:
		w.model.blobs[b.digest] = true
		return "put", w.store.Put(ctx, b.digest, b.data, cache.Facts{})
	case 1:
		w.model.blobs[b.digest] = true
		return "fill", fill(ctx, w.store, b, b.digest)
	case 2:
		if w.model.blobs[b.digest] {
			return "nothing", nil
		}
		err := fill(ctx, w.store, b.upTo(w.rng.IntN(len(b.data))), b.digest)
		if err == nil { // an earlier process had brought the whole
			w.model.blobs[b.digest] = true
		} else if errors.Is(err, errCut) {
			err = nil
		}
		return "broken fill", err
	case 3:
		w.model.blobs[b.digest] = true
		return "write", write(ctx, w.store, b)
	case 4:
		delete(w.model.blobs, b.digest)
		err := w.store.Delete(ctx, b.digest)
		if errdefs.IsNotFound(err) {
			err = nil
		}
		return "delete", err
	case 5:
		w.model.tags[name] = b.digest
		tag := cache.Tag{Name: name}
		tag.Target.Digest = b.digest
		return "tag", w.store.PutTag(tag)
	case 6:
		delete(w.model.tags, name)
		return "untag", w.store.DeleteTag(name)
	default:
		w.model.pins[name] = true
		return "pin", w.store.PutPin(cache.Pin{Name: name})
	}
}

// crash ends the process, in the middle of the step that began with these
// changes and this index, and begins the next one on what is left.
func (w *world) crash(from int, index []byte) error {
	root, err := os.MkdirTemp(w.dir, "store")
	if err != nil {
		return err
	}
	now, err := os.ReadFile(filepath.Join(w.store.Root(), "index.db"))
	if err != nil {
		return err
	}
	n := from + w.rng.IntN(w.journal.Len()-from+1)
	if n == w.journal.Len() || w.rng.IntN(2) == 0 {
		index = now
	}
	if err := w.journal.Crash(n, w.rng.Float64(), w.rng, root); err != nil {
		return err
	}
	old := w.store.Root()
	if err := errors.Join(w.store.Close(), os.RemoveAll(old)); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "index.db"), index, 0o600); err != nil {
		return err
	}
	return w.open(root)
}

// TestRandomOperations does random things to a store and to a model of a few
// maps, and compares the two, also behind crashes in the middle of a step.
func TestRandomOperations(t *testing.T) {
	t.Parallel()
	for range 30 {
		seed := rand.Uint64()
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			randomOperations(t, seed)
		})
	}
}

func randomOperations(t *testing.T, seed uint64) {
	w := &world{rng: rand.New(rand.NewPCG(seed, 0)), dir: memory(t), model: newModel()}
	for i := range 6 {
		w.samples = append(w.samples, newSample(uint64(i), 1+w.rng.IntN(40<<10)))
	}
	root := filepath.Join(w.dir, "store")
	if err := errors.Join(os.Mkdir(root, 0o700), w.open(root)); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.store.Close(); err != nil {
			t.Error(err)
		}
	}()
	var done []string
	for range 60 {
		before, from := w.model.clone(), w.journal.Len()
		index, err := os.ReadFile(filepath.Join(w.store.Root(), "index.db"))
		if err != nil {
			t.Fatal(err)
		}
		what, err := w.step(t.Context())
		done = append(done, what)
		crashes := w.rng.IntN(4) == 0
		if crashes && err == nil {
			done = append(done, "crash")
			err = w.crash(from, index)
		} else {
			before = w.model // the whole step is done
		}
		if err == nil {
			err = w.settle(t.Context(), before, crashes)
		}
		if err != nil {
			t.Fatalf("after %s: %v", strings.Join(done, ", "), err)
		}
	}
}

// settle compares the store with the model, and takes over what it may choose.
func (w *world) settle(ctx context.Context, before model, crashed bool) error {
	got, err := observe(ctx, w.store)
	if err == nil {
		err = w.model.differs(got, before, crashed)
	}
	w.model = got
	return err
}
