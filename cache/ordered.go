package cache

import (
	"context"
	"fmt"
	"io/fs"
	"slices"

	"github.com/opencontainers/go-digest"
)

// orderedPage is how many digests EachStored has in memory at a time.
const orderedPage = 4096

// EachStored calls fn for what is in the places of blobs, whatever it is, in
// the order of the digests and behind after ("": from the first). What comes
// or goes meanwhile may be left out.
func (s *Store) EachStored(ctx context.Context, after digest.Digest, fn func(digest.Digest) error) error {
	for {
		page, err := s.nextStored(ctx, after, orderedPage)
		if err != nil {
			return fmt.Errorf("list blobs: %w", err)
		}
		for _, dgst := range page {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := fn(dgst); err != nil {
				return err
			}
		}
		if len(page) < orderedPage {
			return nil
		}
		after = page[len(page)-1]
	}
}

// nextStored returns the first n digests behind after. A folder has no order:
// it is read as a whole for each page, and a million names cost 250 such reads,
// but never the memory for all.
func (s *Store) nextStored(ctx context.Context, after digest.Digest, n int) ([]digest.Digest, error) {
	var page []digest.Digest
	trim := func() {
		slices.Sort(page)
		page = page[:min(len(page), n)]
	}
	err := s.eachName(ctx, func(alg string, e fs.DirEntry) error {
		dgst := digest.NewDigestFromEncoded(digest.Algorithm(alg), e.Name())
		if isBlob := dgst.Validate() == nil; isBlob && dgst > after {
			page = append(page, dgst)
		}
		if len(page) >= 2*n {
			trim()
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	trim()
	return page, nil
}
