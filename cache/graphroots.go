package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// loadRoots reads the names under which manifests are stored, and what belongs to
// them.
func (g *graph) loadRoots(ctx context.Context, tx *bolt.Tx) (roots []rooted, err error) {
	add := func(r rooted) { roots = append(roots, r) }
	if err := errors.Join(g.loadTags(ctx, tx, add), g.loadLinks(ctx, tx, add), g.loadReferrers(ctx, tx)); err != nil {
		return nil, err
	}
	slices.SortStableFunc(g.companions, func(a, b companion) int { return cmp.Compare(a.subject, b.subject) })
	slices.SortStableFunc(g.links, func(a, b linked) int { return cmp.Compare(a.node, b.node) })
	return roots, nil
}

// loadTags makes a root of each tag, but of cosign's that belong to a stored
// image: those are companions.
func (g *graph) loadTags(ctx context.Context, tx *bolt.Tx, add func(rooted)) error {
	intern := interner()
	return eachRecord(ctx, tx, tagsBucket, func(k, v []byte) error {
		t, ok := decoded[Tag](v)
		if !ok {
			return nil
		}
		target, ok := g.findDigest(t.Target.Digest)
		if !ok {
			return nil // nothing hangs on it
		}
		name := string(k)
		repository, tag, _ := SplitReference(name)
		if subject := SubjectOf(tag); subject != "" && tx.Bucket([]byte(manifestsBucket)).Get([]byte(Link{Repository: repository, Digest: subject}.key())) != nil {
			if n, ok := g.findDigest(subject); ok && n != target {
				g.companions = append(g.companions, companion{subject: n, target: target, tag: name})
				return nil
			}
		}
		add(rooted{
			target: target, names: []rootName{{name: name, repository: repository, source: intern([]byte(t.Source))}},
			created: t.Created.Unix(), used: max(t.Created.Unix(), t.Used.Unix(), t.Moved.Unix()), gone: t.Gone,
		})
		return nil
	})
}

// loadLinks makes a root of each digest that was asked for by name.
func (g *graph) loadLinks(ctx context.Context, tx *bolt.Tx, add func(rooted)) error {
	intern := interner()
	return eachRecord(ctx, tx, manifestsBucket, func(k, v []byte) error {
		i := strings.LastIndexByte(string(k), '@')
		n, ok := g.findText(k[i+1:])
		if !ok {
			return nil
		}
		g.links = append(g.links, linked{node: n, repository: intern(k[:max(0, i)])})
		l, ok := decoded[Link](v)
		if !ok || !l.Asked {
			return nil
		}
		add(rooted{
			target: n, names: []rootName{{name: string(k), repository: l.Repository, source: g.sources[g.source[n]], byDigest: true}},
			created: l.Created.Unix(), used: l.Created.Unix(),
		})
		return nil
	})
}

func (g *graph) loadReferrers(ctx context.Context, tx *bolt.Tx) error {
	return eachRecord(ctx, tx, referrersBucket, func(_, v []byte) error {
		rf, ok := decoded[Referrers](v)
		if !ok {
			return nil
		}
		subject, ok := g.findDigest(rf.Subject)
		if !ok {
			return nil
		}
		for _, desc := range rf.Manifests {
			if n, ok := g.findDigest(desc.Digest); ok && n != subject {
				g.companions = append(g.companions, companion{subject: subject, target: n})
			}
		}
		return nil
	})
}

// pinnedRoots makes roots, which may not be evicted, of what is pinned and is no
// root by itself: digests that nobody asked for, and cosign's tags.
func (s *Store) pinnedRoots(g *graph) ([]rooted, error) {
	pins, err := s.Pins()
	if err != nil {
		return nil, err
	}
	var roots []rooted
	for _, p := range pins {
		_, object, _ := SplitReference(p.Name)
		for _, dgst := range []digest.Digest{digest.Digest(object), digest.Digest(p.Name)} {
			if n, ok := g.findDigest(dgst); ok {
				roots = append(roots, rooted{target: n, why: fmt.Sprintf("pinned by %s as %s", p.Owner, p.Name)})
			}
		}
	}
	for _, c := range g.companions {
		if c.tag == "" {
			continue
		}
		why, err := s.pinnedAs(c.tag, g.digestOf(c.target))
		if err != nil {
			return nil, err
		}
		if why != "" {
			roots = append(roots, rooted{target: c.target, why: why})
		}
	}
	return roots, nil
}

// pinnedAs says why a name or its manifest may not be removed, "" if it may.
func (s *Store) pinnedAs(name string, dgst digest.Digest) (why string, _ error) {
	pins, err := s.PinsOf(name, dgst)
	if err != nil || len(pins) == 0 {
		return "", err
	}
	return fmt.Sprintf("pinned by %s as %s", pins[0].Owner, pins[0].Name), nil
}
