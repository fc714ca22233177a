package cache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
)

// TestEachStored lists all in order, over several pages and algorithms, and
// goes on behind any of them.
func TestEachStored(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	var want []digest.Digest
	for i := range orderedPage + 100 {
		alg := digest.SHA256
		if i%3 == 0 {
			alg = digest.SHA512
		}
		want = append(want, alg.FromString(string(rune(i))))
	}
	plant := func(alg, name string) {
		dir := filepath.Join(s.root, "blobs", alg)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, dgst := range want {
		plant(dgst.Algorithm().String(), dgst.Encoded())
	}
	plant("sha256", "no-blob")
	plant("md5", "d41d8cd98f00b204e9800998ecf8427e")
	slices.Sort(want)
	for _, from := range []int{-1, 0, 77, len(want) - 1} {
		after := digest.Digest("")
		if from >= 0 {
			after = want[from]
		}
		var got []digest.Digest
		err := s.EachStored(t.Context(), after, func(dgst digest.Digest) error {
			got = append(got, dgst)
			return nil
		})
		if err != nil || !slices.Equal(got, want[from+1:]) {
			t.Errorf("behind %d: %d digests, %v, want %d in order", from, len(got), err, len(want)-from-1)
		}
	}
	enough := errors.New("enough")
	if err := s.EachStored(t.Context(), "", func(digest.Digest) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("%v, want fn's error", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.EachStored(ctx, "", func(digest.Digest) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the context's", err)
	}
}
