package cache

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// oldStore unpacks a store that a larder of before the snapshot wrote, when
// format 1 had six buckets: an image with a signature, under a tag and by digest.
func oldStore(t *testing.T) (root string) {
	t.Helper()
	root = t.TempDir()
	f, err := os.Open("testdata/store-1.tar.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return root
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(root, filepath.Clean("/"+h.Name))
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(path, 0o755)
		} else {
			var data []byte
			if data, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(path, data, h.FileInfo().Mode())
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// rawIndex reads all records of an index that nobody has open.
func rawIndex(t *testing.T, root string) map[string]string {
	t.Helper()
	db, err := bolt.Open(filepath.Join(root, "index.db"), 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	all := map[string]string{}
	err = db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(bucket []byte, b *bolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				all[string(bucket)+"/"+string(k)] = string(v)
				return nil
			})
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// wantOldStore fails the test unless all of the old store is found.
func wantOldStore(t *testing.T, s *Store) {
	t.Helper()
	const repo = "docker.io/library/app"
	tag, err := s.Tag(repo + ":1")
	if err != nil || tag.Failures != 2 || !tag.Gone || tag.Target.Size == 0 {
		t.Fatalf("tag: %+v, %v", tag, err)
	}
	links, lerr := s.LinksOf(repo)
	pins, perr := s.Pins()
	rf, rerr := s.Referrers(repo, tag.Target.Digest)
	if err := errors.Join(lerr, perr, rerr); err != nil || len(links) != 2 || len(pins) != 2 || len(rf.Manifests) != 1 {
		t.Errorf("%d links, %d pins, %d referrers, %v, want 2, 2, 1", len(links), len(pins), len(rf.Manifests), err)
	}
	blobs := 0
	err = s.EachStored(t.Context(), "", func(dgst digest.Digest) error {
		blobs++
		facts, err := s.Facts(dgst)
		held, herr := s.Holds(dgst, repo)
		if !held || facts.Source == "" || facts.MediaType == "" {
			t.Errorf("facts of %s: %+v, held: %t", dgst, facts, held)
		}
		return errors.Join(err, herr, s.Verify(t.Context(), dgst, nil))
	})
	if err != nil || blobs != 5 {
		t.Errorf("%d blobs, %v, want 5", blobs, err)
	}
}

// TestUpgrade opens a store of an older larder: all is found, nothing that the
// older one reads has changed, and what is new comes along.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	root := oldStore(t)
	before := rawIndex(t, root)
	if len(before) != 5+5+1+2+2+1 {
		t.Fatalf("the old store has %d records", len(before))
	}
	s := openStore(t, root, quiet())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	after := rawIndex(t, root)
	for key, record := range before {
		if after[key] != record {
			t.Errorf("%s is %q, was %q", key, after[key], record)
		}
	}
	s = openStore(t, root, quiet())
	wantOldStore(t, s)
	found, ours, err := s.readSnapshot()
	if err != nil || !ours || len(found.tags) != 1 || len(found.links) != 2 || len(found.pins) != 2 {
		t.Errorf("snapshot: %+v, %t, %v", found, ours, err)
	}
}

// TestUpgradeResumes has an upgrade that a crash interrupted, in each place.
func TestUpgradeResumes(t *testing.T) {
	t.Parallel()
	for name, crash := range map[string]func(root string) error{
		"before the buckets": func(string) error { return nil },
		"before the snapshot": func(root string) error {
			db, err := bolt.Open(filepath.Join(root, "index.db"), 0o600, nil)
			if err != nil {
				return err
			}
			return errors.Join(makeBuckets(db), db.Close())
		},
		"in the snapshot": func(root string) error {
			return os.WriteFile(filepath.Join(root, "index.json.new"), []byte(`{"schemaVers`), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := oldStore(t)
			if err := crash(root); err != nil {
				t.Fatal(err)
			}
			s := openStore(t, root, quiet())
			wantOldStore(t, s)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if _, ours, err := openStore(t, root, quiet()).readSnapshot(); err != nil || !ours {
				t.Errorf("snapshot: %t, %v, want one", ours, err)
			}
		})
	}
}

// TestWayBack has an older larder's eyes on what this one writes: the format is
// the same, each record stands where it stood, and its fields mean the same.
func TestWayBack(t *testing.T) {
	t.Parallel()
	root := oldStore(t)
	before := rawIndex(t, root)
	s := openStore(t, root, quiet())
	wantOldStore(t, s) // each blob is verified, which changes its facts
	tag, err := s.Tag("docker.io/library/app:1")
	if err != nil {
		t.Fatal(err)
	}
	tag.Failures = 0
	if err := errors.Join(s.PutTag(tag), s.Close()); err != nil {
		t.Fatal(err)
	}
	note, err := os.ReadFile(filepath.Join(root, "larder.json"))
	if err != nil || string(note) != `{"format":1}` {
		t.Errorf("larder.json: %q, %v, want format 1", note, err)
	}
	after := rawIndex(t, root)
	for key, record := range before {
		var was, is map[string]any
		if err := errors.Join(json.Unmarshal([]byte(record), &was), json.Unmarshal([]byte(after[key]), &is)); err != nil {
			t.Fatal(err)
		}
		delete(was, "failures")
		for field, value := range was {
			a, _ := json.Marshal(value)
			b, _ := json.Marshal(is[field])
			if string(a) != string(b) {
				t.Errorf("%s: field %s is %s, was %s", key, field, b, a)
			}
		}
	}
}

// TestSnapshotCatchesUp with what an older larder did, which knows no snapshot.
func TestSnapshotCatchesUp(t *testing.T) {
	t.Parallel()
	root := oldStore(t)
	if err := openStore(t, root, quiet()).Close(); err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(filepath.Join(root, "index.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(pinsBucket)).Delete([]byte("docker.io/library/app:1"))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, root, quiet())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if found, _, err := s.readSnapshot(); err != nil || len(found.pins) != 1 {
		t.Errorf("pins in the snapshot: %v, %v, want the one that is left", found.pins, err)
	}
}

// TestUpgradeReadOnly has an older larder's store on a disk that takes no
// writes: what it lacks is not taken for damage.
func TestUpgradeReadOnly(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("NOT TESTED: a read-only disk; mounting one needs root")
	}
	old := oldStore(t)
	root := smallDisk(t)
	if err := errors.Join(os.CopyFS(filepath.Join(root, "store"), os.DirFS(old)), syscall.Mount("", root, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, "")); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, filepath.Join(root, "store"), quiet())
	wantOldStore(t, s)
	damages, err := s.Damages()
	scrub, serr := s.ScrubState()
	if err := errors.Join(err, serr); err != nil || len(damages) != 0 || !scrub.Began.IsZero() {
		t.Errorf("damages %v, scrub %+v, %v, want nothing", damages, scrub, err)
	}
}
