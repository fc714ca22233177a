package remotes

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/larder-project/larder/cache"
	"github.com/larder-project/larder/cache/lifecycle"
	"github.com/opencontainers/go-digest"
)

// shelf is what the index has of a repository.
type shelf struct {
	repo  Repository
	tags  []cache.Tag
	links []cache.Link
}

// shelves are the repositories that have a lifecycle policy, or one of them, in
// the order of their names.
func (r *Registry) shelves(only *Repository) ([]*shelf, error) {
	tags, err := r.Store.Tags()
	if err != nil {
		return nil, err
	}
	links, err := r.Store.Links()
	if err != nil {
		return nil, err
	}
	byName := map[string]*shelf{}
	of := func(repo Repository) *shelf {
		if only != nil && repo != *only {
			return nil
		}
		s, known := byName[repo.String()]
		if _, _, ok := r.Policies.For(repo).Lifecycle(); ok && !known {
			s = &shelf{repo: repo}
			byName[repo.String()] = s
		}
		return s
	}
	for _, t := range tags {
		if ref, err := parseName(t.Name); err == nil {
			if s := of(ref.Repository); s != nil {
				s.tags = append(s.tags, t)
			}
		}
	}
	for _, l := range links {
		host, path, _ := strings.Cut(l.Repository, "/")
		if repo, err := NewRepository(host, path); err == nil && repo.String() == l.Repository {
			if s := of(repo); s != nil {
				s.links = append(s.links, l)
			}
		}
	}
	return slices.SortedFunc(maps.Values(byName), func(a, b *shelf) int { return cmp.Compare(a.repo.String(), b.repo.String()) }), nil
}

// imagesOn are the images of a repository as a lifecycle policy sees them. That
// a stored manifest cannot be read is an error: what it lists is not known then.
func (r *Registry) imagesOn(s *shelf, users map[digest.Digest]string) ([]lifecycle.Image, error) {
	byDigest := map[digest.Digest]*lifecycle.Image{}
	for _, l := range s.links {
		stored, err := r.Store.Has(l.Digest)
		if err != nil {
			return nil, err
		}
		if stored {
			byDigest[l.Digest] = &lifecycle.Image{Digest: l.Digest, Pushed: l.Created, Pulled: r.pulled(l.Digest)}
		}
	}
	for _, t := range s.tags {
		img := byDigest[t.Target.Digest]
		if img == nil { // the tag is all that is there of it
			img = &lifecycle.Image{Digest: t.Target.Digest, Pushed: t.Created}
			byDigest[t.Target.Digest] = img
		}
		ref, _ := parseName(t.Name) // as shelves has it
		img.Tags = append(img.Tags, ref.Tag)
		img.Subject = cache.SubjectOf(ref.Tag)
	}
	var images []lifecycle.Image
	configs := map[digest.Digest]digest.Digest{} // by manifest
	for _, img := range byDigest {
		if err := r.readImage(img, configs); err != nil {
			return nil, err
		}
		images = append(images, *img)
	}
	used := inUse(images, configs, users)
	for i := range images {
		images[i].Kept = r.whyKept(s.repo, images[i], used)
	}
	return images, nil
}

// pulled is when a manifest was used last, by tag or by digest and in whatever
// repository; zero if never.
func (r *Registry) pulled(dgst digest.Digest) time.Time {
	facts, err := r.Store.Facts(dgst)
	if err != nil {
		return time.Time{}
	}
	return facts.Used
}

// readImage reads what an image's manifest lists and belongs to. One that is
// tagged by a person is no companion of cosign's.
func (r *Registry) readImage(img *lifecycle.Image, configs map[digest.Digest]digest.Digest) error {
	if slices.ContainsFunc(img.Tags, func(tag string) bool { return cache.SubjectOf(tag) == "" }) {
		img.Subject = ""
	}
	data, err := r.readManifest(img.Digest)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	m, err := cache.ParseManifest(data, "")
	if err != nil {
		return nil //nolint:nilerr // it is no manifest: nothing hangs on it
	}
	for _, child := range m.Manifests {
		img.Children = append(img.Children, child.Digest)
	}
	img.Subject = cmp.Or(m.Subject, img.Subject)
	if !m.IsIndex() && len(m.Blobs) > 0 {
		configs[img.Digest] = m.Blobs[0].Digest
	}
	return nil
}

// inUse says by whom images are used: by their own digest, by their config's, or
// by one of those that they list.
func inUse(images []lifecycle.Image, configs map[digest.Digest]digest.Digest, users map[digest.Digest]string) map[digest.Digest]string {
	used := map[digest.Digest]string{}
	user := func(dgst digest.Digest) string { return cmp.Or(users[dgst], users[configs[dgst]]) }
	for _, img := range images {
		who := user(img.Digest)
		for _, child := range img.Children {
			who = cmp.Or(who, user(child))
		}
		used[img.Digest] = who
	}
	return used
}

// whyKept is why an image may not be expired, "" if it may.
func (r *Registry) whyKept(repo Repository, img lifecycle.Image, used map[digest.Digest]string) string {
	refs := []Reference{{Repository: repo, Digest: img.Digest}}
	for _, tag := range img.Tags {
		refs = append(refs, Reference{Repository: repo, Tag: tag})
	}
	for _, ref := range refs {
		pins, err := r.Store.PinsOf(ref.name(), img.Digest)
		if err != nil {
			return "pinned, or that cannot be told: " + err.Error()
		}
		if len(pins) > 0 {
			return pinnedBy(pins[0])
		}
	}
	if who := used[img.Digest]; who != "" {
		return "in use by " + who
	}
	if r.Store.IsHeld(img.Digest) {
		return "being pulled"
	}
	return ""
}

func pinnedBy(p cache.Pin) string {
	text := "pinned by " + p.Owner
	if p.Reason != "" {
		text += ": " + p.Reason
	}
	return text
}
