package remotes

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
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
	// State is fresh (inside the window), stale (outside it), digest (a digest
	// never changes) or absent (pinned, but not stored).
	State string `json:"state"`
	// Pins are why it may not be removed, those of its digest included.
	Pins   []cache.Pin `json:"pins,omitempty"`
	Tag    *cache.Tag  `json:"tag,omitempty"`
	Source string      `json:"source,omitempty"`
	// Created is when the store learnt of the reference.
	Created time.Time `json:"created"`
	// Window is the tag's as time.Duration writes it, or "unlimited" for one
	// that is never checked.
	Window string `json:"window,omitempty"`
	// Subject is the stored image that this one belongs to, if it is a tag of
	// cosign's; empty for all others.
	Subject digest.Digest `json:"subject,omitempty"`
}

// ImageDetail is an Image with its tree.
type ImageDetail struct {
	Image
	// AnsweredBy is the upstream that answered last for the repository, nil if
	// none has since the daemon began.
	AnsweredBy *Answer `json:"answeredBy,omitempty"`
	Tree       Node    `json:"tree"`
	// Companions are the artifacts that belong to the image: its referrers,
	// stored or not, and cosign's tags that are stored. They are not in Size
	// and Missing.
	Companions []Companion `json:"companions,omitempty"`
}

// eachNode calls fn for all that hangs on an image, companions included.
func (d ImageDetail) eachNode(fn func(Node)) {
	d.Tree.each(fn)
	for _, c := range d.Companions {
		c.Tree.each(fn)
	}
}

// Images returns all stored images: every tag, and every digest that was
// asked for by name. What is pinned is listed even if it is not stored: the
// pin may be a slip of the pen.
func (r *Registry) Images(ctx context.Context) ([]Image, error) {
	r.refreshPins()
	refs, err := r.storedReferences()
	if err != nil {
		return nil, err
	}
	var all []Image
	for _, ref := range refs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		d, _, err := r.imageTree(ref)
		if errdefs.IsNotFound(err) {
			pins, err := r.Store.PinsOf(ref.name(), "")
			if err != nil {
				return nil, err
			}
			if exact := pinsNamed(ref.name(), pins); len(exact) > 0 {
				all = append(all, Image{Name: ref.name(), State: "absent", Pins: pins, Created: exact[0].Created, Platforms: []string{}})
			}
			continue // else removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		all = append(all, d.Image)
	}
	return all, nil
}

// storedReferences lists what Images shows, each once, references that are
// pinned included whatever is stored of them.
func (r *Registry) storedReferences() ([]Reference, error) {
	tags, err := r.Store.Tags()
	if err != nil {
		return nil, err
	}
	links, err := r.Store.Links()
	if err != nil {
		return nil, err
	}
	pins, err := r.Store.Pins()
	if err != nil {
		return nil, err
	}
	pinned := map[string]bool{} // by name
	for _, p := range pins {
		pinned[p.Name] = true
	}
	var names []string
	for _, t := range tags {
		names = append(names, t.Name)
	}
	for _, l := range links {
		if l.Asked || pinned[l.Digest.String()] {
			names = append(names, l.Repository+"@"+l.Digest.String())
		}
	}
	for _, p := range pins {
		names = append(names, p.Name)
	}
	var refs []Reference
	seen := map[string]bool{}
	for _, name := range names {
		// What is not as larder writes it, it did not write.
		if ref, err := parseName(name); err == nil && !seen[name] {
			seen[name] = true
			refs = append(refs, ref)
		}
	}
	return refs, nil
}

// Image returns one stored image with its tree, or errdefs.ErrNotFound.
func (r *Registry) Image(ref Reference) (ImageDetail, error) {
	r.refreshPins()
	img, _, err := r.wholeImage(ref)
	if err != nil {
		return ImageDetail{}, err
	}
	img.AnsweredBy = r.sources.last(ref.Repository)
	return img, nil
}

// wholeImage is Image. unread is why a part of what hangs on it is not known.
func (r *Registry) wholeImage(ref Reference) (detail ImageDetail, unread, err error) {
	detail, unread, err = r.imageTree(ref)
	if err == nil {
		detail.Companions = r.companions(ref.Repository, detail.Tree, &unread)
	}
	return detail, unread, err
}

// imageTree is an image with its tree, and without its companions.
func (r *Registry) imageTree(ref Reference) (detail ImageDetail, unread, err error) {
	img := Image{Name: ref.name(), Platforms: []string{}}
	err = r.describeImage(ref, &img)
	if errdefs.IsNotFound(err) {
		return ImageDetail{}, nil, fmt.Errorf("image %s is not in the store: %w", ref, errdefs.ErrNotFound)
	}
	if err != nil {
		return ImageDetail{}, nil, err
	}
	if img.Pins, err = r.Store.PinsOf(img.Name, img.Descriptor.Digest); err != nil {
		return ImageDetail{}, nil, err
	}
	walk := treeWalk{registry: r, image: &img, seen: map[digest.Digest]bool{}, unread: &unread}
	tree := walk.node(img.Descriptor, 0)
	img.Descriptor = tree.Descriptor
	if img.Source == "" {
		img.Source = tree.Source
	}
	return ImageDetail{Image: img, Tree: tree}, unread, nil
}

// describeImage fills in what the index has of a reference.
func (r *Registry) describeImage(ref Reference, img *Image) error {
	if ref.Digest != "" {
		link, err := r.Store.Link(ref.Repository.String(), ref.Digest)
		if errdefs.IsNotFound(err) && r.isPinned(ref) {
			err = nil // another repository brought it; the pin counts
		}
		img.Descriptor, img.Created, img.State = ocispec.Descriptor{Digest: ref.Digest}, link.Created, "digest"
		return err
	}
	tag, err := r.Store.Tag(img.Name)
	if err != nil {
		return err
	}
	img.Tag, img.Descriptor, img.Created, img.Source = &tag, tag.Target, tag.Created, tag.Source
	policy := r.Policies.For(ref.Repository)
	fresh := policy.over(r.Freshness)
	img.Window = fresh.WindowOf(tag.Name).String()
	if policy.settles(ref.Tag) {
		img.Window = "unlimited"
	}
	if subject := cache.SubjectOf(ref.Tag); subject != "" && r.isLinked(ref.Repository, subject) {
		img.Subject = subject
	}
	if img.State = "stale"; policy.settles(ref.Tag) || fresh.IsFresh(tag, time.Now()) {
		img.State = "fresh"
	}
	return nil
}
