package cache

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	bolt "go.etcd.io/bbolt"
)

// The index's own state, in stateBucket.
const (
	// newKey is set from when an index is begun until it has taken over what
	// the snapshot has. As long as it is there no snapshot is written.
	newKey = "new"
	// rebuildKey is set while what hangs on tags is not all known again.
	rebuildKey = "rebuild"
	// unsureKey is set from when an index was lost until ExposeAll has said what
	// was exposed before.
	unsureKey = "unsure"
)

// healer is the background's work on the index.
type healer struct {
	mu     sync.Mutex         // guards what follows; held while the work is waited for
	cancel context.CancelFunc // nil if there is none
	wg     sync.WaitGroup
	closed bool
}

// begin starts the work, in place of one that runs.
func (h *healer) begin(work func(context.Context)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stop()
	if h.closed {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel = cancel
	h.wg.Go(func() { work(ctx) })
}

// stop stops the work and waits for it. h.mu is held.
func (h *healer) stop() {
	if h.cancel != nil {
		h.cancel()
	}
	h.wg.Wait()
	h.cancel = nil
}

// pause ends the work until it is begun again.
func (h *healer) pause() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stop()
}

// end is stop for good. The next Open goes on with the work.
func (h *healer) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.stop()
}

// restoreIndex gives a new index back what the snapshot has: at once, tags,
// digests that were asked for and pins; behind it, what hangs on them. It is
// called whenever the index was opened.
//
// Holders do not come back. That a manifest names a blob does not show that its
// repository has it: anyone may write a manifest. Where something is private,
// upstreams are asked once more.
func (s *Store) restoreIndex() error {
	isLost := s.index.has(stateBucket, newKey)
	if err := s.loadExposures(isLost); err != nil {
		return err
	}
	if isLost {
		if err := s.restoreSnapshot(); err != nil {
			return err
		}
	}
	s.indexChanged() // an older larder, which writes no snapshot, may have changed it
	unread, rebuild := s.index.unread.Load(), s.index.has(stateBucket, rebuildKey)
	if unread || rebuild {
		s.healer.begin(func(ctx context.Context) {
			if unread {
				s.checkIndex(ctx)
			}
			if rebuild && ctx.Err() == nil {
				s.rebuild(ctx)
			}
		})
	}
	return nil
}

// has reports whether there is a record, whatever it is.
func (x *index) has(bucket, key string) (has bool) {
	err := x.view(func(tx *bolt.Tx) error {
		has = recordIn(tx, bucket, key) != nil
		return nil
	})
	return err == nil && has
}

// restoreSnapshot takes the snapshot over in one transaction: after a crash it
// is done, or begun anew. A snapshot that is not readable is told, and kept for a
// person: the next one takes its place. What came into the index meanwhile is
// newer.
func (s *Store) restoreSnapshot() error {
	found, ours, err := s.readSnapshot()
	if err != nil {
		aside := damagedPath(s.snapshotPath())
		s.logger.Error("index was lost, and its snapshot is not readable: tags and pins are lost, blobs are not", "err", err, "kept", aside)
		if rerr := s.disk.Rename(s.snapshotPath(), aside); rerr != nil {
			return fmt.Errorf("restore index: %w; set aside: %w", err, rerr)
		}
	}
	err = s.index.change(func(tx *bolt.Tx) error {
		for name, all := range map[string]map[string]json.RawMessage{tagsBucket: found.tags, manifestsBucket: found.links, pinsBucket: found.pins} {
			bucket := tx.Bucket([]byte(name))
			for key, record := range all {
				if bucket.Get([]byte(key)) != nil {
					continue
				}
				if err := bucket.Put([]byte(key), record); err != nil {
					return err
				}
			}
		}
		if ours {
			if err := putRecord(tx, stateBucket, rebuildKey, true); err != nil {
				return err
			}
		}
		return tx.Bucket([]byte(stateBucket)).Delete([]byte(newKey))
	})
	if err != nil {
		return fmt.Errorf("restore index: %w", err)
	}
	if ours {
		s.logger.Warn("index was lost and is restored from its snapshot; what hangs on the tags follows",
			"tags", len(found.tags), "digests", len(found.links), "pins", len(found.pins))
	}
	return nil
}
