package remotes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/larder-project/larder/cache"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is a stored reference and what hangs on it.
type Image struct {
	// Name is the full reference, by tag or by digest.
	Name       string             `json:"name"`
	Descriptor ocispec.Descriptor `json:"descriptor"`
	// Platforms that are whole in the store.
	Platforms []string `json:"platforms"`
	// Size is that of the stored blobs in bytes; shared blobs count in each
	// image. Missing counts blobs and manifests that are not stored, such as
	// those of other platforms.
	Size    int64 `json:"size"`
	Missing int   `json:"missing"`
	// State is fresh, stale (a check is due or failed) or digest (a digest
	// never changes).
	State  string     `json:"state"`
	Pin    *cache.Pin `json:"pin,omitempty"`
	Tag    *cache.Tag `json:"tag,omitempty"`
	Source string     `json:"source,omitempty"`
	// Created is when the store learnt of the reference.
	Created time.Time `json:"created"`
	Window  string    `json:"window,omitempty"`
}

// Node is a manifest or blob in an image's tree.
type Node struct {
	ocispec.Descriptor
	Stored   bool   `json:"stored"`
	Source   string `json:"source,omitempty"`
	Children []Node `json:"children,omitempty"`
}

// ImageDetail is an Image with its tree.
type ImageDetail struct {
	Image
	Tree Node `json:"tree"`
}

// Images returns all stored images: every tag, and every digest that was
// asked for by name.
func (r *Registry) Images(ctx context.Context) ([]Image, error) {
	refs, err := r.storedReferences()
	if err != nil {
		return nil, err
	}
	var all []Image
	for _, ref := range refs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		d, err := r.Image(ref)
		if errdefs.IsNotFound(err) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		all = append(all, d.Image)
	}
	return all, nil
}

// storedReferences lists what Images shows.
func (r *Registry) storedReferences() ([]Reference, error) {
	tags, err := r.Store.Tags()
	if err != nil {
		return nil, err
	}
	links, err := r.Store.Links()
	if err != nil {
		return nil, err
	}
	var refs []Reference
	for _, t := range tags {
		if ref, err := ParseReference(t.Name); err == nil {
			refs = append(refs, ref)
		}
	}
	for _, l := range links {
		if ref, err := ParseReference(l.Repository + "@" + l.Digest.String()); err == nil && l.Asked {
			refs = append(refs, ref)
		}
	}
	return refs, nil
}

// Image returns one stored image with its tree, or errdefs.ErrNotFound.
func (r *Registry) Image(ref Reference) (ImageDetail, error) {
	img := Image{Name: ref.String()}
	if ref.Digest != "" {
		link, err := r.Store.Link(ref.Repository.String(), ref.Digest)
		if err != nil {
			return ImageDetail{}, fmt.Errorf("image %s is not in the store: %w", ref, errdefs.ErrNotFound)
		}
		img.Name = ref.Repository.String() + "@" + ref.Digest.String()
		img.Descriptor, img.Created, img.State = ocispec.Descriptor{Digest: ref.Digest}, link.Created, "digest"
	} else {
		tag, err := r.Store.Tag(ref.String())
		if errdefs.IsNotFound(err) {
			return ImageDetail{}, fmt.Errorf("image %s is not in the store: %w", ref, errdefs.ErrNotFound)
		}
		if err != nil {
			return ImageDetail{}, err
		}
		img.Tag, img.Descriptor, img.Created, img.Source = &tag, tag.Target, tag.Created, tag.Source
		img.Window = r.Freshness.WindowOf(tag.Name).String()
		if img.State = "stale"; r.Freshness.IsFresh(tag, time.Now()) {
			img.State = "fresh"
		}
	}
	if pin, err := r.Store.Pin(img.Name); err == nil {
		img.Pin = &pin
	}
	walk := treeWalk{registry: r, image: &img, seen: map[digest.Digest]bool{}}
	tree := walk.node(img.Descriptor, 0)
	img.Descriptor = tree.Descriptor
	if img.Source == "" {
		img.Source = tree.Source
	}
	return ImageDetail{Image: img, Tree: tree}, nil
}

// treeWalk builds an image's tree and sums it up in the image.
type treeWalk struct {
	registry *Registry
	image    *Image
	seen     map[digest.Digest]bool
}

// maxDepth bounds nested indexes.
const maxDepth = 4

