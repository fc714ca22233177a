package remotes

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/remotes/remotestest"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// pullWithContainerd does what containerd's client does: resolve, then fetch
// into its own content store, from the root down.
func pullWithContainerd(ctx context.Context, r remotes.Resolver, store content.Store, name string) (ocispec.Descriptor, error) {
	name, root, err := r.Resolve(ctx, name)
	if err != nil {
		return root, err
	}
	fetcher, err := r.Fetcher(ctx, name)
	if err != nil {
		return root, err
	}
	handler := images.Handlers(remotes.FetchHandler(store, fetcher), images.ChildrenHandler(store))
	return root, images.Dispatch(ctx, handler, nil, root)
}

func TestResolverPullsWithContainerd(t *testing.T) {
	t.Parallel()
	for name, spec := range map[string]remotestest.ImageSpec{
		"index": multi(), "manifest": {Seed: 8, Layers: []int64{3 << 20}}, "docker": {Seed: 9, Docker: true, Platforms: multi().Platforms},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			img := remotestest.Build(spec)
			b, up := one(t, img, func(s *setup) { s.names = names(t) })
			for i, ref := range []string{
				"docker.io/library/app:1",
				"localhost:5929/docker-hub/library/app:1",
				ecrRegistry + "/docker-hub/library/app:1@" + img.Root.Digest.String(),
			} {
				if i == 1 {
					up.Stop() // the rest is in the store
				}
				store, err := local.NewStore(t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				root, err := pullWithContainerd(soon(t), NewResolver(b.Registry), store, ref)
				if err != nil || root.Digest != img.Root.Digest || root.MediaType != img.Root.MediaType || root.Size != img.Root.Size {
					t.Fatalf("%s: got %+v, %v, want %+v", ref, root, err, img.Root)
				}
				for _, d := range img.Descriptors() {
					if _, err := store.Info(soon(t), d.Digest); err != nil {
						t.Errorf("%s: %s: %v", ref, d.MediaType, err)
					}
				}
			}
			if n := up.Count(http.MethodGet, ""); n != len(img.Descriptors()) {
				t.Errorf("upstream saw %d GETs, want one for each of %d blobs", n, len(img.Descriptors()))
			}
		})
	}
}

func TestResolverErrors(t *testing.T) {
	t.Parallel()
	b, _ := one(t, build(1), func(s *setup) { s.names = names(t) })
	r := NewResolver(b.Registry)
	for name, is := range map[string]func(error) bool{
		"":                              errdefs.IsInvalidArgument,
		"docker.io":                     errdefs.IsInvalidArgument,
		"docker.io/library/app:2":       errdefs.IsNotFound,
		"localhost:5929/no/rule:1":      errdefs.IsNotFound,
		"docker.io/../x:1":              errdefs.IsInvalidArgument,
		"docker.io/library/app:a:b":     errdefs.IsInvalidArgument,
		"docker.io/library/app@sha256:": errdefs.IsInvalidArgument,
	} {
		if _, _, err := r.Resolve(soon(t), name); !is(err) {
			t.Errorf("%q: got %v", name, err)
		}
	}
	if _, _, err := r.Resolve(soon(t), "docker.io/library/app"); !errors.Is(err, reference.ErrObjectRequired) {
		t.Errorf("no tag: got %v, want reference.ErrObjectRequired", err)
	}
	if _, err := r.Fetcher(soon(t), "docker.io/../x:1"); err == nil {
		t.Error("a fetcher for a malformed name")
	}
	if p, err := r.Pusher(soon(t), "docker.io/library/app:1"); p != nil || !errdefs.IsNotImplemented(err) {
		t.Errorf("pusher: got %v, %v, want not implemented", p, err)
	}
	f, err := r.Fetcher(soon(t), "docker.io/library/app:1")
	if err != nil {
		t.Fatal(err)
	}
	for _, mediaType := range []string{ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageManifest} {
		rc, err := f.Fetch(soon(t), ocispec.Descriptor{Digest: emptyDigest, MediaType: mediaType})
		if rc != nil || !errdefs.IsNotFound(err) {
			t.Errorf("%s: got %v, %v, want nil and not found", mediaType, rc, err)
		}
	}
}

func TestFetchByDigest(t *testing.T) {
	t.Parallel()
	img := build(1)
	b, _ := one(t, img)
	f, err := NewResolver(b.Registry).Fetcher(soon(t), "docker.io/library/app:1")
	if err != nil {
		t.Fatal(err)
	}
	byDigest := f.(remotes.FetcherByDigest)
	for _, want := range img.Descriptors() {
		rc, desc, err := byDigest.FetchByDigest(soon(t), want.Digest)
		if err != nil {
			t.Errorf("%s: %v", want.MediaType, err)
			continue
		}
		data, err := io.ReadAll(rc)
		if err != nil || digest.FromBytes(data) != want.Digest || desc.Digest != want.Digest || desc.Size != want.Size {
			t.Errorf("%s: got %+v, %d bytes, %v", want.MediaType, desc, len(data), err)
		}
		if err := rc.Close(); err != nil {
			t.Error(err)
		}
	}
	if rc, _, err := byDigest.FetchByDigest(soon(t), emptyDigest); rc != nil || !errdefs.IsNotFound(err) {
		t.Errorf("unknown digest: got %v, %v, want nil and not found", rc, err)
	}
}
