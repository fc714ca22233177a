package cache

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"errors"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// fullIndex makes a store whose index has many pages, and closes it.
func fullIndex(t *testing.T) (root string, data []byte, dgst digest.Digest) {
	t.Helper()
	root = t.TempDir()
	s := openStore(t, root)
	data, dgst = blobOf(1, 1000)
	if err := s.Put(t.Context(), dgst, data, Facts{MediaType: "application/x"}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() {
			tag := Tag{Name: fmt.Sprintf("docker.io/library/nginx:%04d", i), LastError: string(bytes.Repeat([]byte{'x'}, 200))}
			tag.Target.Digest = dgst
			if err := s.PutTag(tag); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return root, data, dgst
}

// TestOpenDamagedIndex damages the index in all kinds of ways: Open succeeds,
// the blobs are served, all tags are there again, and the damaged file is kept.
func TestOpenDamagedIndex(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		damage func(path string) error
		kept   bool
	}{
		"missing":     {os.Remove, false},
		"zero length": {func(path string) error { return os.Truncate(path, 0) }, false},
		"garbage": {func(path string) error {
			garbage, _ := blobOf(1, 40_000)
			return os.WriteFile(path, garbage, 0o600)
		}, true},
		"short garbage":      {func(path string) error { return os.WriteFile(path, []byte("x"), 0o600) }, true},
		"zeros":              {func(path string) error { return os.WriteFile(path, make([]byte, 1<<20), 0o600) }, true},
		"one meta page":      {func(path string) error { return os.Truncate(path, 4096) }, true},
		"two meta pages":     {func(path string) error { return os.Truncate(path, 8192) }, true},
		"three pages":        {func(path string) error { return os.Truncate(path, 3*4096) }, true},
		"one page short":     {truncateLastPage, true},
		"odd length":         {func(path string) error { return os.Truncate(path, 20_001) }, true},
		"half":               {truncateHalf, true},
		"pages of zeros":     {overwriteZeros, true},
		"pages of garbage":   {overwriteGarbage, true},
		"directory in place": {func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root, data, dgst := fullIndex(t)
			path := filepath.Join(root, "index.db")
			if err := tc.damage(path); err != nil {
				t.Fatal(err)
			}
			s := openStore(t, root)
			wantBlob(t, s, dgst, data)
			if info, err := s.Info(t.Context(), dgst); err != nil || info.Size != 1000 {
				t.Errorf("info: %+v, %v, want size 1000", info, err)
			}
			if tags, err := s.Tags(); err != nil || len(tags) != 300 || tags[7].Target.Digest != dgst {
				t.Errorf("%d tags, %v, want all 300", len(tags), err)
			}
			if err := s.PutTag(Tag{Name: "docker.io/library/nginx:1"}); err != nil {
				t.Error(err)
			}
			kept, err := filepath.Glob(path + ".damaged-*")
			if err != nil || len(kept) > 0 != tc.kept {
				t.Errorf("kept %v, %v, want one: %t", kept, err, tc.kept)
			}
		})
	}
}

func truncateHalf(path string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	return os.Truncate(path, fi.Size()/2)
}

// truncateLastPage cuts off a page that is in use, but that no key lies in.
func truncateLastPage(path string) error {
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(tagsBucket)).Put([]byte("zzz"), make([]byte, 1<<20))
	})
	size := int64(0)
	if err == nil {
		err = db.View(func(tx *bolt.Tx) error {
			size = tx.Size()
			return nil
		})
	}
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	return os.Truncate(path, size-int64(os.Getpagesize()))
}

// overwriteAll leaves nothing but the meta pages: what is in use may be anywhere.
func overwriteAll(path string, content func(size int) []byte) error {
	const metas = 8192
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	return overwrite(path, content(int(fi.Size())-metas), metas)
}

func overwriteGarbage(path string) error {
	return overwriteAll(path, func(size int) []byte {
		garbage, _ := blobOf(2, size)
		return garbage
	})
}

func overwriteZeros(path string) error {
	return overwriteAll(path, func(size int) []byte { return make([]byte, size) })
}

func overwrite(path string, data []byte, at int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, at)
	return errors.Join(err, f.Close())
}

