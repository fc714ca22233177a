package cache

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// loadGraph reads the whole graph. A removal must have begun before: what comes
// meanwhile is not in the graph, and held by it.
func (s *Store) loadGraph(ctx context.Context) (*graph, error) {
	g := &graph{others: map[nodeKey]digest.Digest{}, sources: []string{""}}
	if err := s.loadNames(ctx, g); err != nil {
		return nil, fmt.Errorf("list blobs: %w", err)
	}
	n := len(g.keys)
	g.size, g.used, g.source, g.flags, g.seen = make([]int64, n), make([]uint32, n), make([]uint16, n), make([]uint8, n), make([]int32, n)
	for i := range g.size {
		g.size[i] = -1
	}
	var roots []rooted
	err := s.index.view(func(tx *bolt.Tx) (err error) {
		if recordIn(tx, stateBucket, newKey) != nil {
			return fmt.Errorf("it is being restored, and does not know yet what is needed: %w", errdefs.ErrUnavailable)
		}
		g.rebuilding = recordIn(tx, stateBucket, rebuildKey) != nil
		if err := g.loadFacts(ctx, tx); err != nil {
			return err
		}
		if err := g.loadChildren(ctx, tx); err != nil {
			return err
		}
		roots, err = g.loadRoots(ctx, tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	if err := s.readChildren(ctx, g, roots); err != nil {
		return nil, err
	}
	pinned, err := s.pinnedRoots(g)
	if err != nil {
		return nil, err
	}
	g.setRoots(append(roots, pinned...))
	s.exposures.flag(g, s.now())
	g.countRefs()
	return g, nil
}

// loadNames lists the blobs without a look at each: a million looks take longer
// than all the rest.
func (s *Store) loadNames(ctx context.Context, g *graph) error {
	u := s.usage.read()
	g.keys = make([]nodeKey, 0, u.Blobs+u.Blobs/100+64)
	err := s.eachName(ctx, func(alg string, e fs.DirEntry) error {
		if e.Type().IsRegular() {
			g.addName(alg, e.Name())
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(g.keys, func(a, b nodeKey) int { return bytes.Compare(a[:], b[:]) })
	return nil
}

func (g *graph) addName(alg, name string) {
	var key nodeKey
	if alg == digest.SHA256.String() {
		if len(name) == hex.EncodedLen(len(key)) && strings.ToLower(name) == name {
			if _, err := hex.Decode(key[:], []byte(name)); err == nil {
				g.keys = append(g.keys, key)
			}
		}
		return
	}
	if dgst := digest.NewDigestFromEncoded(digest.Algorithm(alg), name); dgst.Validate() == nil {
		key = keyOf(dgst)
		g.others[key] = dgst
		g.keys = append(g.keys, key)
	}
}

func (g *graph) loadFacts(ctx context.Context, tx *bolt.Tx) error {
	sources, intern := map[string]uint16{"": 0}, interner()
	return eachRecord(ctx, tx, blobsBucket, func(k, v []byte) error {
		n, ok := g.findText(k)
		if !ok {
			return nil
		}
		f, ok := scanFacts(v, intern)
		if !ok {
			return nil
		}
		g.size[n], g.used[n] = wholePages(f.Size), seconds(f.Used)
		if f.Size == 0 && f.Source == "" {
			g.size[n] = -1
		}
		if IsManifestMediaType(f.MediaType) {
			g.flags[n] |= flagManifest
		}
		i, ok := sources[f.Source]
		if !ok && len(g.sources) <= 1<<16-1 {
			i = uint16(len(g.sources))
			sources[f.Source] = i
			g.sources = append(g.sources, f.Source)
		}
		g.source[n] = i
		return nil
	})
}

// findText is findDigest for a key of the index, which is a digest's text.
func (g *graph) findText(k []byte) (int32, bool) {
	const prefix = "sha256:"
	var key nodeKey
	if len(k) == len(prefix)+hex.EncodedLen(len(key)) && string(k[:len(prefix)]) == prefix {
		if _, err := hex.Decode(key[:], k[len(prefix):]); err != nil {
			return 0, false
		}
		return g.find(key)
	}
	return g.findDigest(digest.Digest(k))
}

func seconds(t time.Time) uint32 {
	if t.IsZero() {
		return 0
	}
	return uint32(max(0, min(t.Unix(), 1<<32-1)))
}

func (g *graph) loadChildren(ctx context.Context, tx *bolt.Tx) error {
	err := eachRecord(ctx, tx, childrenBucket, func(k, v []byte) error {
		alg, sum, _, ok := nextDigest(k)
		if !ok {
			return nil
		}
		if n, ok := g.find(keyOfBinary(alg, sum)); ok {
			g.addSpan(n, v)
		}
		return nil
	})
	g.sortSpans()
	return err
}

// addSpan notes what a manifest names. Sort the spans when all are there.
func (g *graph) addSpan(n int32, record []byte) {
	first := int32(len(g.edges))
	for {
		alg, sum, rest, ok := nextDigest(record)
		if !ok {
			break
		}
		if c, ok := g.find(keyOfBinary(alg, sum)); ok {
			g.edges = append(g.edges, c)
		}
		record = rest
	}
	g.spans = append(g.spans, span{n, first, int32(len(g.edges)) - first})
}

func (g *graph) sortSpans() {
	slices.SortFunc(g.spans, func(a, b span) int { return cmp.Compare(a.node, b.node) })
}

// readChildren reads from the manifests themselves what an older larder has not
// recorded, and records it.
func (s *Store) readChildren(ctx context.Context, g *graph, roots []rooted) error {
	var todo []int32
	for n, flags := range g.flags {
		if flags&flagManifest != 0 {
			todo = append(todo, int32(n))
		}
	}
	// The facts may be lost: what has a name or a subject is a manifest.
	for _, r := range roots {
		todo = append(todo, r.target)
	}
	for _, c := range g.companions {
		todo = append(todo, c.target)
	}
	slices.Sort(todo)
	todo = slices.DeleteFunc(slices.Compact(todo), func(n int32) bool {
		_, ok := g.spanOf(n)
		return ok
	})
	read := map[int32]bool{}
	for len(todo) > 0 {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if read[n] {
			continue
		}
		read[n] = true
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		m, err := s.readNamed(g.digestOf(n))
		if err != nil {
			g.unknown = append(g.unknown, n)
			s.logger.Warn("it cannot be told what a manifest names: nothing that belongs to no other image is evicted", "digest", g.digestOf(n), "err", err)
			continue
		}
		g.addSpan(n, childrenRecord(m))
		if err := s.NoteManifest(g.digestOf(n), m); err != nil {
			s.logger.Warn("what a manifest names is not noted", "digest", g.digestOf(n), "err", err)
		}
		for _, child := range m.Manifests {
			if c, ok := g.findDigest(child.Digest); ok {
				if _, known := g.spanOf(c); !known {
					todo = append(todo, c)
				}
			}
		}
	}
	g.sortSpans()
	return nil
}

// readNamed reads a stored manifest. What is none after all names nothing; what
// cannot be read, or has lost its digest, is an error.
func (s *Store) readNamed(dgst digest.Digest) (Manifest, error) {
	data, err := s.ReadManifest(dgst)
	if errors.Is(err, errNoManifest) {
		return Manifest{}, nil
	}
	if err != nil {
		return Manifest{}, err
	}
	m, err := ParseManifest(data, "")
	if err != nil {
		return Manifest{}, nil //nolint:nilerr // it calls itself a manifest and is none
	}
	return m, nil
}
