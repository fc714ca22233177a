package cache

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// TestIndexIsSmall bounds what a tiny blob that was pulled takes of the index's file,
// with all that is unused in it, and what it takes when all blobs were used at once.
func TestIndexIsSmall(t *testing.T) {
	t.Parallel()
	const blobs, mostPulled, mostUsed = 4000, 300, 400
	s := openStore(t, t.TempDir(), quiet())
	s.index.db.NoSync = true
	empty, commits := indexSize(t, s)
	var dgsts []digest.Digest
	for i := range uint64(blobs) {
		_, dgst := blobOf(i, 16)
		dgsts = append(dgsts, dgst)
		if err := s.notePublished(dgst, 16, Facts{Source: "https://registry-1.docker.io"}, true, "docker.io/library/tiny"); err != nil {
			t.Fatal(err)
		}
	}
	full, done := indexSize(t, s)
	if n := done - commits; n > blobs+100 {
		t.Errorf("%d commits for %d blobs, want one each", n, blobs)
	}
	each := (full - empty) / blobs
	t.Logf("%d bytes a blob that was pulled", each)
	if each > mostPulled {
		t.Errorf("a blob that was pulled takes %d bytes, want at most %d", each, mostPulled)
	}
	for _, dgst := range dgsts {
		if err := makeFile(filepath.Join(s.root, "blobs", "sha256", dgst.Encoded()), 16); err != nil {
			t.Fatal(err)
		}
		s.Touch("", dgst)
	}
	s.writeUses()
	full, _ = indexSize(t, s)
	each = (full - empty) / blobs
	t.Logf("%d bytes a blob that was used", each)
	if each > mostUsed {
		t.Errorf("a blob that was used takes %d bytes, want at most %d", each, mostUsed)
	}
	for _, dgst := range dgsts {
		if f, err := s.Facts(dgst); err != nil || f.Used.IsZero() || f.Used.Nanosecond() != 0 {
			t.Fatalf("facts of %s are %+v, %v, want it to be used, in whole seconds", dgst, f, err)
		}
	}
}

