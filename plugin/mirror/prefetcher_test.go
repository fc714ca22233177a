package mirror

import (
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/larder-project/larder/remotes"
	"github.com/larder-project/larder/remotes/remotestest"
)

// notePrefetches is a Prefetcher that notes what it is told.
type notePrefetches struct {
	mu   sync.Mutex
	told []string
}

func (n *notePrefetches) ExpectPull(repo remotes.Repository, m remotes.Manifest) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.told = append(n.told, repo.String()+"@"+m.Descriptor.Digest.String())
	if int64(len(m.Data)) != m.Descriptor.Size {
		n.told = append(n.told, "without its bytes")
	}
}

// TestPrefetcher: a Prefetcher is told of each manifest that is answered to a GET,
// with its bytes, and of nothing else: by HEAD one finds out what a tag is.
func TestPrefetcher(t *testing.T) {
	t.Parallel()
	prefetches := &notePrefetches{}
	b := newBench(t, func(s *setup) { s.prefetcher = prefetches })
	img := remotestest.Build(remotestest.ImageSpec{Seed: 71})
	b.up.PutImage("library/app", "1", img)
	const base = "/v2/library/app/manifests/"
	dgst := img.Root.Digest.String()
	for _, c := range []struct {
		method, path string
		want         bool
	}{
		{http.MethodHead, base + "1?ns=docker.io", false},
		{http.MethodHead, base + dgst + "?ns=docker.io", false},
		{http.MethodGet, base + dgst + "?ns=docker.io", true},
		{http.MethodGet, base + "1?ns=docker.io", true},
		{http.MethodGet, base + "none?ns=docker.io", false},
		{http.MethodGet, "/v2/library/app/blobs/" + img.Blobs[0].Descriptor.Digest.String() + "?ns=docker.io", false},
	} {
		prefetches.told = nil
		b.ask(c.method, c.path)
		var want []string
		if c.want {
			want = []string{"docker.io/library/app@" + dgst}
		}
		if !slices.Equal(prefetches.told, want) {
			t.Errorf("%s %s: told %v, want %v", c.method, c.path, prefetches.told, want)
		}
	}
}
