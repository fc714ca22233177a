package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larder-project/larder/integration/bench/figures"
	"github.com/larder-project/larder/integration/bench/line"
)

const (
	mbit = 1_000_000 / 8
	// roundTrip of a registry that is not near.
	roundTrip = 50 * time.Millisecond
)

// coldCase is one image over one line.
type coldCase struct {
	name  string
	about string
	shape line.Shape
	bound float64 // of a direct pull
	image func(o options) recipe
}

func coldCases() []coldCase {
	far := line.Shape{RTT: roundTrip, Rate: 200 * mbit}
	return []coldCase{
		{"memory speed", "1 GiB in 8 layers; upstream as fast as loopback", line.Shape{}, 1.4, func(o options) recipe {
			return eightLayers("library/eight", 1, o.imageSize)
		}},
		{"1 Gbit/s", "512 MiB (-full: 1 GiB) in 8 layers; a line of 1 Gbit/s, 0.2 ms away", line.Shape{RTT: 200 * time.Microsecond, Rate: 1000 * mbit}, 1.02, func(o options) recipe {
			return o.slow("library/half", 3, 2)
		}},
		{"20 MB/s a connection", "512 MiB (-full: 1 GiB) in 8 layers; each connection has 20 MB/s, 50 ms away", line.Shape{RTT: roundTrip, PerConn: 20_000_000}, 0.35, func(o options) recipe {
			return o.slow("library/half", 3, 2)
		}},
		{"60 layers, 200 Mbit/s", "60 layers of 154 KiB or less; a line of 200 Mbit/s, 50 ms away", far, 0.5, func(options) recipe {
			return sixtyLayers("library/sixty", 4, 9<<20)
		}},
		{"8 layers, 200 Mbit/s", "128 MiB (-full: 1 GiB) in 8 layers; a line of 200 Mbit/s, 50 ms away", far, 1.0, func(o options) recipe {
			return o.slow("library/eighth", 5, 8)
		}},
	}
}

// slow is an image for a slow line: a part of the usual one, unless all is asked for.
func (o options) slow(repo string, seed uint64, part int64) recipe {
	if o.full {
		return eightLayers("library/eight", 1, o.imageSize)
	}
	return eightLayers(repo, seed, o.imageSize/part)
}

func coldPulls() (all []experiment) {
	for _, c := range coldCases() {
		all = append(all, experiment{
			name: "cold pull, " + c.name,
			about: c.about + ". containerd's transfer service pulls with its defaults (3 blobs at a time) into an empty content store, without unpacking; " +
				"each pull through has an empty store and has just been started. All that came is hashed, the bytes of upstream's blobs are counted.",
			run: func(ctx context.Context, sc *scene) error { return runColdPull(ctx, sc, c) },
		})
	}
	return all
}

func runColdPull(ctx context.Context, sc *scene, c coldCase) error {
	if os.Getuid() != 0 {
		sc.sheet.note("left out: containerd needs root")
		return nil
	}
	img, err := sc.images.add(ctx, c.image(sc.opts))
	if err != nil {
		return err
	}
	u, err := sc.upstream()
	if err != nil {
		return err
	}
	n, err := sc.node(ctx)
	if err != nil {
		return err
	}
	base := u.Addr()
	if c.shape != (line.Shape{}) {
		l, err := line.Start(u.Addr(), c.shape)
		if err != nil {
			return err
		}
		sc.onEnd(l.Close)
		base = l.Addr()
	}
	if c.shape.Rate > 0 {
		sc.sheet.note("the line alone takes %.2f s for these bytes", float64(img.size())/float64(c.shape.Rate))
	}
	sc.sheet.row("time", "s", figures.Less, direct, figures.Goal{Of: direct, Bound: c.bound})
	sc.sheet.row("upstream bytes", "of the image's", figures.Less, "", figures.Goal{Bound: 1})
	sc.sheet.row("upstream requests", "", figures.Less, "", figures.Goal{})
	p := &coldPull{sc: sc, u: u, n: n, img: img, base: base}
	all := []contestant{{direct, p.direct}}
	for _, kind := range append(sc.larders(), sc.registries()...) {
		all = append(all, contestant{kind.who, func(ctx context.Context, m *measured) error { return p.through(ctx, kind, m) }})
	}
	if c.shape != (line.Shape{}) {
		return sc.coldRounds(ctx, all...) // what it waits for is the line
	}
	return sc.rounds(ctx, append(all, contestant{inProxy, p.proxied})...)
}

// coldPull is what the contestants share.
type coldPull struct {
	sc   *scene
	u    *upstream
	n    *node
	img  *image
	base string // host:port of upstream, or of the line before it
}

func (p *coldPull) direct(ctx context.Context, m *measured) error {
	return p.measure(ctx, p.n, p.base, m)
}

// through pulls by a server that has nothing.
func (p *coldPull) through(ctx context.Context, kind pullThrough, m *measured) error {
	return p.sc.cold(ctx, kind, "http://"+p.base, func(srv *server) error {
		if kind.who != larder {
			return p.measure(ctx, p.n, srv.addr, m)
		}
		return p.checked(ctx, srv, p.n, m)
	})
}

// checked is a pull into a larder that has nothing before it, and all behind it.
func (p *coldPull) checked(ctx context.Context, srv *server, n *node, m *measured) error {
	if err := checkStore(srv, p.img, false); err != nil {
		return err
	}
	if err := p.measure(ctx, n, srv.addr, m); err != nil {
		return err
	}
	if got := m.values["upstream bytes"]; got != 1 {
		return fmt.Errorf("upstream has sent %v times the image's bytes, want each once", got)
	}
	return checkStore(srv, p.img, true)
}

// proxied pulls into a larder that has nothing, and is the content store of a
// containerd of its own.
func (p *coldPull) proxied(ctx context.Context, m *measured) error {
	return p.sc.cold(ctx, p.sc.proxied(""), "http://"+p.base, func(srv *server) (err error) {
		n, err := p.sc.startNode(ctx, filepath.Dir(srv.socket), srv)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, n.close()) }()
		return p.checked(ctx, srv, n, m)
	})
}

// measure is one pull from addr.
func (p *coldPull) measure(ctx context.Context, n *node, addr string, m *measured) error {
	if err := errors.Join(n.forget(ctx), n.from(addr)); err != nil {
		return err
	}
	unix.Sync() // what was written before is not to cost who comes next
	before := p.u.traffic()
	took, err := n.pull(ctx, p.img, false)
	if err != nil {
		return err
	}
	asked := p.u.traffic().sub(before)
	m.set("time", took.Seconds())
	m.set("upstream bytes", float64(asked.Bytes)/float64(p.img.size()))
	m.set("upstream requests", float64(asked.Blobs+asked.Others))
	if asked.Running > 0 {
		return fmt.Errorf("%d answers of upstream's still run a minute after the pull", asked.Running)
	}
	return n.check(p.img)
}
