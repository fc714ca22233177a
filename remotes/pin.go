package remotes

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// PinStatus is a pin and what it holds.
type PinStatus struct {
	cache.Pin
	// Images counts the stored images that it keeps, as Images lists them.
	Images int `json:"images"`
	// Absent is set if a reference or digest is pinned that is not stored: the
	// pin may be a slip of the pen.
	Absent bool `json:"absent,omitempty"`
}

// Pin keeps what the pin names from being removed. It need not be stored yet.
// The name must be one that Names.PinName returned. Owner and reason that do not
// fit are errdefs.ErrInvalidArgument.
func (r *Registry) Pin(ctx context.Context, p cache.Pin) (PinStatus, error) {
	p.Owner = cmp.Or(p.Owner, cache.PinOwnerCLI)
	if err := checkPinWords(p); err != nil {
		return PinStatus{}, fmt.Errorf("pin %s: %w", p.Name, err)
	}
	if p.Created.IsZero() {
		p.Created = time.Now()
	}
	if err := r.Store.PutPin(p); err != nil {
		return PinStatus{}, err
	}
	if err := r.spare(ctx, p); err != nil {
		return PinStatus{}, fmt.Errorf("%s is pinned, but a removal runs and may not know it yet: %w", p.Name, err)
	}
	list, err := r.PinList(ctx)
	for _, s := range list {
		if s.Name == p.Name && s.Owner == p.Owner {
			return s, nil
		}
	}
	return PinStatus{Pin: p}, err
}

// Unpin takes the pin of an owner away, PinOwnerCLI's if that is "". If the
// owner has none it is errdefs.ErrNotFound, and the error says who has.
func (r *Registry) Unpin(name, owner string) error {
	r.refreshPins()
	owner = cmp.Or(owner, cache.PinOwnerCLI)
	err := r.Store.DeletePin(name, owner)
	if !errdefs.IsNotFound(err) {
		return err
	}
	pins, perr := r.Store.Pins()
	if perr != nil {
		return perr
	}
	others := pinsNamed(name, pins)
	if len(others) == 0 {
		return fmt.Errorf("%s is not pinned: %w", name, errdefs.ErrNotFound)
	}
	if owner == cache.PinOwnerConfig || owner == cache.PinOwnerFile {
		return fmt.Errorf("unpin takes no pin of owner %q away; %s is pinned%s: %w", owner, name, r.reasons(name, others), errdefs.ErrNotFound)
	}
	return fmt.Errorf("%s is not pinned by %s, but it is%s: %w", name, owner, r.reasons(name, others), errdefs.ErrNotFound)
}

// PinList returns all pins with what they hold, in the order of name and owner.
func (r *Registry) PinList(ctx context.Context) ([]PinStatus, error) {
	r.refreshPins()
	pins, err := r.Store.Pins()
	if err != nil {
		return nil, err
	}
	counts, err := r.countPinned(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]PinStatus, 0, len(pins))
	for _, p := range pins {
		s := PinStatus{Pin: p, Images: counts[[2]string{p.Name, p.Owner}]}
		if s.Images == 0 && !p.IsPattern() {
			// A digest may be one of a layer, which is no image.
			has := false
			if dgst := p.Digest(); dgst != "" {
				if has, err = r.Store.Has(dgst); err != nil {
					return nil, err
				}
			}
			s.Absent = !has
		}
		list = append(list, s)
	}
	return list, nil
}

// countPinned counts the stored images that each pin keeps, by name and owner.
func (r *Registry) countPinned(ctx context.Context) (map[[2]string]int, error) {
	refs, err := r.storedReferences()
	if err != nil {
		return nil, err
	}
	counts := map[[2]string]int{}
	for _, ref := range refs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		target, err := r.target(ref)
		if errdefs.IsNotFound(err) {
			continue // pinned only
		}
		if err != nil {
			return nil, err
		}
		pins, err := r.Store.PinsOf(ref.name(), target)
		if err != nil {
			return nil, err
		}
		for _, p := range pins {
			counts[[2]string{p.Name, p.Owner}]++
		}
	}
	return counts, nil
}

// target is the digest of a stored reference's manifest.
func (r *Registry) target(ref Reference) (digest.Digest, error) {
	if ref.Digest == "" {
		tag, err := r.Store.Tag(ref.name())
		return tag.Target.Digest, err
	}
	has, err := r.Store.Has(ref.Digest)
	if err == nil && !has {
		err = errdefs.ErrNotFound
	}
	return ref.Digest, err
}

// spare keeps what a new pin names from the removals that run now: they may have
// decided what to delete before.
func (r *Registry) spare(ctx context.Context, p cache.Pin) error {
	if !r.Store.Removing() {
		return nil
	}
	keep := func(n Node) { r.Store.NoteServed(n.Digest) }
	refs, err := r.storedReferences()
	if err != nil {
		return err
	}
	for _, ref := range refs {
		if err := ctx.Err(); err != nil {
			return err
		}
		img, _, err := r.wholeImage(ref)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return err
		}
		if len(pinsNamed(p.Name, img.Pins)) == 0 {
			continue
		}
		img.eachNode(keep)
	}
	if dgst := p.Digest(); dgst != "" {
		tree, _ := r.bareTree(dgst)
		tree.each(keep)
	}
	return nil
}

// bareTree is what hangs on a digest, in whatever repository. unread is why a
// part of it is not known.
func (r *Registry) bareTree(dgst digest.Digest) (tree Node, unread error) {
	walk := treeWalk{registry: r, image: &Image{}, seen: map[digest.Digest]bool{}, unread: &unread}
	return walk.node(ocispec.Descriptor{Digest: dgst}, 0), unread
}

// isPinned reports whether a digest that is stored is pinned as this
// repository's.
func (r *Registry) isPinned(ref Reference) bool {
	pins, err := r.Store.PinsOf(ref.name(), ref.Digest)
	if err != nil || len(pinsNamed(ref.name(), pins)) == 0 {
		return false
	}
	has, err := r.Store.Has(ref.Digest)
	return has && err == nil
}

// hasPin reports whether a reference is pinned, or may be.
func (r *Registry) hasPin(ref Reference) bool {
	pins, err := r.Store.PinsOf(ref.name(), ref.Digest)
	return err != nil || len(pins) > 0
}

func pinsNamed(name string, pins []cache.Pin) []cache.Pin {
	return slices.DeleteFunc(slices.Clone(pins), func(p cache.Pin) bool { return p.Name != name })
}

// reasons says for each pin of a name whose it is, why, and how to take it away.
func (r *Registry) reasons(name string, pins []cache.Pin) string {
	var b strings.Builder
	for _, p := range pins {
		fmt.Fprintf(&b, "\n  by %s", p.Owner)
		if p.Name != name {
			fmt.Fprintf(&b, " as %s", p.Name)
		}
		if p.Reason != "" {
			fmt.Fprintf(&b, " (%s)", p.Reason)
		}
		b.WriteString(": " + r.wayOut(p))
	}
	return b.String()
}

func (r *Registry) wayOut(p cache.Pin) string {
	switch {
	case p.Owner == cache.PinOwnerConfig:
		return "take it out of [[pins]] in larder's configuration and restart larder"
	case p.Owner == cache.PinOwnerFile && r.PinFile != nil:
		return "take its line out of " + r.PinFile.Path()
	}
	words := []string{"larder unpin"}
	if p.Owner != cache.PinOwnerCLI {
		words = append(words, "--owner "+p.Owner)
	}
	if p.IsPattern() {
		return strings.Join(append(words, "'"+p.Name+"'"), " ")
	}
	return strings.Join(append(words, p.Name), " ")
}
