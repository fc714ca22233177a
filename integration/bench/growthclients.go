package main

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"github.com/larder-project/larder/integration/bench/figures"
	"github.com/larder-project/larder/integration/bench/load"
)

const (
	clientBlobs    = "stored blob"
	clientMemory   = "peak of resident memory meanwhile"
	clientRequests = "HEAD by tag"
	clientP99      = "HEAD by tag, 99 % within"

	// clientTime is for how long each number of connections asks for the blob, and for
	// the manifest.
	clientTime = time.Second
)

// clientSteps are how many connections ask at once.
func clientSteps() []int { return []int{1, 4, 16, 64, 256, 1024} }

func growthClients() experiment {
	return experiment{
		name: "growth, clients",
		about: "1 to 1,024 connections at once, in a process started for the round, fewer first: they fetch a stored blob of 8 MiB, each as often as it begins within a second and at least once, " +
			"and what the server has resident meanwhile at most (VmHWM, all processes); then HEADs of a manifest by tag for a second. " +
			"The client is a process of its own on the same cores that compares lengths; one more answer of each a round is hashed. nginx serves larder's files.",
		run: func(ctx context.Context, sc *scene) error { return growClients(ctx, sc, clientSteps(), clientTime) },
	}
}

func growClients(ctx context.Context, sc *scene, steps []int, window time.Duration) error {
	if err := mayOpen(steps[len(steps)-1]); err != nil {
		return err
	}
	img, err := sc.images.add(ctx, recipe{repo: "library/clients", seed: 12, layers: []int64{8 << 20}})
	if err != nil {
		return err
	}
	u, err := sc.upstream()
	if err != nil {
		return err
	}
	sc.sheet.grow(clientBlobs, "GiB/s", figures.More, "connections")
	sc.sheet.grow(clientMemory, "MiB", figures.Less, "connections")
	sc.sheet.grow(clientRequests, "requests/s", figures.More, "connections")
	sc.sheet.grow(clientP99, "ms", figures.Less, "connections")
	servers, err := sc.larderAndNginx(ctx, u, img)
	if err != nil {
		return err
	}
	var all []contestant
	for _, srv := range servers {
		all = append(all, contestant{srv.who, func(ctx context.Context, m *measured) error {
			return running(ctx, u, srv, func(time.Time) error {
				for _, n := range steps {
					if err := measureClients(ctx, srv, img, n, window, m); err != nil {
						return fmt.Errorf("%s: %w", plural(n, "connection"), err)
					}
				}
				return srv.fetchImage(ctx, img)
			})
		}})
	}
	return sc.coldRounds(ctx, all...)
}

// larderAndNginx are a larder that has stored an image, and nginx, if it is there, which
// serves the files of larder's store. Neither runs.
func (sc *scene) larderAndNginx(ctx context.Context, u *upstream, img *image) (servers []*server, err error) {
	dir, err := sc.newDir()
	if err != nil {
		return nil, err
	}
	srv, err := sc.keep(sc.startLarder(ctx, sc.bin, dir, u.URL(), ""))
	if err != nil {
		return nil, err
	}
	for range 2 { // the second one comes when the first is stored
		if err := srv.fetchImage(ctx, img); err != nil {
			return nil, err
		}
	}
	if err := srv.close(); err != nil {
		return nil, err
	}
	servers = append(servers, srv)
	if !sc.has("nginx", nginx) {
		return servers, nil
	}
	limit, err := sc.keep(sc.startNginx(ctx, filepath.Join(srv.root, "blobs"), false))
	if err != nil {
		return nil, err
	}
	return append(servers, limit), limit.close()
}

func measureClients(ctx context.Context, srv *server, img *image, n int, window time.Duration, m *measured) error {
	blob := img.layers[0]
	var r load.Result
	mib, err := peakOf(srv, func() (err error) {
		r, err = load.Start(ctx, load.Plan{
			Address: srv.addr, Method: http.MethodGet, Path: srv.blobPath(img, blob.Digest), Size: blob.Size,
			Conns: n, For: window, Limit: answerLimit,
		})
		return err
	})
	if err != nil {
		return err
	}
	m.setAt(clientBlobs, n, float64(r.Bytes)/gib/r.Took.Seconds())
	m.setAt(clientMemory, n, mib)
	r, err = load.Start(ctx, load.Plan{
		Address: srv.addr, Method: http.MethodHead, Path: srv.manifestPath(img, tag), Accept: acceptManifest, Size: img.manifest.Size,
		Conns: n, For: window, Limit: answerLimit,
	})
	if err != nil {
		return err
	}
	m.setAt(clientRequests, n, float64(r.Requests)/r.Took.Seconds())
	m.setAt(clientP99, n, milliseconds(r.P99))
	return nil
}
