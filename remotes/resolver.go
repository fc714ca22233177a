package remotes

import (
	"context"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Resolver is containerd's remotes.Resolver over a Registry, so that a Go
// program pulls through larder without a mirror:
//
//	client.Pull(ctx, "docker.io/library/nginx:1.29", containerd.WithResolver(remotes.NewResolver(registry)))
type Resolver struct {
	registry *Registry
}

var (
	_ remotes.Resolver        = Resolver{}
	_ remotes.FetcherByDigest = fetcher{}
)

// NewResolver makes a Resolver.
func NewResolver(r *Registry) Resolver { return Resolver{registry: r} }

// Resolve returns the descriptor of a reference. The name is returned as it
// is: larder does not rename images.
func (r Resolver) Resolve(ctx context.Context, name string) (string, ocispec.Descriptor, error) {
	repo, object, err := r.parse(name)
	if err != nil {
		return "", ocispec.Descriptor{}, err
	}
	if object == "" {
		return "", ocispec.Descriptor{}, fmt.Errorf("reference %q: %w", name, reference.ErrObjectRequired)
	}
	ref, err := repo.WithObject(object)
	if err != nil {
		return "", ocispec.Descriptor{}, err
	}
	res, err := r.registry.Resolve(ctx, ref)
	if err != nil {
		return "", ocispec.Descriptor{}, err
	}
	return name, res.Descriptor, nil
}

// parse reads a reference as containerd writes it: always with a host, and
// with an object that may be tag@digest, of which the digest counts.
func (r Resolver) parse(name string) (Repository, string, error) {
	spec, err := reference.Parse(name)
	if err != nil {
		return Repository{}, "", fmt.Errorf("reference %q: %w: %w", name, err, errdefs.ErrInvalidArgument)
	}
	host := spec.Hostname()
	if len(spec.Locator) <= len(host)+1 {
		return Repository{}, "", fmt.Errorf("reference %q names no repository: %w", name, errdefs.ErrInvalidArgument)
	}
	repo, err := r.registry.Names.Map(host, spec.Locator[len(host)+1:])
	object := spec.Object
	if dgst := spec.Digest(); dgst != "" {
		object = dgst.String()
	}
	return repo, object, err
}

// Fetcher returns a fetcher for the repository of a reference. It also
// implements remotes.FetcherByDigest.
func (r Resolver) Fetcher(_ context.Context, name string) (remotes.Fetcher, error) {
	repo, _, err := r.parse(name)
	if err != nil {
		return nil, err
	}
	return fetcher{registry: r.registry, repo: repo}, nil
}

// Pusher returns errdefs.ErrNotImplemented: larder is read-only.
func (r Resolver) Pusher(context.Context, string) (remotes.Pusher, error) {
	return nil, fmt.Errorf("larder does not push: %w", errdefs.ErrNotImplemented)
}

// fetcher fetches from one repository.
type fetcher struct {
	registry *Registry
	repo     Repository
}

// Fetch opens what a descriptor describes. Only its digest and media type
// count; its URLs are not followed.
func (f fetcher) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if cache.IsManifestMediaType(desc.MediaType) {
		// Into the store first; then it is a blob like any other.
		if _, err := f.registry.Manifest(ctx, Reference{Repository: f.repo, Digest: desc.Digest}); err != nil {
			return nil, err
		}
	}
	blob, err := f.registry.Blob(ctx, ctx, f.repo, desc.Digest)
	if err != nil {
		return nil, err // not blob: a nil *Blob in an interface is not nil
	}
	return blob, nil
}

// FetchByDigest opens a manifest or blob of which nothing but the digest is
// known.
func (f fetcher) FetchByDigest(ctx context.Context, dgst digest.Digest, _ ...remotes.FetchByDigestOpts) (io.ReadCloser, ocispec.Descriptor, error) {
	blob, err := f.registry.Blob(ctx, ctx, f.repo, dgst)
	if errdefs.IsNotFound(err) {
		if _, merr := f.registry.Manifest(ctx, Reference{Repository: f.repo, Digest: dgst}); merr == nil {
			blob, err = f.registry.Blob(ctx, ctx, f.repo, dgst)
		}
	}
	if err != nil {
		return nil, ocispec.Descriptor{}, err
	}
	return blob, ocispec.Descriptor{MediaType: "application/octet-stream", Digest: dgst, Size: blob.Size}, nil
}
