package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// aboutManifest is the purpose of asking for a manifest; which is ":tag" or "@digest".
func aboutManifest(op, repository, which string) purpose {
	return purpose{op: op, object: repository + which, repository: repository, accept: manifestTypes(), limit: MaxManifestSize}
}

// Resolve asks what a tag points to, by HEAD. The descriptor is upstream's
// word, its size at most MaxManifestSize.
func (c *Client) Resolve(ctx context.Context, repository, tag string) (ocispec.Descriptor, error) {
	p := aboutManifest("resolve", repository, ":"+tag)
	var desc ocispec.Descriptor
	err := c.exchange(ctx, p, func(ctx context.Context, x *exchange) (err error) {
		_, desc, err = x.resolver.Resolve(ctx, c.name(repository)+":"+tag)
		return err
	})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return desc, nil
}

// Manifest fetches a manifest or index by digest and checks it. contentType
// is what upstream called it, in lower case and without parameters.
func (c *Client) Manifest(ctx context.Context, repository string, dgst digest.Digest) (data []byte, contentType string, err error) {
	p := aboutManifest("fetch manifest", repository, "@"+dgst.String())
	if err := c.checkDigest(p, dgst); err != nil {
		return nil, "", err
	}
	err = c.exchange(ctx, p, func(ctx context.Context, x *exchange) (err error) {
		data, err = x.manifest(ctx, dgst)
		contentType = x.contentType
		return err
	})
	if err != nil {
		return nil, "", err
	}
	return data, contentType, nil
}

// ManifestByTag fetches what a tag points to by one GET: who has nothing of a
// repository would ask for it right behind Resolve. The digest is upstream's
// word, which the bytes have to match, or SHA-256 where upstream has none with a
// body: the distribution specification says no more than SHOULD, and ECR had none.
// Where the bytes are others, or fewer, those with that digest are asked for.
func (c *Client) ManifestByTag(ctx context.Context, repository, tag string) (data []byte, dgst digest.Digest, contentType string, err error) {
	p := aboutManifest("fetch manifest", repository, ":"+tag)
	err = c.exchange(ctx, p, func(ctx context.Context, x *exchange) (err error) {
		data, dgst, err = x.manifestByTag(ctx, tag)
		contentType = x.contentType
		return err
	})
	if err != nil {
		return nil, "", "", err
	}
	return data, dgst, contentType, nil
}

func (x *exchange) manifestByTag(ctx context.Context, tag string) ([]byte, digest.Digest, error) {
	resp, err := x.do(ctx, ask{method: http.MethodGet, path: x.client.path(x.repository), what: "manifests/" + tag})
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	dgst, err := namedDigest(resp.Header)
	if err != nil {
		return nil, "", err
	}
	data, err := io.ReadAll(resp.Body)
	switch {
	case dgst == "":
		return data, digest.FromBytes(data), err
	case err == nil && matches(data, dgst) == nil:
		return data, dgst, nil
	case err == nil || isCut(err): // other bytes than announced, or fewer
		data, err = x.manifest(ctx, dgst) // by containerd's client, which goes on where it is cut again
	}
	return data, dgst, err
}

// manifest fetches a manifest by its digest.
func (x *exchange) manifest(ctx context.Context, dgst digest.Digest) ([]byte, error) {
	// The media type only tells containerd's client which endpoint to
	// ask; the exchange sends Accept for all of them.
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: dgst, Size: MaxManifestSize}
	body, err := x.fetch(ctx, x.client.name(x.repository), desc)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	return data, matches(data, dgst)
}

// isCut reports whether a body ended for no reason of larder's own.
func isCut(err error) bool {
	_, stalled := errors.AsType[*transportError](err)
	return !stalled && !errdefs.IsDataLoss(err)
}

// namedDigest is the digest that upstream says its answer has, "" if it says none.
func namedDigest(h http.Header) (digest.Digest, error) {
	named := h.Get("Docker-Content-Digest")
	if named == "" {
		return "", nil
	}
	dgst, err := digest.Parse(named)
	if err != nil {
		return "", fmt.Errorf("Docker-Content-Digest %q: %v: %w", oneLine(named), err, errdefs.ErrDataLoss) //nolint:errorlint // upstream's word, and not an argument
	}
	return dgst, nil
}

// matches reports bytes that do not have the digest.
func matches(data []byte, dgst digest.Digest) error {
	if got := dgst.Algorithm().FromBytes(data); got != dgst {
		return fmt.Errorf("%d bytes with digest %s, not %s: %w", len(data), got, dgst, errdefs.ErrDataLoss)
	}
	return nil
}
