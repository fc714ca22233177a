package main

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-project/larder/integration/bench/figures"
	"github.com/larder-project/larder/integration/bench/load"
)

const gib = 1 << 30

// warmStreams are the numbers of streams with how often each fetches the blob.
func warmStreams() map[int]int { return map[int]int{1: 8, 8: 2} }

func warmBlob() experiment {
	return experiment{
		name: "warm blob",
		about: "A stored blob of a quarter of the image (256 MiB) by 1 connection that fetches it 8 times, and by 8 that fetch it twice. " +
			"The client, a process of its own, reads into one buffer and compares lengths; one more answer a round is hashed. " +
			"Busy are all cores together, client and kernel included. cat, sha256sum and openssl read the same file without HTTP, 4 times.",
		run: runWarmBlob,
	}
}

func throughput(streams int) string { return "throughput, " + plural(streams, "stream") }
func busy(streams int) string       { return "busy, " + plural(streams, "stream") }

func plural(n int, word string) string {
	if n != 1 {
		word += "s"
	}
	return fmt.Sprintf("%d %s", n, word)
}

func runWarmBlob(ctx context.Context, sc *scene) error {
	img, err := sc.images.add(ctx, eightLayers("library/eight", 1, sc.opts.imageSize))
	if err != nil {
		return err
	}
	blob := img.layers[0]
	u, err := sc.upstream()
	if err != nil {
		return err
	}
	sc.sheet.row(throughput(1), "GiB/s", figures.More, nginx, figures.Goal{Of: nginx, Bound: 1})
	sc.sheet.row(throughput(8), "GiB/s", figures.More, nginx, figures.Goal{Of: nginx, Bound: 1.3})
	sc.sheet.row(busy(1), "s/GiB", figures.Less, nginx, figures.Goal{Of: nginx, Bound: 0.85})
	sc.sheet.row(busy(8), "s/GiB", figures.Less, nginx, figures.Goal{Of: nginx, Bound: 0.85})
	var all []contestant
	add := func(srv *server) {
		all = append(all, contestant{srv.who, func(ctx context.Context, m *measured) error {
			return quietly(u, func() error { return measureWarm(ctx, srv, img, blob, m) })
		}})
	}
	servers, err := sc.warm(ctx, u, img)
	if err != nil {
		return err
	}
	for _, srv := range servers {
		if srv.who != nginxCached { // it opens two files
			add(srv)
		}
	}
	file := filepath.Join(servers[0].root, "blobs", "sha256", blob.Digest.Encoded())
	for _, args := range [][]string{{"cat"}, {"sha256sum"}, {"openssl", "dgst", "-sha256"}} {
		if _, err := exec.LookPath(args[0]); err != nil {
			sc.sheet.note("%s was left out: %v", args[0], err)
			continue
		}
		all = append(all, contestant{args[0], func(ctx context.Context, m *measured) error {
			return measureProgram(ctx, append(args, file, file, file, file), 4*blob.Size, m)
		}})
	}
	return sc.rounds(ctx, all...)
}

// warm starts larder and distribution v3, and has them store an image; larder is the
// first. Go's file server and nginx serve the files of larder's store, nginx as Debian
// configures it and with files that it keeps open.
func (sc *scene) warm(ctx context.Context, u *upstream, img *image) (servers []*server, err error) {
	for _, kind := range append(sc.larders(), sc.registries()[0]) {
		dir, err := sc.newDir()
		if err != nil {
			return nil, err
		}
		srv, err := sc.keep(kind.start(ctx, dir, u.URL()))
		if err != nil {
			return nil, err
		}
		before := u.traffic()
		if err := srv.fetchImage(ctx, img); err != nil {
			return nil, err
		}
		if got := u.traffic().sub(before); got.Bytes != img.size() {
			sc.sheet.note("%s has fetched %d bytes of blobs to store an image of %d", srv.who, got.Bytes, img.size())
		}
		// It asks at the end of each answer what was stored behind it.
		if err := quietly(u, func() error { return srv.fetchImage(ctx, img) }); err != nil {
			return nil, fmt.Errorf("%s has not stored the image: %w", srv.who, err)
		}
		servers = append(servers, srv)
	}
	root := filepath.Join(servers[0].root, "blobs")
	srv, err := sc.keep(startFileServer(ctx, root))
	if err != nil {
		return nil, err
	}
	servers = append(servers, srv)
	if !sc.has("nginx", nginx) {
		return servers, nil
	}
	for _, cached := range []bool{false, true} {
		srv, err := sc.keep(sc.startNginx(ctx, root, cached))
		if err != nil {
			return nil, err
		}
		servers = append(servers, srv)
	}
	return servers, nil
}

// quietly is an error when upstream is asked for bytes of a blob meanwhile.
func quietly(u *upstream, do func() error) error {
	before := u.traffic()
	if err := do(); err != nil {
		return err
	}
	if got := u.traffic().sub(before); got.Bytes != 0 {
		return fmt.Errorf("upstream was asked for %d bytes of %d blobs, want none", got.Bytes, got.Blobs)
	}
	return nil
}

func measureWarm(ctx context.Context, srv *server, img *image, blob ocispec.Descriptor, m *measured) error {
	for streams, each := range warmStreams() {
		r, err := load.Start(ctx, load.Plan{
			Address: srv.addr, Method: http.MethodGet, Path: srv.blobPath(img, blob.Digest), Size: blob.Size,
			Conns: streams, Each: each, Limit: answerLimit,
		})
		if err != nil {
			return err
		}
		if want := int64(streams*each) * blob.Size; r.Bytes != want {
			return fmt.Errorf("%s: %d bytes came, want %d", srv.who, r.Bytes, want)
		}
		m.set(throughput(streams), float64(r.Bytes)/gib/r.Took.Seconds())
		m.set(busy(streams), r.Busy.Seconds()/(float64(r.Bytes)/gib))
	}
	return srv.fetchWhole(ctx, srv.blobPath(img, blob.Digest), blob)
}

// measureProgram runs a program that reads size bytes of files from the page cache.
func measureProgram(ctx context.Context, args []string, size int64, m *measured) error {
	before, err := load.Busy()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := exec.CommandContext(ctx, args[0], args[1:]...).Run(); err != nil { // its output goes to /dev/null
		return fmt.Errorf("%s: %w", args[0], err)
	}
	took := time.Since(began).Seconds()
	after, err := load.Busy()
	m.set(throughput(1), float64(size)/gib/took)
	m.set(busy(1), (after-before).Seconds()/(float64(size)/gib))
	return err
}
