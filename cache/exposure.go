package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// exposures are the blobs that a containerd counts on, because the store is its
// content store: it keeps their digests in a database of its own, and never asks
// whether they are still there. They are in memory, so that what is known of one
// is told while the disk hangs.
type exposures struct {
	grace time.Duration // 0: the store is nobody's content store

	changing sync.Mutex                 // held from a look at records to the end of their change
	mu       sync.RWMutex               // guards what follows; nothing is done under it but that
	known    map[digest.Digest]exposure // nil until they were read
	all      bool                       // an earlier process may have exposed what is not known here
}

// exposure is the record of a blob in the exposed bucket.
type exposure struct {
	Size    int64             `json:"size"`
	Created time.Time         `json:"created"`
	Updated time.Time         `json:"updated"`
	Labels  map[string]string `json:"labels,omitempty"`
	// Left is when containerd deleted it, zero if it did not.
	Left time.Time `json:"left,omitzero"`
	// lost is set while the blob is not there, because it was damaged.
	lost bool
}

func (e exposure) info(dgst digest.Digest) content.Info {
	return content.Info{Digest: dgst, Size: e.Size, CreatedAt: e.Created, UpdatedAt: e.Updated, Labels: e.Labels}
}

// WithExposure has the store be the content store of one containerd: see Expose.
// What that deletes stays for grace, since a reader may be about to ask for the
// next part of it.
func WithExposure(grace time.Duration) Option {
	return func(s *Store) { s.exposures.grace = max(grace, time.Nanosecond) }
}

// Expose says what containerd asks of a published blob, and keeps it from then on
// until Unexpose: that is durable when Expose returns. It returns
// errdefs.ErrNotFound if the blob is not there. Of an exposed blob it asks the
// memory alone.
func (s *Store) Expose(dgst digest.Digest) (content.Info, error) {
	if info, ok := s.Exposed(dgst); ok {
		return info, nil
	}
	defer s.Hold(dgst)() // a removal that runs has it in its list already
	e, err := s.exposureOf(dgst)
	if err != nil {
		return content.Info{}, err
	}
	if err := s.changeExposures(map[digest.Digest]exposure{dgst: e}); err != nil {
		return content.Info{}, fmt.Errorf("expose %s: %w", dgst, err)
	}
	return e.info(dgst), nil
}

func (s *Store) exposureOf(dgst digest.Digest) (exposure, error) {
	fi, err := s.stat(dgst)
	if err != nil {
		return exposure{}, err
	}
	info, err := s.info(dgst, fi)
	return exposure{Size: info.Size, Created: info.CreatedAt, Updated: info.UpdatedAt, Labels: info.Labels}, err
}

// Exposed returns what Expose said of a blob, false if it did not, or the blob is
// lost. It asks the memory alone.
func (s *Store) Exposed(dgst digest.Digest) (content.Info, bool) {
	x := &s.exposures
	x.mu.RLock()
	defer x.mu.RUnlock()
	e, ok := x.known[dgst]
	return e.info(dgst), ok && e.Left.IsZero() && !e.lost
}

// WalkExposed calls fn for each exposed blob that matches one of the filters (all
// without filters), in the order of their digests. It asks the memory alone.
func (s *Store) WalkExposed(ctx context.Context, fn content.WalkFunc, filter ...string) error {
	matches, err := filters.ParseAll(filter...)
	if err != nil {
		return fmt.Errorf("walk exposed blobs: %w", err)
	}
	for _, dgst := range s.exposures.digests() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		info, ok := s.Exposed(dgst)
		if !ok || !matches.Match(content.AdaptInfo(info)) {
			continue
		}
		if err := fn(info); err != nil {
			return err
		}
	}
	return nil
}