func (w treeWalk) node(desc ocispec.Descriptor, depth int) Node {
	n := Node{Descriptor: desc}
	info, err := w.registry.Store.Info(context.Background(), desc.Digest)
	if err != nil {
		if !w.seen[desc.Digest] {
			w.seen[desc.Digest] = true
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
	if !w.seen[desc.Digest] {
		w.seen[desc.Digest] = true
		w.image.Size += info.Size
	}
	if depth >= maxDepth || (n.MediaType != "" && !isManifestMediaType(n.MediaType)) {
		return n
	}
	w.addChildren(&n, depth)
	return n
}

func (w treeWalk) addChildren(n *Node, depth int) {
	data, err := w.registry.readManifest(n.Descriptor)
	if err != nil {
		return
	}
	m, err := parseManifest(data, n.MediaType)
	if err != nil {
		return
	}
	n.MediaType = m.mediaType
	whole := true
	for _, child := range m.children() {
		c := w.node(child, depth+1)
		whole = whole && c.Stored
		n.Children = append(n.Children, c)
	}
	if whole && !m.isIndex() {
		w.image.Platforms = append(w.image.Platforms, w.platform(n, m))
	}
}

// platform names the platform of a whole manifest: as the index says, else as
// its config does.
func (w treeWalk) platform(n *Node, m manifest) string {
	if n.Platform != nil {
		return platforms.FormatAll(*n.Platform)
	}
	if len(m.blobs) == 0 {
		return "unknown"
	}
	if p, err := w.registry.configPlatform(m.blobs[0]); err == nil {
		return p
	}
	return "unknown"
}

// Removed says what Remove freed.
type Removed struct {
	Blobs int   `json:"blobs"`
	Bytes int64 `json:"bytes"`
}

// Remove forgets a reference and deletes what no other reference needs. A
// pinned one is errdefs.ErrFailedPrecondition.
func (r *Registry) Remove(ctx context.Context, ref Reference) (Removed, error) {
	img, err := r.Image(ref)
	if err != nil {
		return Removed{}, err
	}
	if img.Pin != nil {
		return Removed{}, fmt.Errorf("image %s is pinned (%s): unpin it first: %w", img.Name, img.Pin.Reason, errdefs.ErrFailedPrecondition)
	}
	if img.Tag != nil {
		err = r.Store.DeleteTag(img.Name)
	} else {
		err = r.Store.DeleteLink(ref.Repository.String(), ref.Digest)
	}
	if err != nil {
		return Removed{}, err
	}
	kept, err := r.reachable(ctx)
	if err != nil {
		return Removed{}, err
	}
	var removed Removed
	return removed, r.removeTree(ctx, ref.Repository, img.Tree, kept, &removed)
}

// reachable is the set of digests that hang on stored references.
func (r *Registry) reachable(ctx context.Context) (map[digest.Digest]bool, error) {
	refs, err := r.storedReferences()
	if err != nil {
		return nil, err
	}
	kept := map[digest.Digest]bool{}
	for _, ref := range refs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		img, err := r.Image(ref)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		markTree(img.Tree, kept)
	}
	return kept, nil
}

func markTree(n Node, kept map[digest.Digest]bool) {
	kept[n.Digest] = true
	for _, c := range n.Children {
		markTree(c, kept)
	}
}

func (r *Registry) removeTree(ctx context.Context, repo Repository, n Node, kept map[digest.Digest]bool, removed *Removed) error {
	var errs []error
	for _, c := range n.Children {
		errs = append(errs, r.removeTree(ctx, repo, c, kept, removed))
	}
	if !n.Stored || kept[n.Digest] {
		return errors.Join(errs...)
	}
	kept[n.Digest] = true // once, if it stands twice in the tree
	switch err := r.Store.Delete(ctx, n.Digest); {
	case err == nil:
		removed.Blobs++
		removed.Bytes += n.Size
	case !errdefs.IsNotFound(err):
		errs = append(errs, err)
	}
	if isManifestMediaType(n.MediaType) {
		errs = append(errs, r.Store.DeleteLink(repo.String(), n.Digest))
	}
	return errors.Join(slices.DeleteFunc(errs, func(e error) bool { return e == nil })...)
}

// Pin keeps an image from being removed. It need not be stored yet.
func (r *Registry) Pin(ref Reference, reason string) (cache.Pin, error) {
	p := cache.Pin{Name: ref.String(), Reason: reason, Created: time.Now()}
	return p, r.Store.PutPin(p)
}

// Unpin removes a pin, or returns errdefs.ErrNotFound.
func (r *Registry) Unpin(ref Reference) error {
	if err := r.Store.DeletePin(ref.String()); err != nil {
		return fmt.Errorf("%s is not pinned: %w", ref, err)
	}
	return nil
}
