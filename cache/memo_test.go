package cache

import (
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
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

// TestMemoIsBounded asks for more records in turn than there is room for: each goes on
// its own, so that most are found at any time, and what is too large stays out.
func TestMemoIsBounded(t *testing.T) {
	t.Parallel()
	const text = 1000
	key := func(i int) memoKey { return memoKey{tagsBucket, fmt.Sprintf("%08d", i)} }
	fit := maxMemo / (memoRoom + text + len(key(0).key))
	var m memo
	for i := range 3 * fit {
		for range 2 { // the second takes the place of the first
			m.add(key(i), i, text, 0)
		}
		if v, ok := m.get(key(i)); !ok || v != i {
			t.Fatalf("record %d: got %v, %v", i, v, ok)
		}
		if n := len(m.records); n != min(i+1, fit) || m.bytes > maxMemo {
			t.Fatalf("%d records have %d bytes when %d came and %d fit", n, m.bytes, i+1, fit)
		}
	}
	m.add(key(-1), 1, maxOneMemo, 0)
	if v, ok := m.get(key(-1)); ok || len(m.records) != fit {
		t.Errorf("of %d bytes: got %v, %v, and %d others, want %d", maxOneMemo, v, ok, len(m.records), fit)
	}
	m.add(memoKey{tagsBucket, "late"}, 1, text, 0)
	m.forget()
	m.add(memoKey{tagsBucket, "stale"}, 1, text, 0) // was read before the change
	for _, key := range []string{"late", "stale"} {
		if v, ok := m.get(memoKey{tagsBucket, key}); ok {
			t.Errorf("%s: got %v after a change", key, v)
		}
	}
	m.add(key(0), 2, text, 1)
	if v, ok := m.get(key(0)); !ok || v != 2 || len(m.records) != 1 || m.bytes > maxOneMemo {
		t.Errorf("after a change: got %v, %v, and %d records of %d bytes", v, ok, len(m.records), m.bytes)
	}
}

// TestManyTagsAreRemembered has room for 10,000 usual tags, with a link of each.
func TestManyTagsAreRemembered(t *testing.T) {
	t.Parallel()
	const count = 10_000
	_, dgst := blobOf(1, 10)
	now := time.Now()
	var m memo
	for i := range count {
		repo := fmt.Sprintf("docker.io/library/application%d", i)
		tag := Tag{
			Name: repo + ":1.2.3-bookworm", Source: "https://registry-1.docker.io", Created: now, Moved: now, Validated: now, Used: now,
			Target: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: dgst, Size: 1234},
		}
		link := Link{Repository: repo, Digest: dgst, Asked: true, Created: now}
		for k, v := range map[memoKey]any{{tagsBucket, tag.Name}: tag, {manifestsBucket, link.key()}: link} {
			text, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			m.add(k, v, len(text), 0)
		}
	}
	if n := len(m.records); n != 2*count {
		t.Errorf("%d of %d records are remembered, %d bytes each", n, 2*count, m.bytes/n)
	}
}
