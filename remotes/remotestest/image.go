package remotestest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of Docker's image format, schema 2.
const (
	MediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	MediaTypeDockerConfig   = "application/vnd.docker.container.image.v1+json"
	MediaTypeDockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// ImageSpec says what Build makes.
type ImageSpec struct {
	// Seed chooses the bytes. Two specs that differ only here share no layer.
	Seed uint64
	// Layers has the payload size of each layer in bytes; the payload does not
	// compress, so the layer is that and some hundred bytes. Empty means one
	// layer of 1 KiB.
	Layers []int64
	// Platforms as in "linux/arm64/v8". Each has layers of its own. One makes a
	// manifest, more an index. Empty means linux on this machine's architecture.
	Platforms []string
	// Docker uses the media types of Docker's schema 2.
	Docker bool
	// Archives are tar streams, each of which is one more layer.
	Archives [][]byte
	// Files go into one more layer, the last.
	Files []File
	// Cmd is the command that a container of the image runs.
	Cmd []string
}

// File is a regular file of an image.
type File struct {
	Path string // relative to the root, as in "bin/sh"
	Mode int64  // permission bits
	Data []byte
}

// Blob is a descriptor and its bytes.
type Blob struct {
	Descriptor ocispec.Descriptor
	Data       []byte
}

// Image is a whole image in memory.
type Image struct {
	Root      ocispec.Descriptor // of the index, or of the only manifest
	Manifests []Blob             // manifests and then the index: the root is last
	Blobs     []Blob             // configs and layers, each once
}

// Descriptors returns every blob and manifest of the image, root last.
func (img Image) Descriptors() []ocispec.Descriptor {
	out := make([]ocispec.Descriptor, 0, len(img.Blobs)+len(img.Manifests))
	for _, b := range img.Blobs {
		out = append(out, b.Descriptor)
	}
	for _, m := range img.Manifests {
		out = append(out, m.Descriptor)
	}
	return out
}

// Build makes the image that spec describes, the same one every time. It
// panics on a platform without both system and architecture.
func Build(spec ImageSpec) Image {
	if len(spec.Layers) == 0 {
		spec.Layers = []int64{1 << 10}
	}
	if len(spec.Platforms) == 0 {
		spec.Platforms = []string{"linux/" + runtime.GOARCH}
	}
	b := &builder{spec: spec, have: map[digest.Digest]bool{}}
	var children []ocispec.Descriptor
	for i, name := range spec.Platforms {
		children = append(children, b.manifest(i, parsePlatform(name)))
	}
	if len(children) == 1 {
		b.img.Root = children[0]
		b.img.Root.Platform = nil
		return b.img
	}
	mediaType := b.pick(ocispec.MediaTypeImageIndex, MediaTypeDockerList)
	b.img.Root = b.addManifest(mediaType, encode(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: mediaType,
		Manifests: children,
	}))
	return b.img
}

// builder collects the blobs of one image.
type builder struct {
	spec ImageSpec
	img  Image
	have map[digest.Digest]bool
}

// manifest adds one platform's layers, config and manifest.
func (b *builder) manifest(index int, p ocispec.Platform) ocispec.Descriptor {
	var (
		layers  []ocispec.Descriptor
		diffIDs []digest.Digest
	)
	add := func(l layer) {
		diffIDs = append(diffIDs, l.diffID)
		layers = append(layers, b.addBlob(b.pick(ocispec.MediaTypeImageLayerGzip, MediaTypeDockerLayer), l.data))
	}
	for i, size := range b.spec.Layers {
		add(payloadLayer(b.random(index, i), fmt.Sprintf("layer-%d", i), size))
	}
	for _, archive := range b.spec.Archives {
		add(archiveLayer(archive))
	}
	if len(b.spec.Files) > 0 {
		add(fileLayer(b.spec.Files))
	}
	created := time.Unix(0, 0).UTC() // a real time would change the digest
	config := b.addBlob(b.pick(ocispec.MediaTypeImageConfig, MediaTypeDockerConfig), encode(ocispec.Image{
		Created:  &created,
		Platform: p,
		Config:   ocispec.ImageConfig{Cmd: b.spec.Cmd},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: diffIDs},
	}))
	mediaType := b.pick(ocispec.MediaTypeImageManifest, MediaTypeDockerManifest)
	desc := b.addManifest(mediaType, encode(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: mediaType,
		Config:    config,
		Layers:    layers,
	}))
	desc.Platform = &p
	return desc
}

// random is the byte source of one layer of one platform.
func (b *builder) random(platform, layer int) *rand.ChaCha8 {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[0:], b.spec.Seed)
	binary.LittleEndian.PutUint64(seed[8:], uint64(platform))
	binary.LittleEndian.PutUint64(seed[16:], uint64(layer))
	return rand.NewChaCha8(seed)
}

func (b *builder) pick(oci, docker string) string {
	if b.spec.Docker {
		return docker
	}
	return oci
}

func (b *builder) addBlob(mediaType string, data []byte) ocispec.Descriptor {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if !b.have[desc.Digest] {
		b.have[desc.Digest] = true
		b.img.Blobs = append(b.img.Blobs, Blob{Descriptor: desc, Data: data})
	}
	return desc
}

func (b *builder) addManifest(mediaType string, data []byte) ocispec.Descriptor {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	b.img.Manifests = append(b.img.Manifests, Blob{Descriptor: desc, Data: data})
	return desc
}

func parsePlatform(name string) ocispec.Platform {
	parts := strings.SplitN(name, "/", 3)
	if len(parts) < 2 {
		panic(fmt.Sprintf("remotestest: platform %q: want os/architecture[/variant]", name))
	}
	p := ocispec.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p
}
