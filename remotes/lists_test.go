package remotes

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
)

func TestTags(t *testing.T) {
	t.Parallel()
	img := build(1)
	b, up := one(t, img)
	for _, tag := range []string{"a", "b", "c"} {
		up.PutImage("library/app", tag, img)
	}
	for _, c := range []struct {
		n    int
		last string
		want []string
		more bool
	}{
		{0, "", []string{"1", "a", "b", "c"}, false},
		{2, "", []string{"1", "a"}, true},
		{2, "a", []string{"b", "c"}, false},
		{9, "c", nil, false},
		{1, "aa", []string{"b"}, true},
	} {
		for _, outcome := range []Outcome{Miss, Stale} {
			if outcome == Stale { // upstream is gone: the same from the store
				for _, tag := range []string{"1", "a", "b", "c"} {
					if _, err := b.Resolve(soon(t), app(t, tag)); err != nil {
						t.Fatal(err)
					}
				}
				up.Stop()
			}
			got, err := b.Tags(soon(t), appRepo(), c.n, c.last)
			if err != nil || !slices.Equal(got.Tags, c.want) || got.More != c.more || got.Outcome != outcome {
				t.Errorf("n=%d last=%q: got %+v, %v, want %v, more %t, %s", c.n, c.last, got, err, c.want, c.more, outcome)
			}
		}
		up.Start()
	}
}

// An upstream that does not know of pages is cut to them.
func TestTagsOfUpstreamWithoutPages(t *testing.T) {
	t.Parallel()
	b, up := one(t, build(1))
	up.Fault(remotestest.Tags(), remotestest.Status(http.StatusOK, nil, `{"name":"library/app","tags":["a","b","c"]}`))
	if got, err := b.Tags(soon(t), appRepo(), 2, ""); err != nil || fmt.Sprint(got.Tags) != "[a b]" || !got.More {
		t.Errorf("got %+v, %v, want two tags and more", got, err)
	}
}

func TestListErrors(t *testing.T) {
	t.Parallel()
	b, up := one(t, build(1))
	unknown := Repository{Host: DockerHub, Path: "no/such"}
	if got, err := b.Tags(soon(t), unknown, 0, ""); !errdefs.IsNotFound(err) {
		t.Errorf("tags: got %+v, %v, want not found", got, err)
	}
	up.Stop()
	if got, err := b.Tags(soon(t), appRepo(), 0, ""); !errdefs.IsUnavailable(err) {
		t.Errorf("tags without upstream and store: got %+v, %v, want unavailable", got, err)
	}
	if got, err := b.Referrers(soon(t), appRepo(), emptyDigest, ""); !errdefs.IsUnavailable(err) {
		t.Errorf("referrers: got %+v, %v, want unavailable", got, err)
	}
}

// TestStoredTagsAreTheRepositorys: the list without upstream has what is stored
// of this repository, cosign's tags included, and of no other.
func TestStoredTagsAreTheRepositorys(t *testing.T) {
	t.Parallel()
	up := remotestest.New(t)
	c := putCompanion(up, 1)
	up.PutImage("library/app-more", "other", c.img)
	b := newBench(t, []*remotestest.Registry{up}, withCompanions)
	other := Reference{Repository: Repository{Host: DockerHub, Path: "library/app-more"}, Tag: "other"}
	for _, ref := range []Reference{other, app(t, "1")} {
		if _, err := b.Pull(soon(t), ref, PullOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	up.Stop()
	want := []string{"1", remotestest.SignatureTag(c.img.Root.Digest, ".att"), remotestest.SignatureTag(c.img.Root.Digest, ".sig")}
	if got, err := b.Tags(soon(t), appRepo(), 0, ""); err != nil || !slices.Equal(got.Tags, want) || got.Outcome != Stale {
		t.Errorf("got %+v, %v, want %v", got, err, want)
	}
}
