package cache

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"slices"

	"github.com/opencontainers/go-digest"
)

// graph is what hangs on what in a store, as it was when it was loaded. A blob is
// a number in it, and what is known of the blobs stands in columns: a million
// blobs take about 60 MiB.
type graph struct {
	keys   []nodeKey // sorted; a blob's number is its place here
	others map[nodeKey]digest.Digest

	size   []int64  // on disk, as well as the index knows; -1 if it does not
	used   []uint32 // last use in seconds, 0 if never
	source []uint16 // who sent it: an index into sources
	flags  []uint8

	sources []string
	spans   []span  // of manifests, by number
	edges   []int32 // what manifests name and is stored; see span

	companions []companion // by subject
	links      []linked    // by number
	images     []rooted    // by target
	refs       []int32     // how many images reach a blob
	seen       []int32     // the walk that was there last
	walk       int32
	unknown    []int32 // manifests of which it cannot be told what they name
	rebuilding bool    // the index was lost, and not all is known again of what hangs on what
}

// nodeKey is a sha256 sum, or for other algorithms that of the digest's text.
type nodeKey [32]byte

// span says which edges are a manifest's.
type span struct{ node, first, count int32 }

// companion says that a blob belongs to a manifest.
type companion struct {
	subject, target int32
	tag             string // cosign's tag that says so; "" for a referrer
}

// linked says that a manifest belongs to a repository.
type linked struct {
	node       int32
	repository string
}

// rooted is a manifest with all names under which it is stored: an image. All of
// them stay, or all of them go.
type rooted struct {
	target  int32
	names   []rootName
	created int64 // when the last of its names was given, in seconds
	used    int64
	gone    bool   // upstream has deleted it, under all of its names
	why     string // it may not be evicted; "" if it may
}

// rootName is a tag, or a digest that was asked for.
type rootName struct {
	name       string
	repository string
	source     string
	byDigest   bool
}

const (
	flagExposed  = 1 << iota // known to containerd beyond the mirror
	flagManifest             // says the index
)

func keyOf(dgst digest.Digest) nodeKey {
	if alg, size := algOf(dgst); alg == algSHA256 {
		return nodeKey(childKey(dgst)[1 : 1+size])
	}
	return sha256.Sum256([]byte(dgst))
}

// keyOfBinary is keyOf for a digest of the children bucket.
func keyOfBinary(alg byte, sum []byte) nodeKey {
	if alg == algSHA256 {
		return nodeKey(sum)
	}
	return sha256.Sum256([]byte(textOf(alg, sum)))
}

// digestOf is the digest of a number.
func (g *graph) digestOf(n int32) digest.Digest {
	if dgst, ok := g.others[g.keys[n]]; ok {
		return dgst
	}
	return textOf(algSHA256, g.keys[n][:])
}

// find returns the number of a blob, false if it is not stored.
func (g *graph) find(key nodeKey) (int32, bool) {
	i, ok := slices.BinarySearchFunc(g.keys, key, func(a, b nodeKey) int { return bytes.Compare(a[:], b[:]) })
	return int32(i), ok
}

func (g *graph) findDigest(dgst digest.Digest) (int32, bool) {
	if dgst.Validate() != nil {
		return 0, false
	}
	return g.find(keyOf(dgst))
}

// spanOf returns what a manifest names; ok is false for what is no manifest, or
// an unknown one.
func (g *graph) spanOf(n int32) (edges []int32, ok bool) {
	i, ok := slices.BinarySearchFunc(g.spans, n, func(s span, n int32) int { return cmp.Compare(s.node, n) })
	if !ok {
		return nil, false
	}
	s := g.spans[i]
	return g.edges[s.first : s.first+s.count], true
}

// companionsOf returns what belongs to a manifest.
func (g *graph) companionsOf(n int32) []companion {
	return runOf(g.companions, n, func(c companion) int32 { return c.subject })
}

// linksOf returns a manifest's links.
func (g *graph) linksOf(n int32) []linked {
	return runOf(g.links, n, func(l linked) int32 { return l.node })
}

// runOf returns those of a sorted column that belong to a blob.
func runOf[T any](column []T, n int32, blob func(T) int32) []T {
	first, _ := slices.BinarySearchFunc(column, n, func(v T, n int32) int { return cmp.Compare(blob(v), n) })
	end := first
	for end < len(column) && blob(column[end]) == n {
		end++
	}
	return column[first:end]
}

// isCertain reports whether what hangs on nothing in the graph really hangs on
// nothing.
func (g *graph) isCertain() bool { return len(g.unknown) == 0 && !g.rebuilding }

// reach calls visit once for each blob that hangs on a manifest, itself included.
// A circle of companions does not trap it.
func (g *graph) reach(target int32, visit func(n int32)) {
	g.walk++
	stack := []int32{target}
	g.seen[target] = g.walk
	for len(stack) > 0 {
		n := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		visit(n)
		push := func(c int32) {
			if g.seen[c] != g.walk {
				g.seen[c] = g.walk
				stack = append(stack, c)
			}
		}
		edges, ok := g.spanOf(n)
		if !ok {
			continue
		}
		for _, c := range edges {
			push(c)
		}
		for _, c := range g.companionsOf(n) {
			push(c.target)
		}
	}
}

// countRefs counts how many images reach each blob.
func (g *graph) countRefs() {
	g.refs = make([]int32, len(g.keys))
	for _, img := range g.images {
		g.reach(img.target, func(n int32) { g.refs[n]++ })
	}
}

// drop takes an image away, and returns what hung on it alone.
func (g *graph) drop(target int32) (free []int32) {
	g.reach(target, func(n int32) {
		if g.refs[n]--; g.refs[n] == 0 {
			free = append(free, n)
		}
	})
	return free
}

// restore takes a drop back.
func (g *graph) restore(target int32) {
	g.reach(target, func(n int32) { g.refs[n]++ })
}

// setRoots makes images of names, all of one manifest together.
func (g *graph) setRoots(roots []rooted) {
	slices.SortStableFunc(roots, func(a, b rooted) int { return cmp.Compare(a.target, b.target) })
	for _, r := range roots {
		if n := len(g.images); n > 0 && g.images[n-1].target == r.target {
			last := &g.images[n-1]
			last.names = append(last.names, r.names...)
			last.created, last.used = max(last.created, r.created), max(last.used, r.used)
			last.gone = last.gone && r.gone
			last.why = cmp.Or(last.why, r.why)
			continue
		}
		g.images = append(g.images, r)
	}
}
