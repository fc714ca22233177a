package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/larder-project/larder/integration/bench/figures"
	"github.com/larder-project/larder/integration/bench/load"
)

// coldClients are the numbers of clients that want one blob at once.
func coldClients() []int { return []int{1, 8, 32} }

func coldBlob() experiment {
	return experiment{
		name: "cold blob",
		about: "One blob of 256 MiB (-full: 1 GiB) that is not stored, by 1, 8 and 32 clients at once; upstream as fast as loopback, each server has just been started. " +
			"The clients are a process of their own that compares lengths; one more answer is hashed.",
		run: runColdBlob,
	}
}

func clients(n int, what string) string { return plural(n, "client") + ": " + what }

func runColdBlob(ctx context.Context, sc *scene) error {
	img, err := sc.images.add(ctx, sc.opts.oneBlob())
	if err != nil {
		return err
	}
	u, err := sc.upstream()
	if err != nil {
		return err
	}
	for _, n := range coldClients() {
		goal := figures.Goal{}
		if n > 1 {
			goal = figures.Goal{Of: registry3, Bound: 0.5}
		}
		sc.sheet.row(clients(n, "time"), "s", figures.Less, registry3, goal)
		sc.sheet.row(clients(n, "upstream bytes"), "of the blob's", figures.Less, "", figures.Goal{Bound: 1})
	}
	var all []contestant
	for _, kind := range append(sc.larders(), sc.registries()...) {
		all = append(all, contestant{kind.who, func(ctx context.Context, m *measured) error {
			for _, n := range coldClients() {
				if err := measureColdBlob(ctx, sc, kind, u, img, n, m); err != nil {
					return fmt.Errorf("%s: %w", plural(n, "client"), err)
				}
			}
			return nil
		}})
	}
	return sc.rounds(ctx, all...)
}

// oneBlob is an image with one large layer.
func (o options) oneBlob() recipe {
	r := recipe{repo: "library/one", seed: 7, layers: []int64{o.imageSize / 4}}
	if o.full {
		r.layers[0] = o.imageSize
	}
	return r
}

// cold starts a server with nothing for one measurement, and ends it.
func (sc *scene) cold(ctx context.Context, kind pullThrough, base string, do func(srv *server) error) (err error) {
	dir, err := sc.newDir()
	if err != nil {
		return err
	}
	srv, err := kind.start(ctx, dir, base)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, srv.close(), os.RemoveAll(dir)) }()
	unix.Sync() // what was written before is not to cost who comes next
	return do(srv)
}

func measureColdBlob(ctx context.Context, sc *scene, kind pullThrough, u *upstream, img *image, n int, m *measured) error {
	return sc.cold(ctx, kind, u.URL(), func(srv *server) error {
		blob := img.layers[0]
		before := u.traffic()
		r, err := load.Start(ctx, load.Plan{
			Address: srv.addr, Method: http.MethodGet, Path: srv.blobPath(img, blob.Digest), Size: blob.Size, Conns: n, Each: 1, Limit: answerLimit,
		})
		if err != nil {
			return err
		}
		asked := u.traffic().sub(before)
		m.set(clients(n, "time"), r.Took.Seconds())
		m.set(clients(n, "upstream bytes"), float64(asked.Bytes)/float64(blob.Size))
		if r.Bytes != int64(n)*blob.Size {
			return fmt.Errorf("%d bytes came, want %d", r.Bytes, int64(n)*blob.Size)
		}
		if kind.who == larder {
			if asked.Bytes != blob.Size || asked.Running > 0 {
				return fmt.Errorf("upstream was asked for %+v, want %d bytes", asked, blob.Size)
			}
			if err := awaitStored(ctx, srv, blob); err != nil {
				return err
			}
			return quietly(u, func() error { return srv.fetchWhole(ctx, srv.blobPath(img, blob.Digest), blob) })
		}
		return srv.fetchWhole(ctx, srv.blobPath(img, blob.Digest), blob)
	})
}

// awaitStored waits until larder's store has a blob.
func awaitStored(ctx context.Context, srv *server, blob ocispec.Descriptor) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	path := filepath.Join(srv.root, "blobs", "sha256", blob.Digest.Encoded())
	if err := poll(ctx, func() bool { return checkFile(path, blob, false) == nil }); err != nil {
		return fmt.Errorf("larder has not stored %s: %w", blob.Digest, err)
	}
	return nil
}
