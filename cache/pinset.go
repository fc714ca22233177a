package cache

import (
	"cmp"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
)

// pins are all pins, ready to be asked. The zero value knows of none in memory.
type pins struct {
	mu     sync.Mutex       // guards what follows; held while the index is read
	memory map[string][]Pin // pins that are not in the index, by owner
	set    *pinSet          // nil: to be made anew
}

// get returns the set, and makes it if something changed.
func (ps *pins) get(readIndex func() ([]Pin, error)) (*pinSet, error) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.set != nil {
		return ps.set, nil
	}
	all, err := readIndex()
	if err != nil {
		return nil, err
	}
	for _, more := range ps.memory {
		all = append(all, more...)
	}
	ps.set = newPinSet(all)
	return ps.set, nil
}

// forget has the set made anew. It must come after the change of the index: a
// set that is made in between may lack it.
func (ps *pins) forget() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.set = nil
}

// replace replaces the pins in memory of one owner.
func (ps *pins) replace(owner string, own []Pin) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.memory == nil {
		ps.memory = map[string][]Pin{}
	}
	ps.memory[owner], ps.set = own, nil
}

// pinSet answers what is pinned. It is not changed once it is made.
type pinSet struct {
	all      []Pin
	byName   map[string][]Pin        // references
	byDigest map[digest.Digest][]Pin // digests alone, and references by digest
	patterns []pinPattern
}

type pinPattern struct {
	Pin
	glob glob
}

func newPinSet(all []Pin) *pinSet {
	slices.SortFunc(all, comparePins)
	set := &pinSet{all: all, byName: map[string][]Pin{}, byDigest: map[digest.Digest][]Pin{}}
	for _, p := range all {
		if p.IsPattern() {
			set.patterns = append(set.patterns, pinPattern{p, parseGlob(p.Name)})
			continue
		}
		set.byName[p.Name] = append(set.byName[p.Name], p)
		if dgst := p.Digest(); dgst != "" {
			set.byDigest[dgst] = append(set.byDigest[dgst], p)
		}
	}
	return set
}

func comparePins(a, b Pin) int {
	return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Owner, b.Owner))
}

// of is Store.PinsOf.
func (set *pinSet) of(name string, dgst digest.Digest) []Pin {
	repository, object, isDigest := SplitReference(name)
	if dgst == "" && isDigest {
		dgst = digest.Digest(object)
	}
	found := slices.Clone(set.byName[name])
	for _, p := range set.byDigest[dgst] {
		in, _, ok := strings.Cut(p.Name, "@")
		if p.Name != name && (!ok || name == "" || in == repository) {
			found = append(found, p)
		}
	}
	for _, p := range set.patterns {
		if name != "" && p.glob.match(name) {
			found = append(found, p.Pin)
		}
	}
	if len(found) > 1 {
		slices.SortFunc(found, comparePins)
	}
	return found
}

// glob is a pattern as the texts between its "*", of which each stands for any
// run of characters.
type glob []string

func parseGlob(text string) glob { return strings.Split(text, "*") }

// match reports whether the whole of s matches.
func (g glob) match(s string) bool {
	if len(g) == 1 {
		return s == g[0]
	}
	s, ok := strings.CutPrefix(s, g[0])
	if !ok {
		return false
	}
	// The first place is as good as any: what follows it has most room there.
	for _, text := range g[1 : len(g)-1] {
		if _, s, ok = strings.Cut(s, text); !ok {
			return false
		}
	}
	return strings.HasSuffix(s, g[len(g)-1])
}
