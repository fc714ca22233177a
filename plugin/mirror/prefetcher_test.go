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
	if m.Data != nil && int64(len(m.Data)) != m.Descriptor.Size {
		n.told = append(n.told, "without its bytes")
	}
}

// take returns what was told since the last call.
func (n *notePrefetches) take() (told []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	told, n.told = n.told, nil
	return told
}

// TestPrefetcher: a Prefetcher is told of each manifest that is answered to a GET,
// with its bytes, and of nothing else: by HEAD one finds out what a tag is. A client that
// reads the store itself asks for no more than that.
func TestPrefetcher(t *testing.T) {
	t.Parallel()
	for name, shared := range map[string]bool{"alone": false, "shared": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tellPrefetcher(t, shared)
		})
	}
}

func tellPrefetcher(t *testing.T, shared bool) {
	t.Helper()
	prefetches := &notePrefetches{}
	b := newBench(t, func(s *setup) { s.prefetcher, s.sharedStore = prefetches, shared })
	img := remotestest.Build(remotestest.ImageSpec{Seed: 71})
	b.up.PutImage("library/app", "1", img)
	const base = "/v2/library/app/manifests/"
	dgst := img.Root.Digest.String()
	for _, c := range []struct {
		method, path string
		want         bool
	}{
		{http.MethodHead, base + "1?ns=docker.io", shared},
		{http.MethodHead, base + dgst + "?ns=docker.io", shared},
		{http.MethodGet, base + dgst + "?ns=docker.io", true},
		{http.MethodGet, base + "1?ns=docker.io", true},
		{http.MethodGet, base + "none?ns=docker.io", false},
		{http.MethodGet, "/v2/library/app/blobs/" + img.Blobs[0].Descriptor.Digest.String() + "?ns=docker.io", false},
	} {
		b.ask(c.method, c.path)
		var want []string
		if c.want {
			want = []string{"docker.io/library/app@" + dgst}
		}
		if told := prefetches.take(); !slices.Equal(told, want) {
			t.Errorf("%s %s: told %v, want %v", c.method, c.path, told, want)
		}
	}
}
