package cache

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// Cost says how dear it is to fetch something again.
type Cost struct {
	// Weight divides the time for which something was not used: twice the weight
	// stays twice as long. 0 means 1.
	Weight float64
	// Why is a reason for people, such as "quay.io gives 80 MB/s".
	Why string
}

// Costs knows what fetching again costs, by repository and by the upstream that
// sent the manifest, which may be "".
type Costs interface {
	Cost(repository, source string) Cost
}

// Users knows what is in use beyond the store, by manifest or config, and who
// uses it.
type Users interface {
	InUse(ctx context.Context) (map[digest.Digest]string, error)
}

const (
	// weightGone is the weight of what upstream has deleted: there is no
	// fetching again.
	weightGone = 1e6
	// youth is the time for which what has just come, or was just used, is
	// spared as long as anything else is there.
	youth = 5 * time.Minute
)

// candidate is something that may go.
type candidate struct {
	kind  candidateKind
	index int32 // a blob's number, or a place among images or ingests
	young bool
	idle  float64 // seconds since the last use
	score float64 // the higher, the earlier it goes
}

type candidateKind uint8

const (
	isOrphan candidateKind = iota // a blob that hangs on no image
	isIngest                      // an unfinished blob that nobody writes to
	isImage
)

// ranking is what may go, in the order in which it goes.
type ranking struct {
	order    []candidate
	ingests  []string // folders
	freeable int64    // bytes of all of it
	idle     int64    // of these, what is in ingests
	kept     []bool   // by node: needed by an image that stays
	stays    map[string]int
}

// rank decides what may go and who goes first. It completes the reasons and the
// last uses of images.
func (s *Store) rank(ctx context.Context, g *graph, costs Costs, inUse map[digest.Digest]string) (*ranking, error) {
	now := s.now()
	r := &ranking{stays: map[string]int{}}
	users := map[int32]string{}
	for dgst, who := range inUse {
		if n, ok := g.findDigest(dgst); ok {
			users[n] = who
		}
	}
	kept := make([]bool, len(g.keys))
	r.kept = kept
	for i := range g.images {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err := s.judge(g, &g.images[i], users); err != nil {
			return nil, err
		}
		if img := &g.images[i]; img.why != "" {
			g.reach(img.target, func(n int32) { kept[n] = true })
			r.stays[img.why]++
			continue
		}
		r.add(g.candidate(int32(i), costs, now))
	}
	s.rankOrphans(g, r, kept, users, now)
	s.rankIngests(r, now)
	for n, size := range g.size {
		if r.mayGo(g, int32(n)) {
			r.freeable += max(0, size)
		}
	}
	slices.SortStableFunc(r.order, func(a, b candidate) int {
		if a.young != b.young {
			if a.young {
				return 1
			}
			return -1
		}
		if (a.kind == isImage) != (b.kind == isImage) {
			return cmp.Compare(a.kind, b.kind)
		}
		return cmp.Compare(b.score, a.score)
	})
	return r, nil
}

// mayGo reports whether a blob is needed by nothing that stays.
func (r *ranking) mayGo(g *graph, n int32) bool {
	return !r.kept[n] && (g.refs[n] > 0 || g.isCertain())
}

func (r *ranking) add(c candidate) { r.order = append(r.order, c) }

// judge finds out whether an image has to stay, and when it was used last.
func (s *Store) judge(g *graph, img *rooted, users map[int32]string) error {
	dgst := g.digestOf(img.target)
	for _, n := range img.names {
		why, err := s.pinnedAs(n.name, dgst)
		if err != nil {
			return err
		}
		img.why = cmp.Or(img.why, why)
		img.used = max(img.used, unixOf(s.uses.tag(n.name)))
	}
	img.used = max(img.used, unixOf(s.uses.blob(dgst)))
	g.reach(img.target, func(n int32) {
		if who, ok := users[n]; ok {
			img.why = cmp.Or(img.why, "used by "+who)
		}
		if g.flags[n]&flagExposed != 0 {
			img.why = cmp.Or(img.why, "exposed to containerd")
		}
		// What others share says nothing of this one.
		if _, isManifest := g.spanOf(n); isManifest || g.refs[n] == 1 {
			img.used = max(img.used, int64(g.used[n]))
		}
	})
	return nil
}

