package mirror

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/larder-project/larder/remotes"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
)

// noteSeeds is a Seeder that notes what it is told.
type noteSeeds struct {
	mu   sync.Mutex
	told []string
}

func (n *noteSeeds) Seed(_ context.Context, repo remotes.Repository, manifest digest.Digest) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.told = append(n.told, repo.String()+"@"+manifest.String())
}

// TestSeeder: a Seeder is told of each manifest that containerd on this machine is
// told of, however it asks, and of nothing else.
func TestSeeder(t *testing.T) {
	t.Parallel()
	seeds := &noteSeeds{}
	b := newBench(t, func(s *setup) { s.seeder = seeds })
	img := remotestest.Build(remotestest.ImageSpec{Seed: 70})
	b.up.PutImage("library/app", "1", img)
	const base = "/v2/library/app/manifests/"
	dgst := img.Root.Digest.String()
	for _, c := range []struct {
		method, path, agent string
		want                bool
	}{
		{http.MethodHead, base + "1?ns=docker.io", "containerd/v2.4.2", true},
		{http.MethodGet, base + "1?ns=docker.io", "containerd/1.7.35", true},
		{http.MethodHead, base + dgst + "?ns=docker.io", "containerd/v2.1.4-k3s1", true},
		{http.MethodHead, base + "1?ns=docker.io", "curl/8", false},
		{http.MethodHead, base + "none?ns=docker.io", "containerd/v2.4.2", false},
		{http.MethodGet, "/v2/library/app/blobs/" + img.Blobs[0].Descriptor.Digest.String() + "?ns=docker.io", "containerd/v2.4.2", false},
		{http.MethodGet, "/v2/", "containerd/v2.4.2", false},
	} {
		seeds.told = nil
		b.ask(c.method, c.path, "User-Agent", c.agent)
		var want []string
		if c.want {
			want = []string{"docker.io/library/app@" + dgst}
		}
		if !slices.Equal(seeds.told, want) {
			t.Errorf("%s %s by %s: told %v, want %v", c.method, c.path, c.agent, seeds.told, want)
		}
	}
}

// TestSeederOfOtherNode: another node's containerd pulls into a folder of its own.
func TestSeederOfOtherNode(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]bool{"127.0.0.1:5": true, "[::1]:5": true, "10.0.0.7:5": false, "@": false} {
		r := &http.Request{RemoteAddr: addr, Header: http.Header{"User-Agent": {"containerd/v2.4.2"}}}
		if got := isOwnContainerd(r); got != want {
			t.Errorf("%s: %t", addr, got)
		}
	}
}
