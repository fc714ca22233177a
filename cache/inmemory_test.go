package cache

import (
	"bytes"
	"context"
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// anHourOn has a file that was just written count as one that has not changed for
// long.
func anHourOn() time.Time { return time.Now().Add(time.Hour) }

// readTwice reads a manifest from its file, and then from memory.
func readTwice(t *testing.T, s *Store, dgst digest.Digest, want []byte) {
	t.Helper()
	if data, err := s.ReadManifest(dgst); err != nil || !bytes.Equal(data, want) {
		t.Fatalf("read: %d bytes, %v", len(data), err)
	}
	if data, ok := s.ManifestInMemory(dgst); !ok || !bytes.Equal(data, want) {
		t.Fatalf("in memory: %d bytes, %v", len(data), ok)
	}
}

// Whatever becomes of a manifest's file, and whoever does it, nothing is served
// from memory that is not there any more, or not the same.
func TestManifestInMemory(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(t *testing.T, s *Store, dgst digest.Digest, path string) error{
		"deleted": func(t *testing.T, s *Store, dgst digest.Digest, _ string) error {
			return s.Delete(t.Context(), dgst)
		},
		"evicted": func(_ *testing.T, s *Store, dgst digest.Digest, _ string) error {
			_, err := s.unlink(dgst)
			return err
		},
		"set aside": func(t *testing.T, s *Store, dgst digest.Digest, _ string) error {
			return s.Damaged(t.Context(), dgst, errors.New("a test"))
		},
		"unreadable": func(_ *testing.T, s *Store, dgst digest.Digest, _ string) error {
			s.noteUnreadable(dgst)
			return nil
		},
		"removed by hand": func(_ *testing.T, _ *Store, _ digest.Digest, path string) error {
			return os.Remove(path)
		},
		"a link in its place": func(_ *testing.T, _ *Store, _ digest.Digest, path string) error {
			return errors.Join(os.Rename(path, path+".kept"), os.Symlink(path+".kept", path))
		},
		"another file in its place": func(_ *testing.T, _ *Store, _ digest.Digest, path string) error {
			return errors.Join(os.WriteFile(path+".new", make([]byte, 1000), 0o600), os.Rename(path+".new", path))
		},
		"changed in place, its time put back": flipInPlace,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openStore(t, t.TempDir(), WithClock(anHourOn))
			data, dgst := blobOf(1, 1000)
			if err := s.Put(t.Context(), dgst, data, Facts{}); err != nil {
				t.Fatal(err)
			}
			readTwice(t, s, dgst, data)
			path, err := s.blobPath(dgst)
			if err != nil {
				t.Fatal(err)
			}
			if err := change(t, s, dgst, path); err != nil {
				t.Fatal(err)
			}
			if got, ok := s.ManifestInMemory(dgst); ok {
				t.Errorf("in memory still: %d bytes", len(got))
			}
			if got, err := s.ReadManifest(dgst); err == nil {
				t.Errorf("read: %d bytes, want an error", len(got))
			}
		})
	}
}

// flipInPlace changes a byte, and waits for the clock of file times to tick: two
// changes within one tick look like one.
func flipInPlace(t *testing.T, _ *Store, _ digest.Digest, path string) error {
	was, err := os.Stat(path)
	if err != nil {
		return err
	}
	old, _ := stateOf(was)
	for ctx := patience(t); ctx.Err() == nil; {
		if err := errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, make([]byte, was.Size()), 0o600), os.Chtimes(path, was.ModTime(), was.ModTime())); err != nil {
			return err
		}
		fi, err := os.Stat(path)
		if err != nil {
			return err
		}
		if now, _ := stateOf(fi); now.changed != old.changed {
			return nil
		}
	}
	return context.DeadlineExceeded
}

// What changed just now may change again without a trace in its times.
func TestYoungManifestIsRead(t *testing.T) {
	t.Parallel()
	var now time.Time
	s := openStore(t, t.TempDir(), WithClock(func() time.Time { return now }))
	data, dgst := blobOf(1, 1000)
	if err := s.Put(t.Context(), dgst, data, Facts{}); err != nil {
		t.Fatal(err)
	}
	fi, err := s.stat(dgst)
	if err != nil {
		t.Fatal(err)
	}
	changed := time.Unix(fi.Sys().(*syscall.Stat_t).Ctim.Unix())
	for _, tc := range []struct {
		age  time.Duration
		want bool
	}{{-time.Hour, false}, {0, false}, {settled - 1, false}, {settled, true}} {
		now = changed.Add(tc.age)
		if _, err := s.ReadManifest(dgst); err != nil {
			t.Fatal(err)
		}
		if _, ok := s.ManifestInMemory(dgst); ok != tc.want {
			t.Errorf("%s after its change: in memory %v, want %v", tc.age, ok, tc.want)
		}
	}
}

func TestManifestsInMemoryAreBounded(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir(), WithClock(anHourOn))
	const size, n = maxOneInMemory, 2 * maxInMemory / maxOneInMemory
	var all []digest.Digest
	for i := range n + 1 {
		data, dgst := blobOf(uint64(i), size+i/n) // the last one is a byte too large
		if err := s.Put(t.Context(), dgst, data, Facts{}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.ReadManifest(dgst); err != nil {
			t.Fatal(err)
		}
		all = append(all, dgst)
	}
	kept := 0
	for i, dgst := range all {
		if _, ok := s.ManifestInMemory(dgst); ok {
			kept++
			if i < n/2 || i == n {
				t.Errorf("number %d is in memory", i)
			}
		}
	}
	if kept != n/2 || s.manifests.bytes != maxInMemory {
		t.Errorf("%d in memory with %d bytes, want %d with %d", kept, s.manifests.bytes, n/2, maxInMemory)
	}
}
