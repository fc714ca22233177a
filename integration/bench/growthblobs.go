package main

import (
	"context"
	"time"

	"github.com/larder-project/larder/integration/bench/figures"
)

// Measures of what grows with a store.
const (
	untilServes = "from start to first answer"
	memoryThen  = "resident memory"
)

// tinyLarder is more than larder's store takes for a tiny blob.
const tinyLarder = 8 << 10

// blobSteps are how many blobs stores have: 1,000, 3,000, 10,000 and so on, to most.
func blobSteps(most int) (steps []int) {
	for n := 1000; n < most; n *= 10 {
		steps = append(steps, n)
		if 3*n < most {
			steps = append(steps, 3*n)
		}
	}
	return append(steps, most)
}

func growthBlobs() experiment {
	return experiment{
		name: "growth, blobs",
		about: "Stores of 1,000 to 100,000 tiny blobs (-full: 1,000,000), each of which was pulled: copies of one store, made while it grew, in memory where there is room. " +
			"From the start of the process to its answer for a stored blob, and what it has resident (VmRSS) then, when that no longer changes.",
		run: func(ctx context.Context, sc *scene) error {
			return growBlobs(ctx, sc, blobSteps(sc.opts.tinyBlobs()))
		},
	}
}

func growBlobs(ctx context.Context, sc *scene, steps []int) error {
	blobs, err := sc.images.tiny(ctx, steps[len(steps)-1])
	if err != nil {
		return err
	}
	img := &image{repo: "library/tiny"}
	u, err := sc.upstream()
	if err != nil {
		return err
	}
	sc.sheet.grow(untilServes, "ms", figures.Less, "blobs")
	sc.sheet.grow(memoryThen, "MiB", figures.Less, "blobs")
	servers, err := sc.grown(ctx, u, steps, tinyLarder, func(ctx context.Context, srv *server, from, to int) error {
		return pullTiny(ctx, srv, img, blobs[from:to])
	})
	if err != nil {
		return err
	}
	var all []contestant
	for i, n := range steps {
		all = append(all, contestant{larder, func(ctx context.Context, m *measured) error {
			return running(ctx, u, servers[i], func(began time.Time) error {
				blob := blobs[m.round*7919%n] // anywhere in it
				if err := servers[i].fetchWhole(ctx, servers[i].blobPath(img, blob.Digest), blob); err != nil {
					return err
				}
				m.setAt(untilServes, n, milliseconds(time.Since(began)))
				return m.setMemory(ctx, memoryThen, n, servers[i])
			})
		}})
	}
	return sc.rounds(ctx, all...)
}
