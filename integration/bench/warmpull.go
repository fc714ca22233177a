package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/larder-project/larder/integration/bench/figures"
)

// Names of contestants that are here alone.
const (
	mirrored3  = "distribution v3 as a mirror"
	mirrored   = "larder as a mirror"
	withCopies = "larder, with copies"
)

func warmPull() experiment {
	return experiment{
		name: "warm pull",
		about: "512 MiB (-full: 1 GiB) in 8 layers, all of which the server has; a whole pull by containerd's transfer service, unpacking included. " +
			"larder is containerd's content store, and unpacks (proxy mode), once with proxy.copies; a mirror is before containerd's own store, and containerd unpacks. Each pull is by a containerd that has nothing, and whose folder is a new ext4: " +
			"one from which many files were just removed makes new ones several times slower. All that was pulled is hashed, and all layers have to be unpacked.",
		run: runWarmPull,
	}
}

func runWarmPull(ctx context.Context, sc *scene) error {
	if os.Getuid() != 0 {
		sc.sheet.note("left out: containerd needs root")
		return nil
	}
	img, err := sc.images.add(ctx, sc.opts.slow("library/half", 3, 2))
	if err != nil {
		return err
	}
	u, err := sc.upstream()
	if err != nil {
		return err
	}
	sc.sheet.row("time", "s", figures.Less, mirrored3, figures.Goal{Of: mirrored3, Bound: 0.6})
	var all []contestant
	for _, kind := range []pullThrough{
		{mirrored3, sc.registries()[0].start}, {mirrored, sc.larder().start}, {larder, sc.proxied("").start}, {withCopies, sc.proxied("copies = \"8GiB\"\n").start},
	} {
		dir, err := sc.newDir()
		if err != nil {
			return err
		}
		srv, err := sc.keep(kind.start(ctx, dir, u.URL()))
		if err != nil {
			return err
		}
		if err := srv.fetchImage(ctx, img); err != nil {
			return err
		}
		all = append(all, contestant{kind.who, func(ctx context.Context, m *measured) error {
			return quietly(u, func() error { return sc.pullWhole(ctx, srv, img, m) })
		}})
	}
	return sc.rounds(ctx, all...)
}

// pullWhole measures a pull by a new containerd.
func (sc *scene) pullWhole(ctx context.Context, srv *server, img *image, m *measured) (err error) {
	disk, end, err := sc.newDisk(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	n, err := sc.startNode(ctx, disk, srv)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	if err := n.from(srv.addr); err != nil {
		return err
	}
	unix.Sync() // what was written before is not to cost who comes next
	took, err := n.pull(ctx, img, true)
	if err != nil {
		return err
	}
	m.set("time", took.Seconds())
	whole, err := n.containerd.Ctr(ctx, "-n", namespace, "images", "check", "-q")
	if err != nil {
		return err
	}
	if len(strings.Fields(whole)) != 1 {
		return fmt.Errorf("containerd has not unpacked the image: %q are whole", whole)
	}
	return n.check(img)
}

// newDisk makes a file system, and mounts it.
func (sc *scene) newDisk(ctx context.Context) (dir string, end func() error, err error) {
	if dir, err = sc.newDir(); err != nil {
		return "", nil, err
	}
	file := dir + ".ext4"
	f, err := os.Create(file)
	if err != nil {
		return "", nil, fmt.Errorf("disk: %w", err)
	}
	if err := errors.Join(f.Truncate(diskSize), f.Close(), command(ctx, sc.dir, "mkfs.ext4", "-q", "-F", "-E", "nodiscard", file)); err != nil {
		return "", nil, fmt.Errorf("disk: %w", errors.Join(err, os.Remove(file)))
	}
	if err := command(ctx, sc.dir, "mount", "-o", "loop", file, dir); err != nil {
		return "", nil, fmt.Errorf("disk: %w", errors.Join(err, os.Remove(file)))
	}
	return dir, func() error {
		return errors.Join(command(context.WithoutCancel(ctx), sc.dir, "umount", dir), os.Remove(file))
	}, nil
}

// diskSize is that of a sparse file.
const diskSize = 16 << 30
