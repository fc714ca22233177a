package cache

import (
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
)

// What is remembered of the index is never older than the last change that was
// reported, whoever made it, and also while many are made at once.
func TestChangesAreSeenAtOnce(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	_, dgst := blobOf(1, 10)
	var wg sync.WaitGroup
	for w := range 4 {
		name := fmt.Sprintf("docker.io/library/app:%d", w)
		wg.Go(func() {
			for i := range 25 {
				tag := Tag{Name: name, Source: strconv.Itoa(i)}
				tag.Target.Digest = dgst
				if err := s.PutTag(tag); err != nil {
					t.Error(err)
				}
				for range 2 { // the second time from memory
					if got, err := s.Tag(name); err != nil || got.Source != tag.Source {
						t.Errorf("%s: got %q, %v, want %q", name, got.Source, err, tag.Source)
					}
				}
			}
			if err := s.DeleteTag(name); err != nil {
				t.Error(err)
			}
			if got, err := s.Tag(name); !errdefs.IsNotFound(err) {
				t.Errorf("%s: got %v, %v after it was deleted", name, got, err)
			}
		})
	}
	wg.Wait()
}

// What hides the index hides what is remembered of it.
func TestMemoEndsWithIndex(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	const name = "docker.io/library/app:1"
	put := func() {
		t.Helper()
		if err := s.PutTag(Tag{Name: name}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Tag(name); err != nil {
			t.Fatal(err)
		}
	}
	put()
	if err := s.index.set(nil, errMoved); err != nil {
		t.Fatal(err)
	}
	if tag, err := s.Tag(name); !errdefs.IsUnavailable(err) {
		t.Errorf("without a file: got %v, %v", tag, err)
	}
	if err := s.attach(); err != nil {
		t.Fatal(err)
	}
	put()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if tag, err := s.Tag(name); !errdefs.IsUnavailable(err) {
		t.Errorf("after Close: got %v, %v", tag, err)
	}
}

func TestMemoIsBounded(t *testing.T) {
	t.Parallel()
	var m memo
	for i := range 3 * maxMemo {
		m.add(memoKey{tagsBucket, strconv.Itoa(i)}, i, 0)
		if v, ok := m.get(memoKey{tagsBucket, strconv.Itoa(i)}); !ok || v != i {
			t.Fatalf("record %d: got %v, %v", i, v, ok)
		}
		if len(m.records) > maxMemo {
			t.Fatalf("%d records", len(m.records))
		}
	}
	m.add(memoKey{tagsBucket, "late"}, 1, 0)
	m.forget()
	m.add(memoKey{tagsBucket, "stale"}, 1, 0) // was read before the change
	for _, key := range []string{"late", "stale"} {
		if v, ok := m.get(memoKey{tagsBucket, key}); ok {
			t.Errorf("%s: got %v after a change", key, v)
		}
	}
}
