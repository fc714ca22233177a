package remotes

import (
	"github.com/larder-project/larder/cache"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Companion is an artifact that belongs to a stored image.
type Companion struct {
	// Subject is the manifest that it belongs to: one of the image's, or an
	// artifact's.
	Subject digest.Digest `json:"subject"`
	// Tag is cosign's tag for it; empty for a referrer, of which Tree has the
	// artifact type.
	Tag  string `json:"tag,omitempty"`
	Tree Node   `json:"tree"`
}

// maxCompanionDepth is how far companions of companions go: a signature of an
// SBOM of an image.
const maxCompanionDepth = 2

// companions reads from the store what belongs to an image. unread gets why a
// part of it is not known.
func (r *Registry) companions(repo Repository, image Node, unread *error) []Companion {
	w := companionWalk{
		repo: repo, seen: map[digest.Digest]bool{},
		tree: treeWalk{registry: r, image: &Image{}, seen: map[digest.Digest]bool{}, unread: unread},
	}
	subjects := manifestsIn(image)
	for range maxCompanionDepth {
		before := len(w.found)
		for _, subject := range subjects {
			w.visit(subject)
		}
		subjects = nil
		for _, c := range w.found[before:] {
			subjects = append(subjects, manifestsIn(c.Tree)...)
		}
	}
	return w.found
}

// manifestsIn are the stored manifests of a tree.
func manifestsIn(n Node) (all []digest.Digest) {
	if !n.Stored || !cache.IsManifestMediaType(n.MediaType) {
		return nil
	}
	all = append(all, n.Digest)
	for _, c := range n.Children {
		all = append(all, manifestsIn(c)...)
	}
	return all
}

// companionWalk collects companions, those of each manifest once.
type companionWalk struct {
	repo  Repository
	tree  treeWalk
	seen  map[digest.Digest]bool // subjects
	found []Companion
}

func (w *companionWalk) visit(subject digest.Digest) {
	if w.seen[subject] {
		return
	}
	w.seen[subject] = true
	r := w.tree.registry
	if rf, stored, err := r.storedReferrers(w.repo, subject); err != nil {
		*w.tree.unread = err
	} else if stored {
		for _, desc := range rf.Manifests {
			w.add(subject, "", desc)
		}
	}
	for _, suffix := range cache.CosignSuffixes() {
		ref, ok := companionTag(w.repo, subject, suffix)
		if !ok {
			continue
		}
		if tag, err := r.Store.Tag(ref.String()); err == nil {
			w.add(subject, ref.Tag, tag.Target)
		}
	}
}

func (w *companionWalk) add(subject digest.Digest, tag string, desc ocispec.Descriptor) {
	tree := w.tree.node(desc, 0)
	tree.Data, tree.URLs = nil, nil // nothing of upstream's that larder has no use for
	w.found = append(w.found, Companion{Subject: subject, Tag: tag, Tree: tree})
}

// forgetCompanions takes away what the index has of the companions of images
// that are gone, and returns the trees that were theirs. reached is what is
// still needed, why stands in the history of tags.
func (r *Registry) forgetCompanions(repo Repository, img ImageDetail, reached reach, why cache.Ending) (trees []Node, errs []error) {
	subjects := manifestsIn(img.Tree)
	for _, c := range img.Companions {
		trees = append(trees, c.Tree)
		subjects = append(subjects, manifestsIn(c.Tree)...)
		if c.Tag == "" || reached.has(repo, c.Subject) && reached.has(repo, c.Tree.Digest) {
			continue
		}
		if ref := (Reference{Repository: repo, Tag: c.Tag}); !r.hasPin(ref) {
			errs = append(errs, r.Store.EndTag(ref.String(), "", why))
		}
	}
	for _, subject := range subjects {
		if !reached.has(repo, subject) {
			errs = append(errs, r.Store.DeleteReferrers(repo.String(), subject))
		}
	}
	return trees, errs
}

// companionTags are the tags that go with an image, unless they are pinned.
func (r *Registry) companionTags(repo Repository, img ImageDetail) map[string]bool {
	tags := map[string]bool{}
	for _, c := range img.Companions {
		if ref := (Reference{Repository: repo, Tag: c.Tag}); c.Tag != "" && !r.hasPin(ref) {
			tags[ref.String()] = true
		}
	}
	return tags
}
