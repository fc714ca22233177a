package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc"

	"github.com/larder-project/larder/cache"
)

// Known asks the containerd whose socket is at address for the digests that it has
// in its database, in all of its namespaces.
func Known(ctx context.Context, address string) (known []digest.Digest, err error) {
	c, err := NewContainerd(address, Limits{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	spaces, err := namespacesapi.NewNamespacesClient(c.conn).List(ctx, &namespacesapi.ListNamespacesRequest{})
	if err != nil {
		return nil, fmt.Errorf("list namespaces of containerd at %s: %w", address, err)
	}
	for _, space := range spaces.GetNamespaces() {
		if known, err = appendKnown(namespaces.WithNamespace(ctx, space.GetName()), c.conn, known); err != nil {
			return nil, fmt.Errorf("list content of containerd at %s, namespace %s: %w", address, space.GetName(), err)
		}
	}
	return known, nil
}

func appendKnown(ctx context.Context, conn *grpc.ClientConn, known []digest.Digest) ([]digest.Digest, error) {
	list, err := contentapi.NewContentClient(conn).List(ctx, &contentapi.ListContentRequest{})
	if err != nil {
		return nil, err
	}
	for {
		part, err := list.Recv()
		if errors.Is(err, io.EOF) {
			return known, nil
		}
		if err != nil {
			return nil, err
		}
		for _, info := range part.GetInfo() {
			known = append(known, digest.Digest(info.GetDigest()))
		}
	}
}

const (
	// askEvery is how often containerd is asked until it says what it knows: it may
	// begin to run long after larder.
	askEvery = 10 * time.Second
	// askLimit is how long it has for an answer.
	askLimit = time.Minute
)

// MakeSure asks containerd for what it knows, if the store cannot tell, until it
// has said so or ctx ends. Until then nothing is removed from the store.
func MakeSure(ctx context.Context, store *cache.Store, address string, logger *slog.Logger) {
	makeSureEvery(ctx, askEvery, store, address, logger)
}

func makeSureEvery(ctx context.Context, every time.Duration, store *cache.Store, address string, logger *slog.Logger) {
	if !store.Unsure() {
		return
	}
	logger.Warn("index was lost: nothing is evicted until containerd has said what it counts on", "containerd", address)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		n, err := makeSure(ctx, store, address)
		if err == nil {
			logger.Info("containerd has said what it counts on", "blobs", n)
			return
		}
		logger.Debug("containerd has not said what it counts on", "err", err)
		timer.Reset(every)
	}
}

func makeSure(ctx context.Context, store *cache.Store, address string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	known, err := Known(ctx, address)
	if err != nil {
		return 0, err
	}
	return len(known), store.ExposeAll(ctx, known)
}
