package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larder-project/larder/integration/bench/figures"
	"github.com/larder-project/larder/integration/bench/load"
)

const dd = "dd conv=fdatasync"

func fillDisk() experiment {
	return experiment{
		name: "fill",
		about: "One blob of 256 MiB (-full: 1 GiB) from an upstream as fast as loopback, by one client, until it is hashed and durable in larder's store; " +
			"dd copies the same file to the same file system from the page cache. What was written before is synced first.",
		run: runFillDisk,
	}
}

func runFillDisk(ctx context.Context, sc *scene) error {
	img, err := sc.images.add(ctx, sc.opts.oneBlob())
	if err != nil {
		return err
	}
	u, err := sc.upstream()
	if err != nil {
		return err
	}
	const measure = "throughput"
	blob := img.layers[0]
	sc.sheet.row(measure, "GiB/s", figures.More, dd, figures.Goal{Of: dd, Bound: 0.8})
	speed := func(took time.Duration) float64 { return float64(blob.Size) / gib / took.Seconds() }
	all := []contestant{{dd, func(ctx context.Context, m *measured) error {
		to := filepath.Join(sc.dir, "dd")
		unix.Sync()
		began := time.Now()
		if err := command(ctx, sc.dir, "dd", "if="+sc.images.path(blob.Digest), "of="+to, "bs=1M", "conv=fdatasync"); err != nil {
			return err
		}
		m.set(measure, speed(time.Since(began)))
		if err := checkFile(to, blob, true); err != nil {
			return fmt.Errorf("dd's copy: %w", err)
		}
		return os.Remove(to)
	}}}
	for _, kind := range sc.larders() {
		all = append(all, contestant{kind.who, func(ctx context.Context, m *measured) error {
			return sc.cold(ctx, kind, u.URL(), func(srv *server) error {
				r, err := load.Start(ctx, load.Plan{
					Address: srv.addr, Method: http.MethodGet, Path: srv.blobPath(img, blob.Digest), Size: blob.Size, Conns: 1, Each: 1, Limit: answerLimit,
				})
				if err != nil {
					return err
				}
				answered := time.Now()
				if err := awaitStored(ctx, srv, blob); err != nil {
					return err
				}
				m.set(measure, speed(r.Took+time.Since(answered)))
				return checkFile(filepath.Join(srv.root, "blobs", "sha256", blob.Digest.Encoded()), blob, true)
			})
		}})
	}
	return sc.rounds(ctx, all...)
}