// Unexpose says that containerd does not count on a blob any more. The blob stays
// as long as the store wants it. It returns errdefs.ErrNotFound for what is not
// exposed.
func (s *Store) Unexpose(dgst digest.Digest) error {
	x := &s.exposures
	x.changing.Lock()
	defer x.changing.Unlock()
	x.mu.RLock()
	e, ok := x.known[dgst]
	x.mu.RUnlock()
	if !ok || !e.Left.IsZero() {
		return fmt.Errorf("blob %s is not exposed: %w", dgst, errdefs.ErrNotFound)
	}
	left := e
	left.Left = s.now()
	// The memory first: who asks while the disk takes its time has to wait for it,
	// and exposes the blob anew behind this.
	x.note(map[digest.Digest]exposure{dgst: left})
	if err := s.writeExposures(map[digest.Digest]exposure{dgst: left}); err != nil {
		x.note(map[digest.Digest]exposure{dgst: e})
		return fmt.Errorf("unexpose %s: %w", dgst, err)
	}
	return nil
}

// Unsure reports whether containerd may count on more than is known. Nothing is
// removed until ExposeAll has said what it is.
func (s *Store) Unsure() bool { return s.exposures.isUnsure() }

func (x *exposures) isUnsure() bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.unsure()
}

// unsure is isUnsure. x.mu is held.
func (x *exposures) unsure() bool { return x.grace > 0 && (x.all || x.known == nil) }

// ExposeAll exposes what containerd says that it counts on, in all of its
// namespaces. A digest that is not there is passed over. What is exposed beyond
// that containerd takes back itself, when it collects its garbage.
func (s *Store) ExposeAll(ctx context.Context, dgsts []digest.Digest) error {
	found := map[digest.Digest]exposure{}
	for _, dgst := range dgsts {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if _, ok := s.Exposed(dgst); ok {
			continue
		}
		defer s.Hold(dgst)() // until all are written
		e, err := s.exposureOf(dgst)
		if errdefs.IsNotFound(err) || errdefs.IsInvalidArgument(err) {
			continue
		}
		if err != nil {
			return err
		}
		found[dgst] = e
	}
	if err := s.changeExposures(found); err != nil {
		return fmt.Errorf("expose %d blobs: %w", len(found), err)
	}
	if err := s.index.delete(stateBucket, unsureKey); err != nil {
		return fmt.Errorf("note that all is known that is exposed: %w", err)
	}
	s.exposures.mu.Lock()
	s.exposures.all = false
	s.exposures.mu.Unlock()
	return nil
}

func (s *Store) changeExposures(changed map[digest.Digest]exposure) error {
	s.exposures.changing.Lock()
	defer s.exposures.changing.Unlock()
	return s.writeExposures(changed)
}

