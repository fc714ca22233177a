package remotestest

import (
	"encoding/json"
	"maps"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// manifest is a stored manifest or index with what the referrers list needs.
type manifest struct {
	mediaType string
	data      []byte
	subject   digest.Digest      // "" without a subject
	listed    ocispec.Descriptor // how the referrers list shows it
}

// PutBlob stores b under its sha256 digest. The registry keeps b: do not write
// to it afterwards.
func (r *Registry) PutBlob(repo string, b []byte) ocispec.Descriptor {
	desc := ocispec.Descriptor{
		MediaType: "application/octet-stream",
		Digest:    digest.FromBytes(b),
		Size:      int64(len(b)),
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.repo(repo).blobs[desc.Digest] = b
	return desc
}

// PutManifest stores b, which may be any bytes, as a manifest of the given
// media type, under its sha256 digest and under tag unless that is "". A tag
// that exists is moved. The registry keeps b: do not write to it afterwards.
func (r *Registry) PutManifest(repo, tag string, mediaType string, b []byte) ocispec.Descriptor {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	m := manifest{mediaType: mediaType, data: b, listed: desc}
	var parsed ocispec.Manifest
	if json.Unmarshal(b, &parsed) == nil && parsed.Subject != nil {
		m.subject = parsed.Subject.Digest
		m.listed.Annotations = parsed.Annotations
		m.listed.ArtifactType = parsed.ArtifactType
		if m.listed.ArtifactType == "" {
			m.listed.ArtifactType = parsed.Config.MediaType
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	to := r.repo(repo)
	to.manifests[desc.Digest] = m
	if tag != "" {
		to.tags[tag] = desc.Digest
	}
	return desc
}

// PutImage stores all blobs and manifests of img and returns its root, which
// tag points to unless tag is "".
func (r *Registry) PutImage(repo, tag string, img Image) ocispec.Descriptor {
	for _, b := range img.Blobs {
		r.PutBlob(repo, b.Data)
	}
	for _, m := range img.Manifests {
		name := ""
		if m.Descriptor.Digest == img.Root.Digest {
			name = tag
		}
		r.PutManifest(repo, name, m.Descriptor.MediaType, m.Data)
	}
	return img.Root
}

// PutReferrer stores an artifact manifest of artifactType whose subject is the
// given descriptor, with the empty config and the layers, or one empty layer.
// It is listed under /referrers/ of the subject, which need not exist, or under
// the subject's tag: see WithoutReferrers.
func (r *Registry) PutReferrer(repo string, subject ocispec.Descriptor, artifactType string, layers ...[]byte) ocispec.Descriptor {
	empty := ocispec.DescriptorEmptyJSON
	r.PutBlob(repo, empty.Data)
	empty.Data = nil
	var descs []ocispec.Descriptor
	for _, data := range layers {
		descs = append(descs, r.PutBlob(repo, data))
	}
	if len(descs) == 0 {
		descs = []ocispec.Descriptor{empty}
	}
	desc := r.PutManifest(repo, "", ocispec.MediaTypeImageManifest, encode(ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: artifactType,
		Config:       empty,
		Layers:       descs,
		Subject: &ocispec.Descriptor{
			MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size,
		},
	}))
	if r.set.noReferrers {
		tag := subject.Digest.Algorithm().String() + "-" + subject.Digest.Encoded()
		r.PutManifest(repo, tag, ocispec.MediaTypeImageIndex, referrersIndex(r.referrers(repo, subject.Digest, "")))
	}
	return desc
}

// PutSignature stores a manifest with one layer as cosign does: under a tag
// made of the subject's digest and a suffix, as in ".sig".
func (r *Registry) PutSignature(repo string, subject digest.Digest, suffix string, layer []byte) ocispec.Descriptor {
	img := SignatureOf(subject, layer)
	return r.PutImage(repo, SignatureTag(subject, suffix), img)
}

// SignatureTag is cosign's tag for what belongs to a digest: sha256-<hex>.sig.
func SignatureTag(subject digest.Digest, suffix string) string {
	return subject.Algorithm().String() + "-" + subject.Encoded() + suffix
}

// SignatureOf makes the image that cosign stores as a signature: one layer, and
// a config.
func SignatureOf(subject digest.Digest, layer []byte) Image {
	b := &builder{have: map[digest.Digest]bool{}}
	blob := b.addBlob("application/vnd.dev.cosign.simplesigning.v1+json", layer)
	blob.Annotations = map[string]string{"dev.cosignproject.cosign/signature": subject.Encoded()}
	config := b.addBlob(ocispec.MediaTypeImageConfig, encode(ocispec.Image{RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{blob.Digest}}}))
	b.img.Root = b.addManifest(ocispec.MediaTypeImageManifest, encode(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: config, Layers: []ocispec.Descriptor{blob},
	}))
	return b.img
}

// DeleteTag removes a tag; what it pointed to stays. Deleting what is not
// there does nothing, here and below.
func (r *Registry) DeleteTag(repo, tag string) {
	r.remove(repo, func(from *repository) { delete(from.tags, tag) })
}

// DeleteManifest removes a manifest and every tag that points to it.
func (r *Registry) DeleteManifest(repo string, dgst digest.Digest) {
	r.remove(repo, func(from *repository) {
		delete(from.manifests, dgst)
		maps.DeleteFunc(from.tags, func(_ string, to digest.Digest) bool { return to == dgst })
	})
}

// DeleteBlob removes a blob.
func (r *Registry) DeleteBlob(repo string, dgst digest.Digest) {
	r.remove(repo, func(from *repository) { delete(from.blobs, dgst) })
}

// DeleteRepository removes a repository with all it holds.
func (r *Registry) DeleteRepository(repo string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.repos, repo)
}

// repo returns the repository of that name and makes it when it is new. The
// caller holds r.mu.
func (r *Registry) repo(name string) *repository {
	rp, ok := r.repos[name]
	if !ok {
		rp = &repository{
			blobs:     map[digest.Digest][]byte{},
			manifests: map[digest.Digest]manifest{},
			tags:      map[string]digest.Digest{},
		}
		r.repos[name] = rp
	}
	return rp
}

func (r *Registry) remove(repo string, f func(*repository)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rp, ok := r.repos[repo]; ok {
		f(rp)
	}
}

// encode is for values of this package's own making, which always encode.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
