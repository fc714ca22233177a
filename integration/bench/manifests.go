package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/larder-project/larder/integration/bench/figures"
	"github.com/larder-project/larder/integration/bench/load"
)

// manifestTime is for how long one contestant is asked.
const manifestTime = 2 * time.Second

// manifestCase is one way to ask for a manifest.
type manifestCase struct {
	name   string
	method string
	byTag  bool
	conns  int
	bound  float64 // of nginx, for requests a second
}

func manifestCases() (all []manifestCase) {
	for _, conns := range []int{32, 256} {
		all = append(all,
			manifestCase{"HEAD by tag", http.MethodHead, true, conns, 0.65},
			manifestCase{"GET by digest", http.MethodGet, false, conns, 0.8})
	}
	return all
}

func (c manifestCase) measure(what string) string {
	return fmt.Sprintf("%s, %d connections: %s", c.name, c.conns, what)
}

func manifests() experiment {
	return experiment{
		name: "manifest",
		about: "A stored manifest, asked for over 32 and 256 connections, each with one request at a time, for 2 seconds. " +
			"The client is a process of its own that compares lengths; one more answer of each kind a round is hashed. " +
			"larder's window is its default of 24 hours; nginx and Go's file server serve the manifest's file. " +
			"Upstream is what the registry behind was asked meanwhile: distribution asks at each HEAD by tag, larder within its window never.",
		run: runManifests,
	}
}

func runManifests(ctx context.Context, sc *scene) error {
	img, err := sc.images.add(ctx, eightLayers("library/small", 2, 2<<20))
	if err != nil {
		return err
	}
	u, err := sc.upstream()
	if err != nil {
		return err
	}
	for _, c := range manifestCases() {
		sc.sheet.row(c.measure("requests"), "a second", figures.More, nginx, figures.Goal{Of: nginx, Bound: c.bound})
		sc.sheet.row(c.measure("99 % within"), "ms", figures.Less, nginx, figures.Goal{Of: nginx, Bound: 1.5})
		sc.sheet.row(c.measure("upstream"), "requests per 1,000", figures.Less, "", figures.Goal{})
	}
	servers, err := sc.warm(ctx, u, img)
	if err != nil {
		return err
	}
	var all []contestant
	for _, srv := range servers {
		all = append(all, contestant{srv.who, func(ctx context.Context, m *measured) error {
			return measureManifest(ctx, u, srv, img, m)
		}})
	}
	return sc.rounds(ctx, all...)
}

func measureManifest(ctx context.Context, u *upstream, srv *server, img *image, m *measured) error {
	for _, c := range manifestCases() {
		ref := img.manifest.Digest.String()
		if c.byTag {
			ref = tag
		}
		before := u.traffic()
		r, err := load.Start(ctx, load.Plan{
			Address: srv.addr, Method: c.method, Path: srv.manifestPath(img, ref), Accept: acceptManifest, Size: img.manifest.Size,
			Conns: c.conns, For: manifestTime, Limit: answerLimit,
		})
		if err != nil {
			return err
		}
		asked := u.traffic().sub(before)
		if srv.who == larder && asked != (traffic{}) {
			return fmt.Errorf("%s: upstream was asked inside the window: %+v", c.name, asked)
		}
		m.set(c.measure("requests"), float64(r.Requests)/r.Took.Seconds())
		m.set(c.measure("99 % within"), float64(r.P99)/float64(time.Millisecond))
		if !srv.files {
			m.set(c.measure("upstream"), 1000*float64(asked.Blobs+asked.Others)/float64(r.Requests))
		}
		if err := srv.fetchWhole(ctx, srv.manifestPath(img, ref), img.manifest); err != nil {
			return err
		}
	}
	return nil
}
