package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/larder-project/larder/integration/bench/figures"
)

func startUp() experiment {
	return experiment{
		name: "start-up",
		about: "A store of 100,000 tiny blobs (-full: 1,000,000), each of which was pulled; into memory, where there is room, and the folder was copied, since that takes minutes less. From the start of the process to its answer for a stored blob; " +
			"what it has resident (VmRSS) then, when that no longer changes; and what a blob costs, beyond what the empty store has. " +
			"Inodes and disk are counted in the folder of the store, blocks included.",
		run: runStartUp,
	}
}

func runStartUp(ctx context.Context, sc *scene) error {
	start, memory := 60.0, 40.0
	if sc.opts.full {
		start, memory = 1000, 0
	}
	if sc.opts.blobs > 0 {
		start, memory = 0, 0
	}
	blobs, err := sc.images.tiny(ctx, sc.opts.tinyBlobs())
	if err != nil {
		return err
	}
	img := &image{repo: "library/tiny"}
	u, err := sc.upstream()
	if err != nil {
		return err
	}
	sc.sheet.row("until it serves", "ms", figures.Less, registry3, figures.Goal{Bound: start})
	sc.sheet.row("memory then", "MiB", figures.Less, registry3, figures.Goal{Bound: memory})
	sc.sheet.row("inodes a blob", "", figures.Less, "", figures.Goal{Bound: 1})
	sc.sheet.row("disk a blob", "KiB", figures.Less, "", figures.Goal{Bound: 4.5})
	sc.sheet.row("index a blob", "bytes", figures.Less, "", figures.Goal{Bound: 300})
	sc.sheet.row("memory a blob", "bytes", figures.Less, "", figures.Goal{Bound: 100})
	var all []contestant
	kinds := []pullThrough{sc.larder()}
	if !sc.opts.full { // distribution's would be 4,000,000 files
		kinds = append(kinds, sc.registries()[0])
	}
	for _, kind := range kinds {
		srv, cost, err := fillTiny(ctx, sc, kind, u, img, blobs)
		if err != nil {
			return err
		}
		all = append(all, contestant{kind.who, func(ctx context.Context, m *measured) error {
			return quietly(u, func() error { return measureStart(ctx, srv, img, blobs, cost, m) })
		}})
	}
	return sc.rounds(ctx, all...)
}

// tinyCost is what the empty store has, and what a blob costs on the disk.
type tinyCost struct {
	memory float64 // of a process with an empty store, in KiB
	blob   storeSize
}

// fillTiny measures a server with an empty store, gives it one into which all blobs
// were pulled, and says what these cost.
func fillTiny(ctx context.Context, sc *scene, kind pullThrough, u *upstream, img *image, blobs []ocispec.Descriptor) (srv *server, cost tinyCost, err error) {
	dir, err := sc.newDir()
	if err != nil {
		return nil, cost, err
	}
	if srv, err = kind.start(ctx, dir, u.URL()); err != nil {
		return nil, cost, err
	}
	cost.memory, err = settled(ctx, srv)
	if err := errors.Join(err, srv.close()); err != nil {
		return nil, cost, err
	}
	before, err := sizeOf(srv.root)
	if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
		return nil, cost, err
	}
	if err := pulledInto(ctx, sc, kind, dir, u, img, blobs); err != nil {
		return nil, cost, err
	}
	size, err := sizeOf(srv.root)
	if err != nil {
		return nil, cost, err
	}
	n := float64(len(blobs))
	cost.blob = storeSize{(size.inodes - before.inodes) / n, (size.blocks - before.blocks) / n, (size.index - before.index) / n}
	srv, err = sc.keep(kind.start(ctx, dir, u.URL()))
	return srv, cost, err
}

// pulledInto has a server pull all blobs, and leaves its folder at dir. Where there is
// room it does so in memory, where nothing waits for a disk, and the folder is copied.
func pulledInto(ctx context.Context, sc *scene, kind pullThrough, dir string, u *upstream, img *image, blobs []ocispec.Descriptor) error {
	base, inMemory := sc.dir, roomInMemory(int64(len(blobs))*tinyRoom)
	if inMemory {
		base = memoryDir
	}
	tmp, err := os.MkdirTemp(base, "larder-bench-")
	if err != nil {
		return err
	}
	sc.onEnd(func() error { return os.RemoveAll(tmp) })
	srv, err := kind.start(ctx, tmp, u.URL())
	if err != nil {
		return err
	}
	began := time.Now()
	if err := errors.Join(pullTiny(ctx, srv, img, blobs), srv.close()); err != nil {
		return err
	}
	fmt.Fprintf(sc.out, "   %s has pulled %d blobs in %.0f s\n", srv.who, len(blobs), time.Since(began).Seconds())
	if !inMemory {
		return os.Rename(tmp, dir)
	}
	return errors.Join(command(ctx, sc.dir, "cp", "-a", tmp, dir), os.RemoveAll(tmp))
}

const (
	// memoryDir is a tmpfs on most machines.
	memoryDir = "/dev/shm"
	// tinyRoom is more than any server needs for a tiny blob.
	tinyRoom = 24 << 10
)

// roomInMemory says whether memoryDir has more room than that.
func roomInMemory(bytes int64) bool {
	var room unix.Statfs_t
	err := unix.Statfs(memoryDir, &room)
	return err == nil && room.Type == unix.TMPFS_MAGIC && int64(room.Bavail)*room.Bsize > bytes
}

// pullTiny pulls blobs as pullMany does.
func pullTiny(ctx context.Context, srv *server, img *image, blobs []ocispec.Descriptor) error {
	return pullMany(ctx, srv, len(blobs), func(i int) (string, ocispec.Descriptor) { return srv.blobPath(img, blobs[i].Digest), blobs[i] })
}

// pullMany has 32 clients at once fetch what each of n paths has; each answer is hashed.
func pullMany(ctx context.Context, srv *server, n int, what func(i int) (path string, want ocispec.Descriptor)) error {
	transport := &http.Transport{MaxIdleConnsPerHost: parallel}
	defer transport.CloseIdleConnections()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	next := make(chan int)
	var all sync.WaitGroup
	for range parallel {
		all.Go(func() {
			for i := range next {
				path, want := what(i)
				if err := srv.fetchBy(ctx, transport, path, want); err != nil {
					stop(err)
				}
			}
		})
	}
	for i := range n {
		next <- i
		if ctx.Err() != nil {
			break
		}
	}
	close(next)
	all.Wait()
	return context.Cause(ctx)
}

func measureStart(ctx context.Context, srv *server, img *image, blobs []ocispec.Descriptor, cost tinyCost, m *measured) error {
	if err := srv.close(); err != nil {
		return err
	}
	blob := blobs[m.round%len(blobs)]
	began := time.Now()
	if err := srv.again(ctx); err != nil {
		return err
	}
	if err := srv.fetchWhole(ctx, srv.blobPath(img, blob.Digest), blob); err != nil {
		return err
	}
	m.set("until it serves", milliseconds(time.Since(began)))
	kib, err := settled(ctx, srv)
	if err != nil {
		return err
	}
	m.set("memory then", kib/1024)
	m.set("inodes a blob", cost.blob.inodes)
	m.set("disk a blob", cost.blob.blocks/1024)
	if srv.who == larder {
		m.set("index a blob", cost.blob.index)
	}
	m.set("memory a blob", max(0, kib-cost.memory)*1024/float64(len(blobs)))
	return nil
}
