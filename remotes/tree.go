package remotes

import (
	"context"

	"github.com/containerd/platforms"
	"github.com/larder-project/larder/cache"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Node is a manifest or blob in an image's tree. One that stands in it twice
// has its children at the first place only.
type Node struct {
	ocispec.Descriptor
	Stored   bool   `json:"stored"`
	Source   string `json:"source,omitempty"`
	Children []Node `json:"children,omitempty"`
}

// each calls fn for a node and all below it, parents first.
func (n Node) each(fn func(Node)) {
	fn(n)
	for _, c := range n.Children {
		c.each(fn)
	}
}

// treeWalk builds an image's tree and sums it up in the image.
type treeWalk struct {
	registry *Registry
	image    *Image
	seen     map[digest.Digest]bool
	// unread is why a stored manifest could not be read, nil if all could:
	// what hangs on it is not known then.
	unread *error
}

// maxDepth bounds nested indexes: in practice there is one.
const maxDepth = 32

func (w treeWalk) node(desc ocispec.Descriptor, depth int) Node {
	n := Node{Descriptor: desc}
	first := !w.seen[desc.Digest]
	w.seen[desc.Digest] = true
	info, err := w.registry.Store.Info(context.Background(), desc.Digest)
	if err != nil {
		if first {
			w.image.Missing++
		}
		return n
	}
	n.Stored, n.Size = true, info.Size
	if facts, err := w.registry.Store.Facts(desc.Digest); err == nil {
		n.Source = facts.Source
		if n.MediaType == "" {
			n.MediaType = facts.MediaType
		}
	}
	if !first {
		return n
	}
	w.image.Size += info.Size
	if depth > maxDepth || (n.MediaType != "" && !cache.IsManifestMediaType(n.MediaType)) {
		return n
	}
	w.addChildren(&n, depth)
	return n
}

func (w treeWalk) addChildren(n *Node, depth int) {
	data, err := w.registry.readManifest(n.Digest)
	if err != nil {
		if n.MediaType != "" && *w.unread == nil {
			*w.unread = err
		}
		return
	}
	m, err := cache.ParseManifest(data, n.MediaType)
	if err != nil {
		return // it calls itself a manifest and is none: nothing hangs on it
	}
	n.MediaType = m.MediaType
	whole := true
	for _, child := range m.Children() {
		c := w.node(child, depth+1)
		whole = whole && c.Stored
		n.Children = append(n.Children, c)
	}
	if whole && !m.IsIndex() && !isAttestation(n.Descriptor) {
		w.image.Platforms = append(w.image.Platforms, w.platform(n, m))
	}
}

// platform names the platform of a whole manifest: as the index says, else as
// its config does.
func (w treeWalk) platform(n *Node, m cache.Manifest) string {
	if n.Platform != nil {
		return platforms.FormatAll(*n.Platform)
	}
	if len(m.Blobs) == 0 {
		return "unknown"
	}
	if p, err := w.registry.configPlatform(m.Blobs[0]); err == nil {
		return p
	}
	return "unknown"
}
