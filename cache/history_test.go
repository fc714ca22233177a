package cache

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

const nginx = "docker.io/library/nginx:1"

// point stores a tag that points to the digest of a text since now.
func point(t *testing.T, s *Store, name, target string) {
	t.Helper()
	tag := Tag{Name: name, Target: ocispec.Descriptor{Digest: digest.FromString(target)}, Created: time.Now(), Moved: time.Now()}
	if err := s.PutTag(tag); err != nil {
		t.Fatal(err)
	}
}

// wantHistory compares a history: a text for each entry.
func wantHistory(t *testing.T, s *Store, name string, want ...HistoryEntry) {
	t.Helper()
	h, err := s.History(name)
	if err != nil {
		t.Error(err)
	}
	about := cmpopts.EquateApproxTime(time.Minute) // transactions wait for others
	if diff := cmp.Diff(want, h.Entries, about); diff != "" || h.Name != name {
		t.Errorf("%s: -want +got:\n%s", h.Name, diff)
	}
}

func was(target string, from, until time.Time, why Ending) HistoryEntry {
	return HistoryEntry{Digest: digest.FromString(target), From: from, Until: until, Ending: why}
}

func TestHistory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		root, begin := t.TempDir(), time.Now().UTC()
		s := openStore(t, root)
		hour := func(n int) time.Time { return begin.Add(time.Duration(n) * time.Hour) }
		next := func() { <-time.After(time.Hour) }
		if _, err := s.History(nginx); !errdefs.IsNotFound(err) {
			t.Errorf("nothing happened: %v, want not found", err)
		}
		point(t, s, nginx, "a")
		next()
		point(t, s, nginx, "a") // a check that found nothing new
		wantHistory(t, s, nginx, was("a", begin, time.Time{}, Ending{}))
		point(t, s, nginx, "b")
		next()
		if err := s.EndTag(nginx, digest.FromString("a"), Ending{Why: Expired}); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("end of a tag that moved: %v, want a failed precondition", err)
		}
		if err := s.EndTag(nginx, digest.FromString("b"), Ending{Why: Expired, Detail: "rule 1"}); err != nil {
			t.Fatal(err)
		}
		for range 2 { // one that is gone does not end again
			if err := s.DeleteTag(nginx); err != nil {
				t.Fatal(err)
			}
		}
		past := []HistoryEntry{was("a", begin, hour(1), Ending{Why: Moved}), was("b", hour(1), hour(2), Ending{Why: Expired, Detail: "rule 1"})}
		wantHistory(t, s, nginx, past...)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openStore(t, root)
		next()
		point(t, s, nginx, "b")
		next()
		if err := s.DeleteTag(nginx); err != nil {
			t.Fatal(err)
		}
		wantHistory(t, s, nginx, append(past, was("b", hour(3), hour(4), Ending{Why: Removed}))...)
		wantEnded(t, s, 1)
	})
}

// wantEnded checks that the sequence counts the histories that ended.
func wantEnded(t *testing.T, s *Store, want int) {
	t.Helper()
	err := s.index.view(func(tx *bolt.Tx) error {
		ended := tx.Bucket([]byte(endedBucket))
		if n := ended.Stats().KeyN; n != want || ended.Sequence() != uint64(want) {
			t.Errorf("%d ended histories, counted as %d, want %d", n, ended.Sequence(), want)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Tags of a larder that kept no history, before and after it ran.
func TestHistoryOfOlderStore(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	day := func(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }
	older := func(target string, moved time.Time) Tag { // as an older larder puts it
		tag := Tag{Name: nginx, Target: ocispec.Descriptor{Digest: digest.FromString(target)}, Created: day(1), Moved: moved}
		if err := s.index.put(tagsBucket, nginx, tag); err != nil {
			t.Fatal(err)
		}
		return tag
	}
	tag := older("a", day(2))
	wantHistory(t, s, nginx, was("a", day(2), time.Time{}, Ending{}))
	tag.Target.Digest, tag.Moved = digest.FromString("b"), day(3)
	if err := s.PutTag(tag); err != nil {
		t.Fatal(err)
	}
	older("c", day(4))
	tag.Target.Digest, tag.Moved = digest.FromString("d"), day(5)
	if err := s.PutTag(tag); err != nil {
		t.Fatal(err)
	}
	moved := Ending{Why: Moved}
	past := []HistoryEntry{was("a", day(2), day(3), moved), was("b", day(3), day(4), moved), was("c", day(4), day(5), moved)}
	wantHistory(t, s, nginx, append(past, was("d", day(5), time.Time{}, Ending{}))...)
	if err := s.index.delete(tagsBucket, nginx); err != nil { // by an older larder
		t.Fatal(err)
	}
	h, err := s.History(nginx)
	if err != nil || len(h.Entries) != 4 || h.Entries[3].Why != Removed || h.Entries[3].Until.IsZero() {
		t.Errorf("got %+v, %v, want it removed", h, err)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	for i := range maxEntries + 20 {
		point(t, s, nginx, fmt.Sprint(i))
	}
	h, err := s.History(nginx)
	if err != nil || len(h.Entries) != maxEntries || h.Entries[0].Digest != digest.FromString("20") {
		t.Errorf("%d entries from %v on, %v, want the newest %d", len(h.Entries), h.Entries[0].Digest, err, maxEntries)
	}
}

// The tags that went first are forgotten first; one that came back counts no
// more.
func TestHistoriesAreBounded(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	name := func(i int) string { return fmt.Sprintf("docker.io/library/app:%d", i) }
	const more = 5
	err := s.index.change(func(tx *bolt.Tx) error { // one transaction: ten thousand would take their time
		for i := range maxEnded + more {
			at := time.Unix(int64(i), 0)
			h := History{Name: name(i)}
			h.begin(digest.FromString("a"), at)
			h.end(at, Ending{Why: Evicted})
			if err := putRecord(tx, historyBucket, name(i), h); err != nil {
				return err
			}
			if err := rememberEnd(tx, name(i), at); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wantEnded(t, s, maxEnded)
	for i, want := range map[int]bool{0: false, more - 1: false, more: true, maxEnded + more - 1: true} {
		if _, err := s.History(name(i)); errdefs.IsNotFound(err) == want {
			t.Errorf("history of the tag that went as number %d: %v, want it there: %t", i, err, want)
		}
	}
	point(t, s, name(more), "b") // the one that would be the next
	wantEnded(t, s, maxEnded-1)
	for i := range 2 {
		point(t, s, nginx+fmt.Sprint(i), "a")
		if err := s.DeleteTag(nginx + fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	wantEnded(t, s, maxEnded)
	for i, want := range map[int]bool{more: true, more + 1: false, more + 2: true} {
		if _, err := s.History(name(i)); errdefs.IsNotFound(err) == want {
			t.Errorf("history of the tag that went as number %d: %v, want it there: %t", i, err, want)
		}
	}
}
