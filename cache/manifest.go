package cache

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache/descriptors"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// MaxChildren bounds the descriptors of one manifest, its config among them.
const MaxChildren = descriptors.Max

// Manifest is what larder reads in a manifest or index. The bytes are never
// changed.
type Manifest struct {
	MediaType string
	// Manifests are those of an index, Blobs the config and the layers of a
	// manifest.
	Manifests, Blobs []ocispec.Descriptor
	// Subject is the manifest that it refers to, "" if it refers to none.
	Subject digest.Digest
}

// IsIndex reports whether the manifest lists other manifests.
func (m Manifest) IsIndex() bool { return images.IsIndexType(m.MediaType) }

// Children are all descriptors that the manifest names.
func (m Manifest) Children() []ocispec.Descriptor {
	return append(append([]ocispec.Descriptor(nil), m.Manifests...), m.Blobs...)
}

// ParseManifest reads a manifest. contentType is what upstream called it, ""
// if unknown. A document that says it is one thing and looks like another is
// errdefs.ErrDataLoss (CVE-2021-41190).
func ParseManifest(data []byte, contentType string) (Manifest, error) {
	var doc struct {
		SchemaVersion int              `json:"schemaVersion"`
		MediaType     string           `json:"mediaType"`
		Manifests     descriptors.List `json:"manifests"`
		Config        *descriptors.One `json:"config"`
		Layers        descriptors.List `json:"layers"`
		FSLayers      json.RawMessage  `json:"fsLayers"`
		Subject       *descriptors.One `json:"subject"`
	}
	if err := json.Unmarshal(data, &doc); errdefs.IsDataLoss(err) {
		return Manifest{}, err
	} else if err != nil {
		return Manifest{}, fmt.Errorf("manifest is not JSON: %w: %w", err, errdefs.ErrDataLoss)
	}
	listsManifests := doc.Manifests != nil
	listsLayers := doc.Layers != nil || doc.Config != nil
	if doc.FSLayers != nil || doc.SchemaVersion != 2 {
		return Manifest{}, fmt.Errorf("manifest has schema version %d, want 2: %w", doc.SchemaVersion, errdefs.ErrDataLoss)
	}
	if listsManifests && listsLayers {
		return Manifest{}, fmt.Errorf("manifest lists both manifests and layers: %w", errdefs.ErrDataLoss)
	}
	m := Manifest{MediaType: doc.MediaType, Manifests: doc.Manifests, Blobs: doc.Layers}
	if doc.Config != nil {
		m.Blobs = append([]ocispec.Descriptor{doc.Config.Descriptor}, m.Blobs...)
	}
	if doc.Subject != nil {
		m.Subject = doc.Subject.Digest
	}
	if err := m.settleType(contentType, listsManifests); err != nil {
		return Manifest{}, err
	}
	return m, m.checkChildren()
}

// IsManifestMediaType reports whether it is that of a manifest or an index.
func IsManifestMediaType(mt string) bool { return images.IsManifestType(mt) || images.IsIndexType(mt) }

// settleType decides the media type: the document's own word, else
// upstream's, else what it looks like. They may not contradict each other.
func (m *Manifest) settleType(contentType string, looksLikeIndex bool) error {
	contentType = strings.TrimSpace(contentType)
	if !IsManifestMediaType(contentType) {
		contentType = "" // application/json and the like say nothing
	}
	if m.MediaType != "" && contentType != "" && m.MediaType != contentType {
		return fmt.Errorf("manifest calls itself %.80q, upstream calls it %q: %w", m.MediaType, contentType, errdefs.ErrDataLoss)
	}
	if m.MediaType == "" {
		m.MediaType = contentType
	}
	if m.MediaType == "" {
		m.MediaType = ocispec.MediaTypeImageManifest
		if looksLikeIndex {
			m.MediaType = ocispec.MediaTypeImageIndex
		}
	}
	if !IsManifestMediaType(m.MediaType) {
		return fmt.Errorf("media type %.80q is no image manifest or index: %w", m.MediaType, errdefs.ErrDataLoss)
	}
	if m.IsIndex() != looksLikeIndex {
		return fmt.Errorf("manifest of type %s has the content of another: %w", m.MediaType, errdefs.ErrDataLoss)
	}
	return nil
}

func (m Manifest) checkChildren() error {
	children := m.Children()
	if len(children) > MaxChildren {
		return fmt.Errorf("manifest names %d blobs, at most %d are taken: %w", len(children), MaxChildren, errdefs.ErrDataLoss)
	}
	for _, d := range children {
		if err := CheckDescriptor(d); err != nil {
			return err
		}
	}
	return nil
}

// CheckDescriptor refuses a descriptor that no manifest may hold.
func CheckDescriptor(d ocispec.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("manifest names digest %.100q: %w: %w", d.Digest, err, errdefs.ErrDataLoss)
	}
	if d.Size < 0 {
		return fmt.Errorf("manifest names %s with size %d: %w", d.Digest, d.Size, errdefs.ErrDataLoss)
	}
	return nil
}

// Describe makes the descriptor of a manifest's bytes.
func (m Manifest) Describe(dgst digest.Digest, data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: m.MediaType, Digest: dgst, Size: int64(len(data))}
}
