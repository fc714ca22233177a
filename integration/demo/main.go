// The demo command shows what larder is for, with real parts on loopback: a
// containerd that pulls an image by three names, loses the image and then the
// whole registry upstream, and pulls again.
//
// It needs root, what `make build tools` builds, and about a minute. It leaves
// nothing running and no files.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/larder-project/larder/integration/internal/parts"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx)
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "\ninterrupted; all parts are stopped")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}

// run plays the demo and takes the stage down again, whatever happened.
func run(ctx context.Context) (err error) {
	if os.Getuid() != 0 {
		return errors.New("containerd needs root: run it with sudo")
	}
	bin, err := parts.FindBin()
	if err != nil {
		return err
	}
	if err := bin.Need("larder", "containerd", "ctr", "registry"); err != nil {
		return err
	}
	s, err := newStage(bin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	return play(ctx, s, &screen{w: os.Stdout, colour: isTerminal(os.Stdout)})
}

// play is the story, one step after the other.
func play(ctx context.Context, s *stage, out *screen) error {
	out.title("larder demo: one node, one upstream registry, all on loopback")
	for _, step := range []func(context.Context, *screen) error{
		s.start, s.publish, s.pullFirst, s.pullOtherNames, s.deleteUpstream, s.stopUpstream, s.pullAgain, s.startContainer,
	} {
		if err := step(ctx, out); err != nil {
			return err
		}
	}
	out.table(s.pulls)
	out.title("Every pull was served, and only the first needed the upstream. Nothing is left running.")
	return nil
}