// writeExposures has records in the index and then in memory. The caller is the
// only one who changes any.
func (s *Store) writeExposures(changed map[digest.Digest]exposure) error {
	if len(changed) == 0 {
		return nil
	}
	err := s.index.change(func(tx *bolt.Tx) error {
		for dgst, e := range changed {
			if err := putRecord(tx, exposedBucket, dgst.String(), e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.exposures.note(changed)
	return nil
}

// note has records in memory. Before any were read there is no place for them:
// they are read with the others.
func (x *exposures) note(changed map[digest.Digest]exposure) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.known != nil {
		maps.Copy(x.known, changed)
	}
}

// digests returns those of all records, in order.
func (x *exposures) digests() []digest.Digest {
	x.mu.RLock()
	defer x.mu.RUnlock()
	all := make([]digest.Digest, 0, len(x.known))
	for dgst := range x.known {
		all = append(all, dgst)
	}
	slices.Sort(all)
	return all
}

// keeps reports whether a blob may not be removed.
func (x *exposures) keeps(dgst digest.Digest, now time.Time) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	e, ok := x.known[dgst]
	return x.unsure() || ok && (e.Left.IsZero() || now.Sub(e.Left) < x.grace)
}

// flag marks what may not be removed in a graph.
func (x *exposures) flag(g *graph, now time.Time) {
	if x.isUnsure() {
		for n := range g.flags {
			g.flags[n] |= flagExposed
		}
		return
	}
	for _, dgst := range x.digests() {
		if n, ok := g.findDigest(dgst); ok && x.keeps(dgst, now) {
			g.flags[n] |= flagExposed
		}
	}
}

// setLost notes that a blob is gone, or there again. That it is wrong about one that
// is gone does no harm: Expose looks.
func (x *exposures) setLost(dgst digest.Digest, lost bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e, ok := x.known[dgst]; ok && e.lost != lost {
		e.lost = lost
		x.known[dgst] = e
	}
}

// relabel changes the labels in memory. On disk they are Facts.
func (x *exposures) relabel(dgst digest.Digest, now time.Time, change func(map[string]string) map[string]string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e, ok := x.known[dgst]; ok {
		e.Labels, e.Updated = change(e.Labels), now
		x.known[dgst] = e
	}
}

// loadExposures reads the records, whenever the index was opened. isLost says that
// it was begun anew.
func (s *Store) loadExposures(isLost bool) error {
	x := &s.exposures
	x.changing.Lock() // what is exposed meanwhile would be forgotten again
	defer x.changing.Unlock()
	known, err := s.readExposures()
	if err != nil {
		return fmt.Errorf("read what is exposed: %w", err)
	}
	x.mu.RLock()
	before, all := x.known, x.all
	x.mu.RUnlock()
	if isLost && before != nil { // this process knows them still
		known = before
		if err := s.writeExposures(before); err != nil {
			return err
		}
	}
	if isLost && (all || before == nil && !s.hasNoBlobs()) {
		// On record: the next start finds an index that is not lost.
		if err := s.index.put(stateBucket, unsureKey, true); err != nil {
			return fmt.Errorf("note that it is not known what is exposed: %w", err)
		}
	}
	all = s.index.has(stateBucket, unsureKey)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.known, x.all = known, all
	return nil
}

// readExposures reads the records of the index. A blob may be gone since: it was
// damaged, or a power cut came before the disk had its name.
func (s *Store) readExposures() (map[digest.Digest]exposure, error) {
	known, now := map[digest.Digest]exposure{}, s.now()
	err := s.index.walk(exposedBucket, func(key string, data []byte) error {
		dgst := digest.Digest(key)
		if dgst.Validate() != nil {
			return nil //nolint:nilerr // a damaged record is as good as none
		}
		e, ok := decoded[exposure](data)
		if !ok {
			e = exposure{} // it counts on it, whatever the record says
		}
		e.lost = true
		if e.Left.After(now) {
			e.Left = now // the clock was wrong
		}
		known[dgst] = e
		return nil
	})
	if err != nil || len(known) == 0 {
		return known, err
	}
	err = s.eachName(context.Background(), func(alg string, entry fs.DirEntry) error {
		dgst := digest.NewDigestFromEncoded(digest.Algorithm(alg), entry.Name())
		if e, ok := known[dgst]; ok && entry.Type().IsRegular() {
			e.lost = e.Created.IsZero() // of a damaged record nothing can be told
			known[dgst] = e
		}
		return nil
	})
	return known, err
}

// purgeExposures forgets what containerd deleted longer than the grace ago.
func (s *Store) purgeExposures() error {
	x, now := &s.exposures, s.now()
	x.changing.Lock()
	defer x.changing.Unlock()
	var old []digest.Digest
	x.mu.RLock()
	for dgst, e := range x.known {
		if !e.Left.IsZero() && now.Sub(e.Left) >= x.grace {
			old = append(old, dgst)
		}
	}
	x.mu.RUnlock()
	if len(old) == 0 {
		return nil
	}
	err := s.index.change(func(tx *bolt.Tx) error {
		var errs error
		for _, dgst := range old {
			errs = errors.Join(errs, tx.Bucket([]byte(exposedBucket)).Delete([]byte(dgst)))
		}
		return errs
	})
	if err != nil {
		return fmt.Errorf("forget what is not exposed any more: %w", err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, dgst := range old {
		delete(x.known, dgst)
	}
	return nil
}
