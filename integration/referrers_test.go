package integration

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/larder-project/larder/remotes/remotestest"
)

// orasRepository is a repository as ORAS's library sees it, over plain HTTP.
func orasRepository(t *testing.T, base, path string) *remote.Repository {
	t.Helper()
	repo, err := remote.NewRepository(strings.TrimPrefix(base, "http://") + "/" + path)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	repo.PlainHTTP, repo.Client = true, &auth.Client{Client: &http.Client{Transport: transport}}
	return repo
}

// attach attaches an artifact with one layer to an image, as `oras attach` does.
func attach(ctx context.Context, repo *remote.Repository, subject ocispec.Descriptor, artifactType string, data []byte) (ocispec.Descriptor, error) {
	layer, err := oras.PushBytes(ctx, repo, "application/octet-stream", data)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return oras.PackManifest(ctx, repo, oras.PackManifestVersion1_1, artifactType, oras.PackManifestOptions{
		Subject: &subject, Layers: []ocispec.Descriptor{layer},
	})
}

// referrersOf lists an image's referrers by ORAS's library.
func referrersOf(t *testing.T, repo *remote.Repository, subject ocispec.Descriptor, artifactType string) (found []ocispec.Descriptor) {
	t.Helper()
	err := repo.Referrers(t.Context(), subject, artifactType, func(page []ocispec.Descriptor) error {
		found = append(found, page...)
		return nil
	})
	if err != nil {
		t.Errorf("referrers of %s: %v", subject.Digest, err)
	}
	return found
}

// What belongs to an image survives its registry: an artifact that ORAS attached
// by the tag schema, since this registry has no referrers endpoint, its own
// signature, and a signature under cosign's tag. All are read through larder by
// ORAS's library.
func TestReferrersOutliveUpstream(t *testing.T) {
	t.Parallel()
	b := newBench(t, "larder", "registry")
	registry, meter := b.registry()
	img := remotestest.Build(remotestest.ImageSpec{Seed: 70, Platforms: []string{"linux/amd64", "linux/arm64"}})
	if err := remotestest.Push(t.Context(), registry.URL, "library/app", "1", img); err != nil {
		t.Fatal(err)
	}
	up := orasRepository(t, registry.URL, "library/app")
	sbomData := []byte(`{"spdxVersion":"SPDX-2.3"}`)
	sbom, err := attach(t.Context(), up, img.Root, "application/spdx+json", sbomData)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := attach(t.Context(), up, sbom, "application/vnd.example.signature", []byte("signed"))
	if err != nil {
		t.Fatal(err)
	}
	cosign := remotestest.SignatureOf(img.Root.Digest, []byte(`{"critical":{}}`))
	sigTag := remotestest.SignatureTag(img.Root.Digest, ".sig")
	if err := remotestest.Push(t.Context(), registry.URL, "library/app", sigTag, cosign); err != nil {
		t.Fatal(err)
	}
	l := b.larder(dockerHub(meter.URL()))

	// A pull by tag, as containerd's; the rest comes behind it.
	get(t, manifestURL(l.URL, "library/app", "1"))
	eventually(t, "the companions are stored", func() bool {
		var shown struct {
			Companions []struct {
				Tag  string
				Tree struct {
					Digest digest.Digest
					Stored bool
				}
			}
		}
		out, err := l.Run(t.Context(), "show", "--json", "docker.io/library/app:1")
		if err != nil || json.Unmarshal([]byte(out), &shown) != nil {
			return false
		}
		stored := map[digest.Digest]bool{}
		for _, c := range shown.Companions {
			stored[c.Tree.Digest] = c.Tree.Stored
		}
		return stored[sbom.Digest] && stored[signature.Digest] && stored[cosign.Root.Digest]
	})
	// Their blobs come last: a pull waits for all.
	var pulled struct {
		Companions int
		Warning    string
	}
	if err := json.Unmarshal([]byte(run(t, l, "pull", "--json", "--platform", "linux/amd64", "app:1")), &pulled); err != nil || pulled.Companions != 3 || pulled.Warning != "" {
		t.Errorf("pull: got %+v, %v, want 3 companions", pulled, err)
	}
	if err := meter.Cut(); err != nil {
		t.Fatal(err)
	}

	mirror := orasRepository(t, l.URL, "docker-hub/library/app")
	root, err := mirror.Resolve(t.Context(), "1")
	if err != nil || root.Digest != img.Root.Digest {
		t.Fatalf("resolve: got %v, %v", root, err)
	}
	if found := referrersOf(t, mirror, root, "application/spdx+json"); len(found) != 1 || found[0].Digest != sbom.Digest || found[0].ArtifactType != "application/spdx+json" {
		t.Errorf("referrers of the image: got %+v, want the SBOM", found)
	}
	if found := referrersOf(t, mirror, root, "application/none"); len(found) != 0 {
		t.Errorf("referrers of another type: got %+v, want none", found)
	}
	if found := referrersOf(t, mirror, sbom, ""); len(found) != 1 || found[0].Digest != signature.Digest {
		t.Errorf("referrers of the SBOM: got %+v, want its signature", found)
	}
	data, err := content.FetchAll(t.Context(), mirror, sbom)
	var m ocispec.Manifest
	if err != nil || json.Unmarshal(data, &m) != nil || len(m.Layers) != 1 {
		t.Fatalf("fetch the SBOM's manifest: %s, %v", data, err)
	}
	if got, err := content.FetchAll(t.Context(), mirror, m.Layers[0]); err != nil || string(got) != string(sbomData) {
		t.Errorf("fetch the SBOM: %q, %v", got, err)
	}
	if desc, err := mirror.Resolve(t.Context(), sigTag); err != nil || desc.Digest != cosign.Root.Digest {
		t.Errorf("resolve %s: got %v, %v", sigTag, desc, err)
	}
	for _, blob := range cosign.Blobs {
		if a := get(t, blobURL(l.URL, "library/app", blob.Descriptor.Digest)); !a.whole(blob.Descriptor.Digest) || a.cache() != "hit" {
			t.Errorf("blob of cosign's signature: got %v, %s", a, a.cache())
		}
	}
	if out := run(t, l, "ls", "-q"); out != "docker.io/library/app:1\n" {
		t.Errorf("ls -q: got\n%swant the image alone", out)
	}
	if out := run(t, l, "ls", "-q", "--all"); !strings.Contains(out, sigTag) {
		t.Errorf("ls -q --all: got\n%swant %s too", out, sigTag)
	}
	run(t, l, "rm", "app:1")
	if out := run(t, l, "ls", "-q", "--all"); out != "" {
		t.Errorf("after rm: %s", out)
	}
}