func unixOf(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// candidate weighs an image.
func (g *graph) candidate(i int32, costs Costs, now time.Time) candidate {
	img := g.images[i]
	c := newCandidate(isImage, i, img.used, now)
	c.score = c.idle / g.costOf(img, costs).Weight
	return c
}

// costOf is the highest cost of an image under any of its names.
func (g *graph) costOf(img rooted, costs Costs) Cost {
	if img.gone {
		return Cost{Weight: weightGone, Why: "upstream has deleted it"}
	}
	most := Cost{Weight: 0}
	for _, n := range img.names {
		if costs == nil {
			break
		}
		if c := costs.Cost(n.repository, n.source); c.Weight > most.Weight {
			most = c
		}
	}
	if most.Weight <= 0 {
		most.Weight = 1
	}
	return most
}

// newCandidate has the score of what costs nothing. A last use in the future is
// one of now: a clock that was wrong makes nothing older.
func newCandidate(kind candidateKind, index int32, used int64, now time.Time) candidate {
	idle := max(0, float64(now.Unix()-used))
	return candidate{kind: kind, index: index, idle: idle, score: idle, young: idle < youth.Seconds()}
}

// rankOrphans adds the blobs that hang on no image. If it cannot be told what an
// image needs, there are none.
func (s *Store) rankOrphans(g *graph, r *ranking, kept []bool, users map[int32]string, now time.Time) {
	if !g.isCertain() {
		r.stays["may belong to an image whose manifest cannot be read"]++
		return
	}
	for n := range int32(len(g.keys)) {
		if g.refs[n] > 0 {
			continue
		}
		who, isUsed := users[n]
		if isUsed || g.flags[n]&flagExposed != 0 {
			kept[n] = true
			r.stays[cmp.Or(who, "exposed to containerd")]++
			continue
		}
		used := int64(g.used[n])
		if used == 0 || g.size[n] < 0 {
			fi, err := s.stat(g.digestOf(n))
			if err != nil {
				continue // it is gone
			}
			used, g.size[n] = max(used, fi.ModTime().Unix()), blocksOf(fi)
		}
		used = max(used, unixOf(s.uses.blob(g.digestOf(n))))
		r.add(newCandidate(isOrphan, n, used, now))
	}
}

// rankIngests adds what arrived of blobs and was left.
func (s *Store) rankIngests(r *ranking, now time.Time) {
	for dir, bytes := range s.usage.idles() {
		fi, err := s.disk.Lstat(filepath.Join(dir, "data"))
		if err != nil || !fi.Mode().IsRegular() {
			continue
		}
		r.ingests = append(r.ingests, dir)
		r.add(newCandidate(isIngest, int32(len(r.ingests)-1), fi.ModTime().Unix(), now))
		r.freeable += bytes
		r.idle += bytes
	}
}

// idles returns the ingests that nobody writes to, with what they take.
func (u *usage) idles() map[string]int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	idle := map[string]int64{}
	for dir, r := range u.ingests {
		if bytes := r.idle(); bytes > 0 {
			idle[dir] = bytes
		}
	}
	return idle
}

// idle is what an ingest takes, if nobody writes to it.
func (u *usage) idle(dir string) int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.ingests[dir].idle()
}

// idleText says in words for how long something was not used.
func (c candidate) idleText() string {
	d := time.Duration(c.idle) * time.Second
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("unused for %d days", int(d.Hours()/24))
	case d >= 2*time.Hour:
		return fmt.Sprintf("unused for %d hours", int(d.Hours()))
	case d >= 2*time.Minute:
		return fmt.Sprintf("unused for %d minutes", int(d.Minutes()))
	}
	if d == time.Second {
		return "unused for 1 second"
	}
	return fmt.Sprintf("unused for %d seconds", int(d.Seconds()))
}

// sizeOf is what a blob takes. It looks, if the index does not know.
func (s *Store) sizeOf(g *graph, n int32) int64 {
	if g.size[n] < 0 {
		var fi fs.FileInfo
		if fi, _ = s.stat(g.digestOf(n)); fi == nil {
			return 0
		}
		g.size[n] = blocksOf(fi)
	}
	return g.size[n]
}
