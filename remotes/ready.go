package remotes

import (
	"context"
	"time"
)

// Ready is Manifest, or Resolve if withData is false, for what can be answered at
// once: a hit that no upstream, no policy that asks first and no note in the index
// stands in the way of. ok is false for all else, and then nothing has happened:
// ask Manifest or Resolve. It reads from memory, but for one look at the
// manifest's file: see
// cache.Store.ManifestInMemory.
func (r *Registry) Ready(ctx context.Context, ref Reference, withData bool) (m Manifest, ok bool) {
	if r.passed.any() || r.Policies.Permit(ref.Repository) != nil {
		return m, false
	}
	if ref.Digest != "" {
		m, ok = r.readyDigest(ctx, ref, withData)
	} else {
		m, ok = r.readyTag(ctx, ref, withData)
	}
	if ok {
		m.Outcome = Hit
		r.Store.NoteServed(m.Descriptor.Digest)
	}
	return m, ok
}

// readyTag answers a tag that needs no check.
func (r *Registry) readyTag(ctx context.Context, ref Reference, withData bool) (m Manifest, ok bool) {
	tag, err := r.Store.Tag(ref.String())
	if err != nil || !r.belongs(ctx, ref.Repository, tag.Target.Digest) {
		return m, false
	}
	if policy := r.Policies.For(ref.Repository); !policy.settles(ref.Tag) && !policy.over(r.Freshness).IsFresh(tag, time.Now()) {
		return m, false
	}
	m.Descriptor = tag.Target
	var stored bool
	if withData {
		m.Data, err = r.readManifest(tag.Target.Digest)
		stored = int64(len(m.Data)) == tag.Target.Size // else an answer would say one thing and have another
	} else {
		stored, err = r.Store.Has(tag.Target.Digest)
	}
	if err != nil || !stored {
		return Manifest{}, false
	}
	r.Store.Touch(tag.Name, tag.Target.Digest)
	return m, true
}

// readyDigest answers a digest whose manifest is known. One that is asked for
// without its data counts as asked for by name: that must be noted already.
func (r *Registry) readyDigest(ctx context.Context, ref Reference, withData bool) (m Manifest, ok bool) {
	desc, known := r.described.Get(ref.Digest)
	if !known || !r.belongs(ctx, ref.Repository, ref.Digest) {
		return m, false
	}
	if !withData {
		if link, err := r.Store.Link(ref.Repository.String(), ref.Digest); err != nil || !link.Asked && !link.Companion {
			return m, false
		}
	}
	data, err := r.readManifest(ref.Digest)
	if err != nil || int64(len(data)) != desc.Size {
		return m, false
	}
	m.Descriptor, m.Data = desc, data
	r.Store.Touch("", ref.Digest)
	return m, true
}
