package parts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxManifest bounds what is read of a manifest, as registries do.
const maxManifest = 4 << 20

// errStatus tells that a registry answered with a status that was not wanted.
var errStatus = errors.New("unexpected status")

// DeleteImage deletes the image reference of repo from the registry at base:
// the manifest or index, the manifests it lists, and all their blobs. What is
// gone already is no error.
func DeleteImage(ctx context.Context, base, repo, reference string) error {
	body, dgst, err := manifest(ctx, base, repo, reference)
	if err != nil {
		return fmt.Errorf("delete %s of %s: %w", reference, repo, err)
	}
	var m struct {
		Manifests []ocispec.Descriptor
		Config    *ocispec.Descriptor
		Layers    []ocispec.Descriptor
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return fmt.Errorf("delete %s of %s: manifest: %w", reference, repo, err)
	}
	errs := []error{remove(ctx, base, repo, "manifests", dgst)}
	for _, child := range m.Manifests {
		errs = append(errs, DeleteImage(ctx, base, repo, child.Digest.String()))
	}
	if m.Config != nil {
		errs = append(errs, remove(ctx, base, repo, "blobs", m.Config.Digest))
	}
	for _, layer := range m.Layers {
		errs = append(errs, remove(ctx, base, repo, "blobs", layer.Digest))
	}
	return errors.Join(errs...)
}

func manifest(ctx context.Context, base, repo, reference string) ([]byte, digest.Digest, error) {
	url := fmt.Sprintf("%s/v2/%s/manifests/%s", base, repo, reference)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Accept", strings.Join([]string{
		ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest,
		"application/vnd.docker.distribution.manifest.list.v2+json",
		"application/vnd.docker.distribution.manifest.v2+json",
	}, ", "))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, "", fmt.Errorf("GET %s: %s: %w", url, resp.Status, errStatus)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest))
	return body, digest.FromBytes(body), err
}

func remove(ctx context.Context, base, repo, kind string, dgst digest.Digest) error {
	url := fmt.Sprintf("%s/v2/%s/%s/%s", base, repo, kind, dgst)
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted && resp.StatusCode != http.StatusNotFound {
		return fmt.Errorf("DELETE %s: %s: %w", url, resp.Status, errStatus)
	}
	return nil
}
