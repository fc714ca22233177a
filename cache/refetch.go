package cache

import (
	"context"

	"github.com/opencontainers/go-digest"
)

// Refetcher brings blobs back that were lost.
type Refetcher interface {
	// Refetch has a blob stored again, from whoever has it, and returns the
	// upstream that sent it.
	Refetch(ctx context.Context, dgst digest.Digest) (source string, err error)
}
