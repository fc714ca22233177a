package cache

import (
	"context"
	"encoding/hex"
	"fmt"
	"io/fs"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// recount is a walk over the blobs while they come and go. What changes during
// the walk is counted by the change and passed over by the walk.
type recount struct {
	sum     tally
	changed map[digest.Digest]struct{}
	// walked has a bit for each blob that was passed, by the begin of its digest.
	// A deleted one that shares its bit with another is taken for passed: that is
	// one in a hundred of those few, and right again with the next recount.
	walked [recountBits / 8]byte
}

const recountBits = 1 << 24

func bitOf(dgst digest.Digest) (i int, mask byte) {
	var b [3]byte
	if _, err := hex.Decode(b[:], []byte(dgst.Encoded()[:6])); err != nil {
		return 0, 1 // no valid digest
	}
	n := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	return n / 8, 1 << (n % 8)
}

// changing counts a blob that is about to go, so that its end can be taken away
// again; and has the walk pass over what comes or goes.
func (r *recount) changing(dgst digest.Digest, bytes int64) {
	_, known := r.changed[dgst]
	i, mask := bitOf(dgst)
	if bytes > 0 && !known && r.walked[i]&mask == 0 {
		r.sum.add(1, bytes)
	}
	r.changed[dgst] = struct{}{}
}

// pass counts a blob that the walk comes by.
func (r *recount) pass(dgst digest.Digest, bytes int64) {
	if _, ok := r.changed[dgst]; ok {
		return
	}
	i, mask := bitOf(dgst)
	r.walked[i] |= mask
	r.sum.add(1, bytes)
}

// Recount counts the blobs one by one, while the store is in use, and sets the
// Usage right. One that runs already is errdefs.ErrUnavailable.
func (s *Store) Recount(ctx context.Context) error {
	u := &s.usage
	u.mu.Lock()
	if u.recount != nil {
		u.mu.Unlock()
		return fmt.Errorf("the blobs are being counted already: %w", errdefs.ErrUnavailable)
	}
	r := &recount{changed: map[digest.Digest]struct{}{}}
	u.recount = r
	for dgst, bytes := range u.moving {
		r.changing(dgst, bytes)
	}
	u.mu.Unlock()
	err := s.eachBlob(ctx, func(dgst digest.Digest, fi fs.FileInfo) error {
		u.mu.Lock()
		defer u.mu.Unlock()
		r.pass(dgst, blocksOf(fi))
		return nil
	})
	u.mu.Lock()
	defer u.mu.Unlock()
	u.recount = nil
	if err != nil {
		return fmt.Errorf("count blobs: %w", err)
	}
	if off := r.sum.Bytes - u.blobs.Bytes; off != 0 {
		s.logger.Info("blobs counted", "blobs", r.sum.Files, "bytes", r.sum.Bytes, "off", off)
	}
	u.blobs, u.counted, u.doubt, u.changed = r.sum, s.now(), false, true
	return nil
}
