package main

import (
	"context"
	"net/http"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-project/larder/integration/bench/figures"
	"github.com/larder-project/larder/integration/bench/load"
)

const (
	tagRequests = "HEAD by tag"
	tagFirst    = "first GET of a tag after a start"

	// tagTime is for how long tags are asked for, one after the other.
	tagTime = time.Second
	// tagRoom is more than larder's store takes for a tag.
	tagRoom = 16 << 10
)

// tagSteps are how many tags stores have.
func tagSteps() []int { return []int{1, 10, 100, 1000, 10_000} }

func growthTags() experiment {
	return experiment{
		name: "growth, tags",
		about: "Stores of 1 to 10,000 tags of one repository, all of one manifest, each of which was pulled: copies of one store, made while it grew, in memory where there is room. " +
			"From the start of the process to its answer for a tag; that answer alone, once it listens; HEADs over 32 connections that ask for all tags in turn for a second; and what it has resident (VmRSS) behind that, when that no longer changes. " +
			"All is within larder's window.",
		run: func(ctx context.Context, sc *scene) error { return growTags(ctx, sc, tagSteps(), tagTime) },
	}
}

func growTags(ctx context.Context, sc *scene, steps []int, window time.Duration) error {
	img, err := sc.images.add(ctx, recipe{repo: "library/tags", seed: 11, layers: []int64{64 << 10}})
	if err != nil {
		return err
	}
	img.numbered = steps[len(steps)-1]
	u, err := sc.upstream()
	if err != nil {
		return err
	}
	sc.sheet.grow(untilServes, "ms", figures.Less, "tags")
	sc.sheet.grow(tagFirst, "ms", figures.Less, "tags")
	sc.sheet.grow(tagRequests, "requests/s", figures.More, "tags")
	sc.sheet.grow(memoryThen, "MiB", figures.Less, "tags")
	servers, err := sc.grown(ctx, u, steps, tagRoom, func(ctx context.Context, srv *server, from, to int) error {
		return pullMany(ctx, srv, to-from, func(i int) (string, ocispec.Descriptor) {
			return srv.manifestPath(img, numberedTag(from+i)), img.manifest
		})
	})
	if err != nil {
		return err
	}
	var all []contestant
	for i, n := range steps {
		all = append(all, contestant{larder, func(ctx context.Context, m *measured) error {
			return running(ctx, u, servers[i], func(began time.Time) error {
				return measureTags(ctx, servers[i], img, n, window, began, m)
			})
		}})
	}
	return sc.rounds(ctx, all...)
}

// measureTags measures a server that was started at began.
func measureTags(ctx context.Context, srv *server, img *image, n int, window time.Duration, began time.Time, m *measured) error {
	listens := time.Now()
	if err := srv.fetchWhole(ctx, srv.manifestPath(img, numberedTag(m.round*7919%n)), img.manifest); err != nil {
		return err
	}
	m.setAt(untilServes, n, milliseconds(time.Since(began)))
	m.setAt(tagFirst, n, milliseconds(time.Since(listens)))
	r, err := load.Start(ctx, load.Plan{
		Address: srv.addr, Method: http.MethodHead, Path: srv.manifestPath(img, numberedTag("*")), Turns: n, Accept: acceptManifest, Size: img.manifest.Size,
		Conns: parallel, For: window, Limit: answerLimit,
	})
	if err != nil {
		return err
	}
	m.setAt(tagRequests, n, float64(r.Requests)/r.Took.Seconds())
	return m.setMemory(ctx, memoryThen, n, srv)
}
