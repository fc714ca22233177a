package cache

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// putManifest stores a manifest that names blobs, or an index that names
// manifests, as a pull does.
func putManifest(t testing.TB, s *Store, mark string, mediaType string, named ...digest.Digest) digest.Digest {
	t.Helper()
	descs := []ocispec.Descriptor{}
	for _, dgst := range named {
		desc := ocispec.Descriptor{Digest: dgst, Size: 1, MediaType: ocispec.MediaTypeImageLayer}
		if mediaType == ocispec.MediaTypeImageIndex {
			desc.MediaType = ocispec.MediaTypeImageManifest
		}
		descs = append(descs, desc)
	}
	var doc any = ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType, Config: ocispec.Descriptor{Digest: digest.FromString("no config"), Size: 1},
		Layers: descs, Annotations: map[string]string{"mark": mark},
	}
	if mediaType == ocispec.MediaTypeImageIndex {
		doc = ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType, Manifests: descs, Annotations: map[string]string{"mark": mark}}
	}
	data, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	m, err := ParseManifest(data, mediaType)
	if err != nil {
		t.Fatal(err)
	}
	dgst := digest.FromBytes(data)
	if err := s.Put(t.Context(), dgst, data, Facts{MediaType: mediaType, Source: "https://upstream.test"}); err != nil {
		t.Fatal(err)
	}
	if err := s.NoteManifest(dgst, m); err != nil {
		t.Fatal(err)
	}
	return dgst
}

// image is a stored image.
type image struct {
	name   string
	root   digest.Digest
	layers []digest.Digest
}

func (i image) blobs() []digest.Digest { return append([]digest.Digest{i.root}, i.layers...) }

const testRepo = "registry.test/app"

// putImage stores an image under a tag of testRepo, used at the given time. Its
// layers have the given seeds and 10,000 bytes each.
func putImage(t testing.TB, s *Store, tag string, used time.Time, seeds ...uint64) image {
	t.Helper()
	img := image{name: testRepo + ":" + tag}
	for _, seed := range seeds {
		data, dgst := blobOf(seed, 10_000)
		if err := s.Put(t.Context(), dgst, data, Facts{Source: "https://upstream.test", Used: used}); err != nil {
			t.Fatal(err)
		}
		img.layers = append(img.layers, dgst)
	}
	img.root = putManifest(t, s, tag, ocispec.MediaTypeImageManifest, img.layers...)
	if err := s.PutFound(Link{Repository: testRepo, Digest: img.root, Created: used}); err != nil {
		t.Fatal(err)
	}
	putTag(t, s, img.name, img.root, used)
	return img
}

func putTag(t testing.TB, s *Store, name string, target digest.Digest, used time.Time) {
	t.Helper()
	err := s.PutTag(Tag{
		Name: name, Target: ocispec.Descriptor{Digest: target, MediaType: ocispec.MediaTypeImageManifest, Size: 1},
		Source: "https://upstream.test", Created: used, Moved: used, Validated: used, Used: used,
	})
	if err != nil {
		t.Fatal(err)
	}
}
