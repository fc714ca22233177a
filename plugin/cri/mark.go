package cri

import (
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// marker collects what is in use, with all names under which the runtime knows
// it.
type marker struct {
	used   InUse
	byName map[string]*runtime.Image
}

func newMarker(images []*runtime.Image) *marker {
	m := &marker{
		used:   InUse{Digests: map[digest.Digest]string{}, References: map[string]string{}},
		byName: map[string]*runtime.Image{},
	}
	for _, img := range images {
		m.byName[canonical(img.GetId())] = img
		for _, name := range append(img.GetRepoTags(), img.GetRepoDigests()...) {
			m.byName[canonical(name)] = img
		}
	}
	return m
}

// mark notes that who uses the image of a name, an image ID or a reference, and
// reports whether the runtime lists it.
func (m *marker) mark(name, who string) bool {
	if name == "" {
		return false
	}
	m.note(name, who)
	img := m.byName[canonical(name)]
	if img == nil {
		return false
	}
	m.note(img.GetId(), who)
	for _, name := range append(img.GetRepoTags(), img.GetRepoDigests()...) {
		m.note(name, who)
	}
	return true
}

// note keeps a name as what it is. Of several users the first by name is kept,
// so that the same answer reads the same.
func (m *marker) note(name, who string) {
	name = canonical(name)
	if dgst := digest.Digest(name); dgst.Validate() == nil {
		keepFirst(m.used.Digests, dgst, who)
		return
	}
	if named, err := reference.ParseNormalizedNamed(name); err != nil || reference.IsNameOnly(named) {
		return // nothing that could be told from another image
	}
	keepFirst(m.used.References, name, who)
	if _, text, ok := strings.Cut(name, "@"); ok {
		keepFirst(m.used.Digests, digest.Digest(text), who)
	}
}

func keepFirst[K comparable](users map[K]string, key K, who string) {
	if before, ok := users[key]; !ok || who < before {
		users[key] = who
	}
}

// canonical is a name in one spelling: image IDs with their algorithm, and
// references with registry host and tag. What is neither stays as it is.
func canonical(name string) string {
	if dgst := digest.NewDigestFromEncoded(digest.SHA256, name); dgst.Validate() == nil {
		return dgst.String() // CRI-O leaves the algorithm out
	}
	if digest.Digest(name).Validate() == nil {
		return name
	}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return reference.TagNameOnly(named).String()
}
