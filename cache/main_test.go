package cache

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"
)

// childEnv tells the test binary to be another process of a test: its value
// is the part to play, and the arguments are the part's.
const childEnv = "LARDER_CACHE_TEST_CHILD"

func TestMain(m *testing.M) {
	parts := map[string]func(ctx context.Context, args []string) error{
		"hold":      holdStore,
		"crash":     fillUntilKilled,
		"stress":    stressFills,
		"downgrade": writeAsNobody,
		"space":     measureSpace,
	}
	if name := os.Getenv(childEnv); name != "" {
		if err := parts[name](context.Background(), os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// child makes the command that runs this test binary as another process.
func child(t *testing.T, part string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), childEnv+"="+part)
	cmd.Stderr = t.Output()
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// openStore opens a store that is closed with the test.
func openStore(t testing.TB, root string, opts ...Option) *Store {
	t.Helper()
	s, err := Open(root, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close store: %v", err)
		}
	})
	return s
}

// patience is a context that ends a test that hangs, long before go test does.
func patience(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// blobOf returns size bytes that depend on seed, and their digest.
func blobOf(seed uint64, size int) ([]byte, digest.Digest) {
	data := make([]byte, size)
	var key [32]byte
	key[0], key[1], key[2], key[3] = byte(seed), byte(seed>>8), byte(seed>>16), byte(seed>>24)
	_, _ = rand.NewChaCha8(key).Read(data) // never fails
	return data, digest.FromBytes(data)
}

// wantBlob fails the test unless the blob is published with these bytes.
func wantBlob(t testing.TB, s *Store, dgst digest.Digest, want []byte) {
	t.Helper()
	b, err := s.Open(dgst)
	if err != nil {
		t.Error(err)
		return
	}
	defer b.Close()
	got, err := os.ReadFile(b.Name())
	if err != nil {
		t.Error(err)
	}
	if !bytes.Equal(got, want) || b.Size() != int64(len(want)) {
		t.Errorf("blob %s has %d other bytes, want %d", dgst, len(got), len(want))
	}
	if fi, err := b.Stat(); err != nil || fi.Mode().Perm() != 0o444 {
		t.Errorf("mode is %v, %v, want 0444", fi.Mode(), err)
	}
}

// wantNoBlob fails the test if the blob is published.
func wantNoBlob(t testing.TB, s *Store, dgst digest.Digest) {
	t.Helper()
	if has, err := s.Has(dgst); has || err != nil {
		t.Errorf("has %s: %t, %v, want false", dgst, has, err)
	}
}
