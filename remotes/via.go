package remotes

import (
	"context"

	"github.com/larder-project/larder/remotes/upstream"
)

// WithVia tells what is done with the context that a client's request came by
// way of other larders, by its Via headers; see upstream.WithVia.
func WithVia(ctx context.Context, via []string) context.Context { return upstream.WithVia(ctx, via) }
