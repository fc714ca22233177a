package cache

import (
	"fmt"
	"testing"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
)

// TestGravesAreBounded forgets the oldest, and tells of the last.
func TestGravesAreBounded(t *testing.T) {
	t.Parallel()
	e := newEvictions(t)
	err := e.index.change(func(tx *bolt.Tx) error {
		for i := range maxGraves + 5 {
			if err := dig(tx, Grave{At: e.now, Names: []string{fmt.Sprint("n", i), "all"}, Count: i}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"n5": 5, "all": maxGraves + 4} {
		if gr, err := e.GraveOf(name, ""); err != nil || gr.Count != want {
			t.Errorf("%s: %+v, %v, want %d", name, gr, err, want)
		}
	}
	if _, err := e.GraveOf("n4", ""); !errdefs.IsNotFound(err) {
		t.Errorf("more than %d are remembered: %v", maxGraves, err)
	}
}
