package cache

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/testsuite"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	bolt "go.etcd.io/bbolt"
)

// TestContentSuite is containerd's own suite on the store as it is.
func TestContentSuite(t *testing.T) {
	t.Parallel()
	testsuite.ContentSuite(t, "larder", func(ctx context.Context, root string) (context.Context, content.Store, func() error, error) {
		s, err := Open(root)
		if err != nil {
			return nil, nil, nil, err
		}
		return ctx, s, s.Close, nil
	})
}

// TestContentSuiteBelowMetadata runs the namespace suite. Namespaces are not
// the store's but those of containerd's metadata database, which lies over any
// content store; so it does here.
func TestContentSuiteBelowMetadata(t *testing.T) {
	t.Parallel()
	open := func(ctx context.Context, root string) (context.Context, content.Store, func() error, error) {
		s, err := Open(root)
		if err != nil {
			return nil, nil, nil, err
		}
		db, err := bolt.Open(filepath.Join(root, "meta.db"), 0o600, nil)
		if err != nil {
			return nil, nil, nil, err
		}
		var count atomic.Int32
		wrap := func(ctx context.Context, _ bool) (context.Context, func(context.Context) error, error) {
			ctx = namespaces.WithNamespace(ctx, fmt.Sprintf("ns-%d", count.Add(1)))
			return ctx, func(context.Context) error { return nil }, nil
		}
		closeAll := func() error {
			if err := db.Close(); err != nil {
				return err
			}
			return s.Close()
		}
		return testsuite.SetContextWrapper(ctx, wrap), metadata.NewDB(db, s, nil).ContentStore(), closeAll, nil
	}
	testsuite.ContentSuite(t, "larder-metadata", open)
	testsuite.ContentCrossNSSharedSuite(t, "larder-metadata", open)
}
