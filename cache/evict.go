package cache

import (
	"context"
	"errors"
	"runtime/debug"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// Eviction is something that was evicted, or would be.
type Eviction struct {
	// Names are those of an image; none for what belonged to no image.
	Names  []string      `json:"names,omitempty"`
	Digest digest.Digest `json:"digest,omitempty"`
	// Blobs and Bytes are what went with it: what others need stays.
	Blobs int    `json:"blobs"`
	Bytes int64  `json:"bytes"`
	Why   string `json:"why"`
}

const (
	// stepBlobs and stepBytes bound what goes at a time: an unlink of a large
	// file takes long on some file systems, and holds up others.
	stepBlobs = 64
	stepBytes = 256 << 20
	// groupImages and groupBlobs bound what is forgotten together: each
	// transaction costs an fsync, which is more than the unlink of an image.
	groupImages = 128
	groupBlobs  = 512 // each is a few pages that change in memory
)

// pass is one choice of what goes, and how far it was carried out.
type pass struct {
	store *Store
	graph *graph
	*ranking
	costs Costs
	began time.Time
	why   string // what for
	dry   bool
	// forDisk is set where room on the file system is wanted, and not the store to be
	// smaller: what has another name gives none.
	forDisk bool
	dead    []int32 // that are gone, and not yet forgotten by the index
	end     func()  // of the removal
}

// largeGraph is from how many blobs on memory is worth processor time.
const largeGraph = 100_000

// spareMemory has garbage collected early until done is called: to choose among
// very many blobs leaves more of it than what is kept. Two stores of one process
// may do so at once: the first one then ends it for both.
func spareMemory() (done func()) {
	const percent = 25
	old := debug.SetGCPercent(percent)
	if old < percent { // none at all, or early already
		debug.SetGCPercent(old)
	}
	if old <= percent {
		// If another one does so just now its end must be the last word.
		return func() {}
	}
	return func() {
		debug.SetGCPercent(old)
		debug.FreeOSMemory()
	}
}

// beginPass looks at all that is stored. Call end.
func (s *Store) beginPass(ctx context.Context, why string) (_ *pass, err error) {
	p := &pass{store: s, began: s.now(), why: why, end: s.holds.begin()}
	if s.usage.read().Blobs >= largeGraph {
		spared, end := spareMemory(), p.end
		p.end = func() {
			end()
			p.graph = nil
			spared()
		}
	}
	defer func() {
		if err != nil {
			p.end()
		}
	}()
	if p.graph, err = s.loadGraph(ctx); err != nil {
		return nil, err
	}
	costs, users := s.evictor.consults()
	p.costs = costs
	inUse, err := s.evictor.inUse(ctx, users)
	if err != nil {
		s.logger.Warn("it cannot be told what is in use", "err", err)
		if inUse == nil {
			inUse = p.usedLately()
		}
	}
	p.ranking, err = s.rank(ctx, p.graph, costs, inUse)
	return p, err
}

// usedLately stands in for what is in use where nobody could ever tell: what was
// used within a day.
func (p *pass) usedLately() map[digest.Digest]string {
	used := map[digest.Digest]string{}
	for _, img := range p.graph.images {
		last := max(img.used, int64(p.graph.used[img.target]))
		dgst := p.graph.digestOf(img.target)
		last = max(last, unixOf(p.store.uses.blob(dgst)))
		if p.began.Unix()-last < int64((24 * time.Hour).Seconds()) {
			used[dgst] = "a pod, maybe: the container runtime cannot be asked"
		}
	}
	return used
}

// next evicts what comes next, up to so many bytes or a little more, or says what
// that would be in a dry pass. freed is what the file system got back. Nothing is
// left if nothing went.
func (p *pass) next(ctx context.Context, bytes int64) (went []Eviction, freed int64, err error) {
	for len(p.order) > 0 {
		if ctx.Err() != nil {
			return nil, 0, context.Cause(ctx)
		}
		switch p.order[0].kind {
		case isImage:
			went, freed, err = p.evictImages(ctx, bytes)
		case isIngest:
			went, freed, err = p.evictIngest()
		default:
			went, freed, err = p.evictOrphans(ctx, bytes)
		}
		if err != nil || len(went) > 0 {
			return went, freed, err
		}
	}
	return nil, 0, nil
}

// doomed is an image that goes with others.
type doomed struct {
	rooted
	Eviction
	free []int32
}

// evictImages evicts the images that come next, each whole, but those that
// somebody has taken into use since the pass began, or on which nothing hangs
// alone.
func (p *pass) evictImages(ctx context.Context, bytes int64) ([]Eviction, int64, error) {
	group, err := p.doom(bytes)
	if err != nil || p.dry || len(group) == 0 {
		return evictedOf(group), sumOf(group), err
	}
	if group, err = p.forgetNames(group); err != nil {
		return nil, 0, err
	}
	var free []int32
	for _, d := range group {
		for _, n := range d.free {
			if p.graph.refs[n] == 0 { // else one that stays after all needs it
				free = append(free, n)
			}
		}
	}
	_, freed, err := p.remove(ctx, free)
	return evictedOf(group), freed, err
}

func evictedOf(group []doomed) (all []Eviction) {
	for _, d := range group {
		all = append(all, d.Eviction)
	}
	return all
}

func sumOf(group []doomed) (bytes int64) {
	for _, d := range group {
		bytes += d.Bytes
	}
	return bytes
}

// doom chooses images that go together.
func (p *pass) doom(bytes int64) (group []doomed, err error) {
	blobs, size := 0, int64(0)
	for len(p.order) > 0 && p.order[0].kind == isImage && len(group) < groupImages && blobs < groupBlobs && size < min(bytes, stepBytes) {
		c := p.order[0]
		p.order = p.order[1:]
		d, err := p.judge(c)
		if err != nil {
			return nil, err
		}
		if len(d.free) > 0 {
			group, blobs, size = append(group, d), blobs+len(d.free), size+d.Bytes
		}
	}
	return group, nil
}

// judge takes an image out of the graph, if it may go now and something hangs on
// it alone.
func (p *pass) judge(c candidate) (doomed, error) {
	s, g := p.store, p.graph
	d := doomed{rooted: g.images[c.index]}
	d.Digest = g.digestOf(d.target)
	if wanted, err := p.isWanted(d.rooted, d.Digest); wanted || err != nil {
		return doomed{}, err
	}
	d.free = g.drop(d.target)
	isBusy := func(n int32) bool { return s.holds.isBusy(g.digestOf(n)) }
	if len(d.free) == 0 || slices.ContainsFunc(d.free, isBusy) {
		g.restore(d.target)
		return doomed{}, nil
	}
	var shared int64
	for _, n := range d.free {
		if bytes := s.sizeOf(g, n); p.forDisk && s.hasOtherName(g.digestOf(n)) {
			shared += bytes
		} else {
			d.Bytes += bytes
		}
	}
	if shared > d.Bytes { // to fetch it again would cost more than it gives
		g.restore(d.target)
		p.stays[inContainerd]++
		return doomed{}, nil
	}
	d.Why = p.reason(c, g.costOf(d.rooted, p.costs).Why)
	for _, n := range d.names {
		d.Names = append(d.Names, n.name)
	}
	d.Blobs = len(d.free)
	return d, nil
}

// isWanted reports whether an image was used or pinned since the pass began.
func (p *pass) isWanted(img rooted, dgst digest.Digest) (bool, error) {
	uses := &p.store.uses
	for _, n := range img.names {
		if uses.tag(n.name).After(p.began) {
			return true, nil
		}
		if why, err := p.store.pinnedAs(n.name, dgst); err != nil || why != "" {
			return true, err
		}
	}
	return uses.blob(dgst).After(p.began), nil
}

func (p *pass) reason(c candidate, cost string) string {
	why := c.idleText()
	if cost != "" {
		why += "; " + cost
	}
	if p.why != "" {
		why += "; " + p.why
	}
	return why
}

// remove deletes blobs that hang on nothing, but those that somebody took into
// use since, in steps.
func (p *pass) remove(ctx context.Context, nodes []int32) (blobs int, bytes int64, err error) {
	var gone []int32
	inStep, size := 0, int64(0)
	for _, n := range nodes {
		dgst := p.graph.digestOf(n)
		var freed int64
		removed, uerr := p.store.holds.unlessBusy(dgst, func() (err error) {
			isElsewhere := p.forDisk && p.store.hasOtherName(dgst)
			if freed, err = p.store.unlink(dgst); isElsewhere {
				freed = 0 // for now: whoever has the other name will let go of it, too
			}
			return err
		})
		if uerr != nil && !errdefs.IsNotFound(uerr) {
			err = errors.Join(err, uerr)
		}
		if removed || errdefs.IsNotFound(uerr) {
			gone = append(gone, n)
		}
		bytes += freed
		if inStep, size = inStep+1, size+freed; inStep == stepBlobs || size >= stepBytes {
			inStep, size = 0, 0
			p.store.evictor.yield(ctx)
		}
	}
	// Room first: an entry without its file is a miss, and costs no one anything.
	if p.dead = append(p.dead, gone...); len(p.dead) >= groupBlobs {
		err = errors.Join(err, p.forget())
	}
	return len(gone), bytes, err
}

// evictIngest throws away what arrived of a blob and was left.
func (p *pass) evictIngest() ([]Eviction, int64, error) {
	c := p.order[0]
	p.order = p.order[1:]
	s, dir := p.store, p.ingests[c.index]
	ev := Eviction{Bytes: s.usage.idle(dir), Why: p.reason(c, "it never became whole")}
	if ev.Bytes == 0 {
		return nil, 0, nil
	}
	if !p.dry {
		if removed, err := s.removeIngest(dir); err != nil || !removed {
			return nil, 0, err // somebody goes on with it
		}
	}
	return []Eviction{ev}, ev.Bytes, nil
}

// evictOrphans takes the blobs that come next and hang on no image.
func (p *pass) evictOrphans(ctx context.Context, bytes int64) ([]Eviction, int64, error) {
	first := p.order[0]
	var nodes []int32
	var size int64
	for len(p.order) > 0 && p.order[0].kind == isOrphan && p.order[0].young == first.young && len(nodes) < groupBlobs && size < min(bytes, stepBytes) {
		n := p.order[0].index
		p.order = p.order[1:]
		nodes, size = append(nodes, n), size+p.store.sizeOf(p.graph, n)
	}
	ev := Eviction{Blobs: len(nodes), Bytes: size, Why: p.reason(first, "belongs to no image")}
	if p.dry {
		return []Eviction{ev}, size, nil
	}
	gr := p.grave(ev, nodes)
	if err := p.store.index.change(func(tx *bolt.Tx) error { return dig(tx, gr) }); err != nil {
		return nil, 0, err
	}
	var err error
	if ev.Blobs, ev.Bytes, err = p.remove(ctx, nodes); ev.Blobs == 0 {
		return nil, 0, err
	}
	return []Eviction{ev}, ev.Bytes, err
}
