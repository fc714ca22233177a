package cache

import (
	"encoding/json"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestTags(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := openStore(t, root)
	day := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	tag := Tag{
		Name:   "docker.io/library/nginx:1.29",
		Target: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromString("x"), Size: 7},
		Source: "registry-1.docker.io", Created: day, Moved: day, Validated: day.Add(time.Hour),
		NextCheck: day.Add(2 * time.Hour), Failures: 3, LastError: "refused", Gone: true, Used: day.Add(3 * time.Hour),
	}
	if _, err := s.Tag(tag.Name); !errdefs.IsNotFound(err) {
		t.Errorf("tag that is not there: %v, want not found", err)
	}
	for _, name := range []string{"quay.io/a/b:1", tag.Name, "docker.io/library/nginx:1.28"} {
		other := tag
		other.Name = name
		if err := s.PutTag(other); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, root)
	got, err := s.Tag(tag.Name)
	if diff := cmp.Diff(tag, got); err != nil || diff != "" {
		t.Errorf("tag after a restart: %v, -want +got:\n%s", err, diff)
	}
	all, err := s.Tags()
	if err != nil || len(all) != 3 || all[0].Name != "docker.io/library/nginx:1.28" || all[2].Name != "quay.io/a/b:1" {
		t.Errorf("tags: %+v, %v, want 3 in order", all, err)
	}
	for range 2 { // twice is no error
		if err := s.DeleteTag(tag.Name); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Tag(tag.Name); !errdefs.IsNotFound(err) {
		t.Errorf("deleted tag: %v, want not found", err)
	}
}

// A record as it was written before Gone existed.
func TestTagWithoutGone(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	old := json.RawMessage(`{"name":"quay.io/a:1","source":"https://quay.io","failures":2,"lastError":"404"}`)
	if err := s.index.put(tagsBucket, "quay.io/a:1", old); err != nil {
		t.Fatal(err)
	}
	if tag, err := s.Tag("quay.io/a:1"); err != nil || tag.Gone || tag.Failures != 2 || tag.LastError != "404" {
		t.Errorf("got %+v, %v, want it as it was, not gone", tag, err)
	}
}

func TestLinks(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	dgst := digest.FromString("x")
	link := Link{Repository: "docker.io/library/nginx", Digest: dgst, Asked: true, Created: time.Unix(1e9, 0).UTC()}
	if err := s.PutLink(link); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Link(link.Repository, dgst); err != nil || got != link {
		t.Errorf("link: %+v, %v, want %+v", got, err, link)
	}
	if _, err := s.Link("docker.io/library/other", dgst); !errdefs.IsNotFound(err) {
		t.Errorf("link to another repository: %v, want not found", err)
	}
	if all, err := s.Links(); err != nil || len(all) != 1 {
		t.Errorf("links: %v, %v, want 1", all, err)
	}
	if err := s.DeleteLink(link.Repository, dgst); err != nil {
		t.Error(err)
	}
	if _, err := s.Link(link.Repository, dgst); !errdefs.IsNotFound(err) {
		t.Errorf("deleted link: %v, want not found", err)
	}
}

// TestTouch follows last uses from memory to the index, once a minute and at
// Close.
func TestTouch(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, root)
		data, dgst := blobOf(1, 100)
		absent := digest.FromString("absent")
		const name = "docker.io/library/nginx:1"
		if err := s.Put(t.Context(), dgst, data, Facts{}); err != nil {
			t.Fatal(err)
		}
		if err := s.index.delete(blobsBucket, dgst.String()); err != nil {
			t.Fatal(err)
		}
		if err := s.PutTag(Tag{Name: name}); err != nil {
			t.Fatal(err)
		}
		written := func() (tag Tag, facts Facts) {
			_ = s.index.get(tagsBucket, name, &tag)
			_ = s.index.get(blobsBucket, dgst.String(), &facts)
			return tag, facts
		}
		begin := time.Now()
		s.Touch(name, dgst)
		s.Touch("no such tag", absent)
		s.Touch("", "")
		time.Sleep(30 * time.Second) //nolint:forbidigo // the bubble's clock
		again := time.Now()
		s.Touch(name, "")
		if tag, err := s.Tag(name); err != nil || !tag.Used.Equal(again) {
			t.Errorf("tag used at %v, %v, want %v", tag.Used, err, again)
		}
		if tags, err := s.Tags(); err != nil || !tags[0].Used.Equal(again) {
			t.Errorf("tags: %+v, %v, want used at %v", tags, err, again)
		}
		if tag, facts := written(); !tag.Used.IsZero() || !facts.Used.IsZero() {
			t.Errorf("written within a minute: %v, %v", tag.Used, facts.Used)
		}
		time.Sleep(31 * time.Second) //nolint:forbidigo // the bubble's clock
		synctest.Wait()
		if tag, facts := written(); !tag.Used.Equal(again) || !facts.Used.Equal(begin) || facts.Size != 100 {
			t.Errorf("after a minute: %v, %+v, want %v, %v", tag.Used, facts, again, begin)
		}
		if _, err := s.Tag("no such tag"); !errdefs.IsNotFound(err) {
			t.Errorf("tag that is not there: %v, want that its use makes none", err)
		}
		if _, err := s.Facts(absent); !errdefs.IsNotFound(err) {
			t.Errorf("blob that is not there: %v, want that its use makes none", err)
		}

		// A writer that has an old copy of the tag does not turn it back.
		if err := s.PutTag(Tag{Name: name, Failures: 1}); err != nil {
			t.Fatal(err)
		}
		if tag, _ := written(); !tag.Used.Equal(again) || tag.Failures != 1 {
			t.Errorf("after an update: %+v, want used at %v and 1 failure", tag, again)
		}
		last := time.Now()
		s.Touch(name, dgst)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openStore(t, root)
		if tag, facts := written(); !tag.Used.Equal(last) || !facts.Used.Equal(last) {
			t.Errorf("after a restart: %v, %v, want %v", tag.Used, facts.Used, last)
		}
	})
}

// TestTouchKeepsMeasuredSize: the size that was measured when a blob was
// published is how damage to its file is found. A use must not lose it.
func TestTouchKeepsMeasuredSize(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := openStore(t, root)
	data, dgst := blobOf(7, 100)
	if err := s.Put(t.Context(), dgst, data, Facts{Source: "upstream.test"}); err != nil {
		t.Fatal(err)
	}
	path, err := s.blobPath(dgst)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 10); err != nil {
		t.Fatal(err)
	}
	s.Touch("", dgst)
	s.writeUses()
	if facts, err := s.Facts(dgst); err != nil || facts.Size != 100 || facts.Used.IsZero() {
		t.Errorf("facts after the use of a shrunk file: %+v, %v; want size 100", facts, err)
	}
}
