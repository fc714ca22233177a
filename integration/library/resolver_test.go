// Package library tests larder as a library: a Go program that pulls through
// remotes.Resolver, without a daemon or a mirror.
package library

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"

	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/integration/internal/parts"
	"github.com/larder-project/larder/remotes"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/larder-project/larder/remotes/upstream"
)

// newRegistry wires larder as a program would that has it for a library, with
// one registry behind docker.io.
func newRegistry(t *testing.T, dir, upstreamURL string, opts ...cache.Option) *remotes.Registry {
	t.Helper()
	store, err := cache.Open(filepath.Join(dir, "store"), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	ep, err := upstream.ParseEndpoint(upstreamURL)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := upstream.NewPool(upstream.Options{Named: []upstream.Endpoint{ep}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	rules, err := remotes.NewRules(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	routes, err := remotes.NewRoutes(map[string][]upstream.Endpoint{remotes.DockerHub: {ep}})
	if err != nil {
		t.Fatal(err)
	}
	return remotes.NewRegistry(remotes.Config{
		Store: store, Pool: pool, Routes: routes, Freshness: remotes.DefaultFreshness(), Logger: slog.New(slog.DiscardHandler),
		Names: remotes.Names{Rules: rules, Own: map[string]bool{"localhost": true}},
	})
}

// TestClientPull pulls with containerd's own client, from a registry and then
// without one.
func TestClientPull(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("containerd needs root")
	}
	bin, err := parts.FindBin()
	if err != nil {
		t.Fatal(err)
	}
	if err := bin.Need("containerd"); err != nil {
		t.Fatal(err)
	}
	dir, err := parts.TempDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	ctrd, err := parts.StartContainerd(t.Context(), bin, dir, parts.ContainerdOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ctrd.Close(); err != nil {
			t.Error(err)
		}
	})
	client, err := containerd.New(ctrd.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })

	registry := remotestest.New(t)
	want := registry.PutImage("library/app", "1", remotestest.Build(remotestest.ImageSpec{
		Seed: 3, Layers: []int64{5 << 20, 70_000}, Platforms: []string{"linux/amd64", "linux/arm64"},
	}))
	resolver := remotes.NewResolver(newRegistry(t, dir, registry.URL()))
	ctx := namespaces.WithNamespace(t.Context(), "default")
	pull := func(name string) {
		t.Helper()
		img, err := client.Pull(ctx, name, containerd.WithResolver(resolver), containerd.WithPullUnpack)
		if err != nil {
			t.Fatalf("pull %s: %v", name, err)
		}
		if img.Name() != name || img.Target().Digest != want.Digest {
			t.Errorf("pulled %s as %s, want %s as %s", img.Target().Digest, img.Name(), want.Digest, name)
		}
		if err := ctrd.Forget(t.Context(), "default"); err != nil {
			t.Fatal(err)
		}
	}
	pull("docker.io/library/app:1")
	registry.Stop()
	pull("docker.io/library/app:1")
	pull("localhost/docker-hub/library/app:1")
	pull("docker.io/library/app@" + want.Digest.String())
	registry.Start()

	if _, err := resolver.Pusher(ctx, "docker.io/library/app:1"); !errdefs.IsNotImplemented(err) {
		t.Errorf("Pusher: %v, want not implemented", err)
	}
}
