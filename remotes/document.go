package remotes

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxChildren bounds the descriptors of one manifest. 4 MiB hold about
// twenty thousand.
const maxChildren = 10_000

// manifest is what larder reads in a manifest or index. The bytes are never
// changed.
type manifest struct {
	mediaType string
	manifests []ocispec.Descriptor // of an index
	blobs     []ocispec.Descriptor // config and layers of a manifest
	subject   digest.Digest        // what it refers to, "" if nothing
}

// isIndex reports whether the manifest lists other manifests.
func (m manifest) isIndex() bool { return images.IsIndexType(m.mediaType) }

// children are all descriptors that the manifest names.
func (m manifest) children() []ocispec.Descriptor {
	return append(append([]ocispec.Descriptor(nil), m.manifests...), m.blobs...)
}

// parseManifest reads a manifest. contentType is what upstream called it, ""
// if unknown. A document that says it is one thing and looks like another is
// errdefs.ErrDataLoss (CVE-2021-41190).
func parseManifest(data []byte, contentType string) (manifest, error) {
	var doc struct {
		SchemaVersion int                  `json:"schemaVersion"`
		MediaType     string               `json:"mediaType"`
		Manifests     []ocispec.Descriptor `json:"manifests"`
		Config        *ocispec.Descriptor  `json:"config"`
		Layers        []ocispec.Descriptor `json:"layers"`
		FSLayers      json.RawMessage      `json:"fsLayers"`
		Subject       *ocispec.Descriptor  `json:"subject"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return manifest{}, fmt.Errorf("manifest is not JSON: %w: %w", err, errdefs.ErrDataLoss)
	}
	listsManifests := doc.Manifests != nil
	listsLayers := doc.Layers != nil || doc.Config != nil
	if doc.FSLayers != nil || doc.SchemaVersion != 2 {
		return manifest{}, fmt.Errorf("manifest has schema version %d, want 2: %w", doc.SchemaVersion, errdefs.ErrDataLoss)
	}
	if listsManifests && listsLayers {
		return manifest{}, fmt.Errorf("manifest lists both manifests and layers: %w", errdefs.ErrDataLoss)
	}
	m := manifest{mediaType: doc.MediaType, manifests: doc.Manifests, blobs: doc.Layers}
	if doc.Config != nil {
		m.blobs = append([]ocispec.Descriptor{*doc.Config}, m.blobs...)
	}
	if doc.Subject != nil {
		m.subject = doc.Subject.Digest
	}
	if err := m.settleType(contentType, listsManifests); err != nil {
		return manifest{}, err
	}
	return m, m.checkChildren()
}

func isManifestMediaType(mt string) bool { return images.IsManifestType(mt) || images.IsIndexType(mt) }

// settleType decides the media type: the document's own word, else
// upstream's, else what it looks like. They may not contradict each other.
func (m *manifest) settleType(contentType string, looksLikeIndex bool) error {
	contentType = strings.TrimSpace(contentType)
	if !isManifestMediaType(contentType) {
		contentType = "" // application/json and the like say nothing
	}
	if m.mediaType != "" && contentType != "" && m.mediaType != contentType {
		return fmt.Errorf("manifest calls itself %.80q, upstream calls it %q: %w", m.mediaType, contentType, errdefs.ErrDataLoss)
	}
	if m.mediaType == "" {
		m.mediaType = contentType
	}
	if m.mediaType == "" {
		m.mediaType = ocispec.MediaTypeImageManifest
		if looksLikeIndex {
			m.mediaType = ocispec.MediaTypeImageIndex
		}
	}
	if !isManifestMediaType(m.mediaType) {
		return fmt.Errorf("media type %.80q is no image manifest or index: %w", m.mediaType, errdefs.ErrDataLoss)
	}
	if m.isIndex() != looksLikeIndex {
		return fmt.Errorf("manifest of type %s has the content of another: %w", m.mediaType, errdefs.ErrDataLoss)
	}
	return nil
}

func (m manifest) checkChildren() error {
	children := m.children()
	if len(children) > maxChildren {
		return fmt.Errorf("manifest names %d blobs, at most %d are taken: %w", len(children), maxChildren, errdefs.ErrDataLoss)
	}
	for _, d := range children {
		if err := checkDescriptor(d); err != nil {
			return err
		}
	}
	return nil
}

func checkDescriptor(d ocispec.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("manifest names digest %.100q: %w: %w", d.Digest, err, errdefs.ErrDataLoss)
	}
	if d.Size < 0 {
		return fmt.Errorf("manifest names %s with size %d: %w", d.Digest, d.Size, errdefs.ErrDataLoss)
	}
	return nil
}

// describe makes the descriptor of a manifest's bytes.
func (m manifest) describe(dgst digest.Digest, data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: m.mediaType, Digest: dgst, Size: int64(len(data))}
}

// configPlatform reads the platform that an image's config names.
func (r *Registry) configPlatform(config ocispec.Descriptor) (string, error) {
	data, err := r.readManifest(config.Digest) // bounded and checked like one
	if err != nil {
		return "", err
	}
	var p ocispec.Platform
	if err := json.Unmarshal(data, &p); err != nil || p.OS == "" {
		return "", fmt.Errorf("config %s names no platform: %w", config.Digest, errdefs.ErrNotFound)
	}
	return platforms.FormatAll(p), nil
}
