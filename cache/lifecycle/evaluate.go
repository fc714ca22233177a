package lifecycle

import (
	"cmp"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// Image is a manifest or index of a repository.
type Image struct {
	Digest digest.Digest
	Tags   []string
	// Pushed is when it came into the repository, Pulled when it was pulled
	// last; zero if never.
	Pushed, Pulled time.Time
	// Children are the manifests that an index lists.
	Children []digest.Digest
	// Subject is the manifest that an artifact belongs to, "" for an image.
	Subject digest.Digest
	// Kept is why the image may not go, whatever a rule says; "" if it may. It
	// counts and is seen by rules as any other.
	Kept string
}

// Action is what becomes of an image.
type Action struct {
	Image Image
	// Rule is the one that acts.
	Rule Rule
	// Kept is why the image stays all the same: its own Kept, or that an index
	// which stays lists it.
	Kept string
}

// Evaluate decides what becomes of a repository's images: it returns an Action
// for each that a rule selects, in the order in which they are to be carried
// out: the oldest first, but an index before what it lists. No two images may
// have one digest.
func (p Policy) Evaluate(images []Image, now time.Time) []Action {
	counted, parents := countable(images)
	shielded := map[digest.Digest]bool{}
	var actions []Action
	for _, rule := range p.byPriority() {
		matching := slices.DeleteFunc(slices.Clone(counted), func(img Image) bool { return !rule.Selection.matches(img.Tags) })
		for _, img := range rule.Selection.selected(matching, now) {
			if !shielded[img.Digest] {
				actions = append(actions, Action{Image: img, Rule: rule, Kept: img.Kept})
			}
		}
		// Also those that stay: a later rule counts them and lets them be.
		for _, img := range matching {
			shielded[img.Digest] = true
		}
	}
	slices.SortStableFunc(actions, func(a, b Action) int { return byAge(a.Image, b.Image) })
	keepListed(actions, parents)
	return indexesFirst(actions, parents)
}

// countable leaves out what belongs to another image: artifacts, and what an
// index lists, unless it has a tag of its own. parents are the indexes that list
// a manifest.
func countable(images []Image) (counted []Image, parents map[digest.Digest][]digest.Digest) {
	present := map[digest.Digest]bool{}
	for _, img := range images {
		present[img.Digest] = true
	}
	parents = map[digest.Digest][]digest.Digest{}
	for _, img := range images {
		for _, child := range img.Children {
			if child != img.Digest && present[child] {
				parents[child] = append(parents[child], img.Digest)
			}
		}
	}
	for _, img := range images {
		isArtifact := img.Subject != "" && present[img.Subject]
		isPart := len(img.Tags) == 0 && len(parents[img.Digest]) > 0
		if !isArtifact && !isPart {
			counted = append(counted, img)
		}
	}
	return counted, parents
}

// selected are those of the images with the right tags that a rule's count
// selects.
func (s Selection) selected(matching []Image, now time.Time) []Image {
	if s.CountType == CountMoreThan {
		slices.SortStableFunc(matching, func(a, b Image) int { return byAge(b, a) })
		return matching[min(s.CountNumber, len(matching)):]
	}
	return slices.DeleteFunc(slices.Clone(matching), func(img Image) bool {
		since := img.Pushed
		if s.CountType == SincePulled && !img.Pulled.IsZero() {
			since = img.Pulled
		}
		return !olderThan(now.Sub(since), s.CountNumber)
	})
}

const day = 24 * time.Hour

// olderThan does not multiply: the days of a policy may be more than a
// time.Duration holds.
func olderThan(age time.Duration, days int) bool {
	whole := int64(age / day)
	return whole > int64(days) || whole == int64(days) && age%day > 0
}

// byAge has the oldest come first. The digest decides between images of one
// moment, so that two evaluations agree.
func byAge(a, b Image) int {
	return cmp.Or(a.Pushed.Compare(b.Pushed), cmp.Compare(a.Digest, b.Digest))
}

// keepListed keeps images that an index lists which does not go.
func keepListed(actions []Action, parents map[digest.Digest][]digest.Digest) {
	goes := map[digest.Digest]bool{}
	for _, a := range actions {
		goes[a.Image.Digest] = a.Kept == "" && a.Rule.Action.Type == Expire
	}
	for changed := true; changed; {
		changed = false
		for i := range actions {
			a := &actions[i]
			if a.Kept != "" || a.Rule.Action.Type != Expire {
				continue
			}
			for _, parent := range parents[a.Image.Digest] {
				if !goes[parent] {
					a.Kept = "part of index " + parent.String() + ", which stays"
					goes[a.Image.Digest] = false
					changed = true
					break
				}
			}
		}
	}
}

// indexesFirst moves each index in front of what it lists. Of indexes that list
// each other, which no digests can, the older goes first.
func indexesFirst(actions []Action, parents map[digest.Digest][]digest.Digest) []Action {
	byDigest := map[digest.Digest]Action{}
	for _, a := range actions {
		byDigest[a.Image.Digest] = a
	}
	ordered := make([]Action, 0, len(actions))
	seen := map[digest.Digest]bool{}
	var add func(dgst digest.Digest)
	add = func(dgst digest.Digest) {
		a, acted := byDigest[dgst]
		if !acted || seen[dgst] {
			return
		}
		seen[dgst] = true
		for _, parent := range parents[dgst] {
			add(parent)
		}
		ordered = append(ordered, a)
	}
	for _, a := range actions {
		add(a.Image.Digest)
	}
	return ordered
}