// indexSize is how much of the index's file was ever in use, and how often it was
// changed.
func indexSize(t *testing.T, s *Store) (size int64, commits int) {
	t.Helper()
	err := s.index.view(func(tx *bolt.Tx) error {
		size, commits = tx.Size(), tx.ID()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return size, commits
}

// recordsOf returns what the index has of a blob: its record, and those of its
// holders by name.
func recordsOf(t *testing.T, s *Store, dgst digest.Digest) (record string, holders map[string]string) {
	t.Helper()
	holders = map[string]string{}
	err := s.index.view(func(tx *bolt.Tx) error {
		record = string(recordIn(tx, blobsBucket, dgst.String()))
		return eachHolder(tx, dgst, func(k, v []byte) error {
			holders[strings.TrimPrefix(string(k), holderPrefix(dgst))] = string(v)
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return record, holders
}

// TestBlobRecord: the first holder stands with the facts of what was published, and
// with them alone; others have records of their own. All go with the blob.
func TestBlobRecord(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir(), quiet())
	data, dgst := blobOf(1, 1000)
	if err := s.NoteDescriptors([]ocispec.Descriptor{{Digest: dgst, Size: 7}}); err != nil {
		t.Fatal(err)
	}
	step := func(what string, err error, record string, holders map[string]string) {
		t.Helper()
		got, own := recordsOf(t, s, dgst)
		if err != nil || got != record || !cmp.Equal(own, holders) {
			t.Errorf("%s: %v, record is %s, want %s; holders are %v, want %v", what, err, got, record, own, holders)
		}
	}
	step("a holder of a claim", s.PutHolder(dgst, "c.example/x"), `{"size":7}`, map[string]string{"c.example/x": "{}"})
	if held, err := s.Holds(dgst, ""); held || err != nil {
		t.Errorf("nobody holds it: %t, %v", held, err)
	}
	err := s.index.forget([]digest.Digest{dgst})
	step("forgotten", err, "", map[string]string{})

	fill, _, err := s.FillFor(t.Context(), Origin{Repository: "b.example/x"}, dgst, -1, body(data))
	if err == nil {
		err = fill.Wait(patience(t))
	}
	const filled = `{"size":1000,"source":"upstream","holder":"b.example/x"}`
	step("filled", err, filled, map[string]string{})
	step("the same holder", s.PutFound(Link{Digest: dgst, Repository: "b.example/x"}), filled, map[string]string{})
	step("another holder", s.notePublished(dgst, 1000, Facts{}, true, "a.example/x"), filled, map[string]string{"a.example/x": "{}"})
	if got := holderNames(t, s, dgst); !slices.Equal(got, []string{"a.example/x", "b.example/x"}) {
		t.Errorf("holders are %v", got)
	}
	s.Touch("", dgst)
	s.writeUses()
	if record, _ := recordsOf(t, s, dgst); !strings.Contains(record, `"holder":"b.example/x"`) {
		t.Errorf("used: record is %s, want the holder still", record)
	}
	step("deleted", s.Delete(t.Context(), dgst), "", map[string]string{})
}

// TestDamageKeepsHolders: what is known of a damaged blob is forgotten, and not who
// has it, so that it can be fetched there.
func TestDamageKeepsHolders(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir(), quiet())
	_, dgst := putBlob(t, s, 1, 1000)
	for _, repository := range []string{"a.example/x", "b.example/x"} {
		if err := s.PutHolder(dgst, repository); err != nil {
			t.Fatal(err)
		}
	}
	tamper(t, s, dgst, func(f *os.File) error { _, err := f.WriteAt([]byte("x"), 5); return err })
	if err := s.Verify(t.Context(), dgst, nil); !errdefs.IsDataLoss(err) {
		t.Fatalf("verify: %v, want data loss", err)
	}
	if facts, err := s.Facts(dgst); !errdefs.IsNotFound(err) {
		t.Errorf("facts are %+v, %v, want none", facts, err)
	}
	if got := holderNames(t, s, dgst); !slices.Equal(got, []string{"a.example/x", "b.example/x"}) {
		t.Errorf("holders are %v", got)
	}
}

// TestOldRecords has records as an older larder wrote them, when each holder had one
// of its own with all that its key says: they are read, added to and forgotten as
// others are.
func TestOldRecords(t *testing.T) {
	t.Parallel()
	const (
		dgst       = digest.Digest("sha256:000391f11e13b76e50da788980f44b200561f662499177925ae4127b602b58ea")
		repository = "127.0.0.1:41234/library/tiny"
		facts      = `{"size":64,"measured":true,"source":"http://127.0.0.1:41234","used":"2026-11-30T08:16:13.568118698Z"}`
		holder     = `{"digest":"sha256:000391f11e13b76e50da788980f44b200561f662499177925ae4127b602b58ea","repository":"127.0.0.1:41234/library/tiny","since":"2026-11-30T08:16:13.56798393Z"}`
		claimed    = digest.Digest("sha256:00011b19f207b92684ffbae3c4cc5499ef32053a456bae55c805508979e0fc4d")
	)
	s := openStore(t, t.TempDir(), quiet())
	err := s.index.change(func(tx *bolt.Tx) error {
		return errors.Join(
			rawRecord{blobsBucket, []byte(dgst), []byte(facts)}.put(tx),
			rawRecord{holdersBucket, []byte(dgst + " " + repository), []byte(holder)}.put(tx),
			rawRecord{holdersBucket, []byte(dgst + " damaged.example/x"), []byte(holder[1:])}.put(tx),
			rawRecord{holdersBucket, []byte(claimed + " " + repository), []byte(holder)}.put(tx))
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Facts{Size: 64, Measured: true, Source: "http://127.0.0.1:41234", Used: time.Date(2026, 11, 30, 8, 16, 13, 568118698, time.UTC)}
	if got, err := s.Facts(dgst); err != nil || !cmp.Equal(got, want) {
		t.Errorf("facts are %+v, %v, want %+v", got, err, want)
	}
	for name, want := range map[string]bool{repository: true, "damaged.example/x": false, "127.0.0.1:41234/library": false} {
		if got, err := s.Holds(dgst, name); got != want || err != nil {
			t.Errorf("%s holds it: %t, %v, want %t", name, got, err, want)
		}
	}
	err = errors.Join(s.PutHolder(dgst, repository), s.PutFound(Link{Digest: dgst, Repository: repository}), s.PutHolder(dgst, "a.example/x"))
	if got := holderNames(t, s, dgst); err != nil || !slices.Equal(got, []string{repository, "a.example/x"}) {
		t.Errorf("holders are %v, %v", got, err)
	}
	if record, _ := recordsOf(t, s, dgst); record != facts[:len(facts)-1]+`,"holder":"`+repository+`"}` {
		t.Errorf("record is %s, want the old one with a holder", record)
	}
	if err := s.index.forget([]digest.Digest{dgst}); err != nil {
		t.Fatal(err)
	}
	if record, holders := recordsOf(t, s, dgst); record != "" || len(holders) != 0 {
		t.Errorf("of a blob that is forgotten there is %s, %v", record, holders)
	}
	if got := holderNames(t, s, claimed); !slices.Equal(got, []string{repository}) {
		t.Errorf("holders of another blob are %v", got)
	}
}