// TestOpenIndexBehindReadOnly: a program that is started at the moment has a copy
// of what was open, and with it the lock of an index that was only read.
func TestOpenIndexBehindReadOnly(t *testing.T) {
	t.Parallel()
	root, _, _ := fullIndex(t)
	path := filepath.Join(root, "index.db")
	read, err := openBolt(path, true, 0)
	if err != nil {
		t.Fatal(err)
	}
	held, err := unix.FcntlInt(read.file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(held)
	if err := read.close(); err != nil {
		t.Fatal(err)
	}
	written, err := openBolt(path, false, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := written.close(); err != nil {
		t.Error(err)
	}
}

// TestOpenIndexBusy has somebody with a bbolt tool hold the index: that is no
// damage.
func TestOpenIndexBusy(t *testing.T) {
	t.Parallel()
	root, _, _ := fullIndex(t)
	path := filepath.Join(root, "index.db")
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(root); !errors.Is(err, bolterrors.ErrTimeout) {
		t.Errorf("open: %v, want a timeout", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, root)
	if tags, err := s.Tags(); err != nil || len(tags) != 300 {
		t.Errorf("%d tags, %v, want all 300", len(tags), err)
	}
	if kept, _ := filepath.Glob(path + ".damaged-*"); len(kept) != 0 {
		t.Errorf("set aside: %v, want nothing", kept)
	}
}

// TestIndexConcurrency has many goroutines change the same and other records.
func TestIndexConcurrency(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	dgst := digest.FromString("x")
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			name := fmt.Sprint("docker.io/library/nginx:", i)
			err := errors.Join(
				s.PutTag(Tag{Name: name}),
				s.SetFacts(dgst, Facts{Labels: map[string]string{name: "x"}}),
				s.PutPin(Pin{Name: name}),
				s.PutLink(Link{Repository: name, Digest: dgst}),
				s.PutTag(Tag{Name: ""}), // fails, and takes no other with it
			)
			if !errors.Is(err, bolterrors.ErrKeyRequired) {
				t.Errorf("%v, want the error of the nameless tag alone", err)
			}
			if i%2 == 0 {
				if err := s.DeletePin(name, ""); err != nil {
					t.Error(err)
				}
			}
			if _, err := s.Tag(name); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	facts, err := s.Facts(dgst)
	tags, terr := s.Tags()
	pins, perr := s.Pins()
	links, lerr := s.Links()
	if err := errors.Join(err, terr, perr, lerr); err != nil {
		t.Error(err)
	}
	if len(facts.Labels) != 40 || len(tags) != 40 || len(pins) != 20 || len(links) != 40 {
		t.Errorf("%d labels, %d tags, %d pins, %d links, want 40, 40, 20, 40", len(facts.Labels), len(tags), len(pins), len(links))
	}
}

// FuzzIndexRecords has records of any content, as a newer larder or a bad disk
// leaves them: none stops a list, and none is more than not found.
func FuzzIndexRecords(f *testing.F) {
	s, err := Open(f.TempDir(), WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	s.index.db.NoSync = true
	dgst := digest.FromString("x")
	for _, seed := range []string{"", "{", "null", "[]", `{"name":1}`, `{"size":1e99}`, `{"size":-1,"labels":{"a":null}}`,
		`{"name":"x","target":{"digest":"garbage"},"created":"never"}`, "\xff\xfe", `{"used":"2026-01-01T00:00:00Z"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, record []byte) {
		err := s.index.change(func(tx *bolt.Tx) error {
			for bucket, key := range map[string]string{
				tagsBucket: "x", blobsBucket: dgst.String(), holdersBucket: holderPrefix(dgst) + "x", pinsBucket: "x", manifestsBucket: Link{Repository: "x", Digest: dgst}.key(), referrersBucket: Link{Repository: "x", Digest: dgst}.key(),
			} {
				if err := tx.Bucket([]byte(bucket)).Put([]byte(key), record); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		s.pins.forget()
		_, tagErr := s.Tag("x")
		_, factsErr := s.Facts(dgst)
		_, linkErr := s.Link("x", dgst)
		_, referrersErr := s.Referrers("x", dgst)
		_, holdsErr := s.Holds(dgst, "x")
		_, holdersErr := s.Holders(dgst)
		if err := errors.Join(holdsErr, holdersErr, s.PutHolder(dgst, "y")); err != nil {
			t.Errorf("holders: %v", err)
		}
		if held, err := s.Holds(dgst, "y"); !held || err != nil {
			t.Errorf("a holder that was noted is one: %t, %v", held, err)
		}
		for _, err := range []error{tagErr, factsErr, linkErr, referrersErr} {
			if err != nil && !errdefs.IsNotFound(err) {
				t.Errorf("read: %v, want not found at most", err)
			}
		}
		_, tagsErr := s.Tags()
		pins, pinsErr := s.Pins()
		if len(pins) != 1 || pins[0].Name != "x" {
			t.Errorf("pins are %v, want x whatever its record says", pins)
		}
		_, linksErr := s.Links()
		s.Touch("x", dgst)
		s.writeUses()
		if err := errors.Join(tagsErr, pinsErr, linksErr, s.SetFacts(dgst, Facts{Size: 7}), s.PutTag(Tag{Name: "x"})); err != nil {
			t.Errorf("list or change: %v", err)
		}
		if got, err := s.Tag("x"); err != nil || got.Name != "x" {
			t.Errorf("tag that was written over: %+v, %v", got, err)
		}
	})
}
