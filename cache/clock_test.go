package cache

import (
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
)

// TestClockEvictsNothing sets the clock of an open store a year on and an hour
// back. Where there is room nothing goes, not even what nobody used for longest
// or what is just being written; where there is none, what was used last still
// goes last.
func TestClockEvictsNothing(t *testing.T) {
	t.Parallel()
	const year = 365 * 24 * time.Hour
	for name, turn := range map[string]time.Duration{"a year on": year, "an hour back": -time.Hour, "ten years back": -10 * year} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEvictions(t)
			last, old, middle := e.image("last", 10*time.Minute, 1), e.image("old", 300*time.Hour, 2), e.image("middle", 200*time.Hour, 3)
			all := []digest.Digest{last.root, last.layers[0], old.root, old.layers[0], middle.root, middle.layers[0]}
			data, dgst := blobOf(4, 10_000)
			w, err := e.Writer(t.Context(), content.WithRef("running"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(data[:5000]); err != nil {
				t.Fatal(err)
			}
			e.now = e.now.Add(turn)
			k := NewKeeper(e.Store, KeeperConfig{})
			for range 2 { // a pass may leave something behind for the next one
				k.evict(t.Context())
				e.sweepAbandoned()
				if err := e.Recount(t.Context()); err != nil {
					t.Error(err)
				}
			}
			e.wantStored(all...)
			if _, err := w.Write(data[5000:]); err != nil {
				t.Error(err)
			}
			if err := w.Commit(t.Context(), int64(len(data)), dgst); err != nil {
				t.Errorf("what was being written: %v", err)
			}
			e.wantStored(dgst)
			if err := e.Delete(t.Context(), dgst); err != nil {
				t.Error(err)
			}
			want := []string{":old", ":middle", ":last"}
			if turn < -300*time.Hour {
				// All were used in the future, which is now: none is older.
				e.collect(-1)
				e.wantGone(all...)
				return
			}
			e.want("order without room", e.collect(-1), want...)
		})
	}
}
